"""Verifies channel groups: compares the cut network with the whole one, channels silenced. On a
copy with random weights, so that no channel is dead by chance, some units of every group are
removed; the outputs must equal those of the whole network with these channels silenced.
"""

import copy
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from edgekd.errors import InputError, first_line
from edgekd.stages.prune.coupling.rules import RULES
from edgekd.stages.prune.coupling.silencing import Silence
from edgekd.stages.prune.coupling.trace import Trace, plain_kernels, run, run_under
from edgekd.stages.prune.cutting import cut_for_a_while
from edgekd.stages.prune.groups import Group, Structure, structure_of

TRIES = 2
TOLERANCES = {"float64": 1e-10, "float32 inside": 1e-6, "float32": 1e-3}
"""How far outputs may differ, as a share of the largest. A wrong cut of an attention whose scores
are almost equal changes the output by only 1e-7, so what is computed in double precision throughout
is compared more closely than what casts to float32 on the way."""

NOT_EQUAL = "the network without some of them does not compute the same as with them silenced"


class TooLong(InputError):
    """The network can't be traced within the time limit."""


class Deadline:
    """Raises `TooLong` when this thread's processor time is up: a busy machine refuses nothing."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.end = time.thread_time() + seconds

    def check(self, where: str) -> None:
        """Raise if the time is up."""
        if time.thread_time() > self.end:
            raise TooLong(
                f"its channels can't be traced within {self.seconds:.0f} s",
                where=where or "model",
                hint="granularity = 'weights' does not need to trace them",
            )


class Proof:
    """A network with random weights on which cuts are tried."""

    def __init__(self, module: nn.Module, example: Any, deadline: Deadline) -> None:
        self.deadline = deadline
        self.choices: Mapping[int, int] = {}
        self.module, self.example = _alive(module, example)
        dtypes = {each.dtype for each in self.module.parameters() if each.is_floating_point()}
        self.tolerance = TOLERANCES["float32"]
        if torch.float64 in dtypes:
            narrow = _Narrow()  # type: ignore[no-untyped-call]
            with narrow:
                _outputs(partial(self.module, self.example))
            self.tolerance = TOLERANCES["float32 inside" if narrow.seen else "float64"]

    def followed(self, choices: Mapping[int, int]) -> Structure:
        """What a trace with these choices finds."""
        self.choices = dict(choices)
        trace = Trace(self.module, RULES, self.choices, self.deadline.check)
        run(trace, self.module, self.example)
        return structure_of(trace)

    def unproven(
        self, groups: Sequence[Group], structure: Structure, trusted: Collection[Group] = ()
    ) -> dict[str, str]:
        """The groups that fail when they are cut, and why. `trusted` ones are only tried together,
        since they were verified before.
        """
        open_ = [each for each in groups if each.can_go]
        proven = [each for each in open_ if each in trusted]
        rest = [each for each in open_ if each not in trusted]
        reasons: dict[str, str] = {}
        if proven and self._failure(proven, structure):
            proven, rest = [], open_
        later: dict[str, list[Group]] = {}
        self._sort_out(proven, rest, structure, reasons, later)
        for alike in later.values():
            left = [each for each in alike if each.name not in reasons]
            failure = self._failure([*proven, *left], structure) if left else ""
            if not failure:
                proven += left
            elif self._failure([*proven, left[0]], structure):
                reasons |= {each.name: failure for each in left}
            else:
                self._sort_out(proven, left, structure, reasons)
        return reasons

    def _sort_out(
        self,
        proven: list[Group],
        groups: Sequence[Group],
        structure: Structure,
        reasons: dict[str, str],
        later: dict[str, list[Group]] | None = None,
    ) -> None:
        """Add to `proven` what can be cut together with it, and to `reasons` what can't.

        With `later`, what is named like a group that failed, but for the numbers of its blocks, is
        not tried but added there by that name, so that a network of many equal blocks does not take
        a try for each.
        """
        waiting = [list(groups)]
        while waiting:
            batch: list[Group] = []
            for each in waiting.pop():
                postponed = None if later is None else later.get(_pattern(each))
                (batch if postponed is None else postponed).append(each)
            if not batch:
                continue
            failure = self._failure([*proven, *batch], structure)
            if not failure:
                proven += batch
            elif len(batch) == 1:
                reasons[batch[0].name] = failure
                if later is not None:
                    later.setdefault(_pattern(batch[0]), [])
            else:
                half = len(batch) // 2
                waiting += [batch[half:], batch[:half]]

    def _failure(self, groups: Sequence[Group], structure: Structure) -> str:
        """Why these groups can't be cut together; empty if they can."""
        generator = np.random.default_rng(0)
        for _ in range(TRIES):
            self.deadline.check(groups[-1].name)
            gone = {group.name: _some(group, generator) for group in groups}
            try:
                with cut_for_a_while(self.module, _removed(groups, gone)):
                    found = _outputs(lambda: self.module(self.example))
            except Exception as error:  # whatever the network's own forward raises
                return f"the network does not run without these channels: {first_line(error)}"
            expected = self._silenced(groups, gone, structure)
            shapes, wanted = ([tuple(x.shape) for x in each] for each in (found, expected))
            if shapes != wanted:
                return f"without these channels the output is {shapes}, not {wanted}"
            if not all(map(self._equal, found, expected)):
                return NOT_EQUAL
        return ""

    def _silenced(
        self, groups: Sequence[Group], gone: Mapping[str, set[int]], structure: Structure
    ) -> list[Tensor]:
        removed = np.zeros(len(structure.roots), dtype=bool)
        for (parameter, dim), indices in _removed(groups, gone).items():
            removed[structure.ranges[parameter, dim].atoms[list(indices)]] = True
        silence = Silence(structure.summed, removed)
        return _outputs(lambda: run_under(silence, self.module, self.example))

    def _equal(self, found: Tensor, expected: Tensor) -> bool:
        if not expected.is_floating_point():
            return True
        scale = float(expected.abs().nan_to_num(0, 0, 0).amax()) if expected.numel() else 0.0
        return torch.allclose(
            found, expected, rtol=0.0, atol=self.tolerance * scale + 1e-12, equal_nan=True
        )


class _Narrow(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees whether anything is computed in less than double precision."""

    seen = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        leaves = [each for each in pytree.tree_leaves(result) if isinstance(each, Tensor)]
        self.seen |= any(each.is_floating_point() and each.itemsize < 8 for each in leaves)
        return result


def _pattern(group: Group) -> str:
    return re.sub(r"\d+(?=\.)", "#", group.name)


def _some(group: Group, generator: np.random.Generator) -> set[int]:
    """Some of a group's units, at least one, never all. How many is drawn for each group: where all
    lose the same share, a size that one group has may fit another by chance."""
    count = int(generator.integers(1, len(group.units)))
    return set(generator.permutation(len(group.units))[:count].tolist())


def _removed(
    groups: Sequence[Group], gone: Mapping[str, set[int]]
) -> dict[tuple[str, int], set[int]]:
    removed: dict[tuple[str, int], set[int]] = {}
    for group in groups:
        for part in group.slices:
            chosen = {
                index
                for index, unit in zip(part.indices, part.units, strict=True)
                if unit in gone[group.name]
            }
            if chosen:
                removed.setdefault((part.parameter, part.dim), set()).update(chosen)
    return removed


def _outputs(forward: Callable[[], Any]) -> list[Tensor]:
    with torch.no_grad(), plain_kernels(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [each for each in pytree.tree_leaves(forward()) if isinstance(each, Tensor)]


def _alive(module: nn.Module, example: Any) -> tuple[nn.Module, Any]:
    """The network with random weights, in double precision if it supports that."""
    for wide, shaken in ((True, True), (False, True), (True, False), (False, False)):
        copied = copy.deepcopy(module)
        for part in copied.modules():
            part.training = False
        if wide:
            copied = copied.double()
        if shaken:
            _shake(copied)
        x = pytree.tree_map(lambda leaf, wide=wide: _probe(leaf, wide), example)
        try:
            outputs = _outputs(partial(copied, x))
        except Exception:  # the last try's own error is the one to show
            if not wide and not shaken:
                raise
            continue
        if all(bool(each.isfinite().all()) for each in outputs):
            break
    return copied, x


def _probe(leaf: Any, wide: bool) -> Any:
    if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
        return leaf
    leaf = leaf[:1].double() if wide else leaf[:1]
    if leaf.numel() > 1 and bool((leaf == leaf.flatten()[0]).all()):
        generator = torch.Generator().manual_seed(0)
        leaf = leaf + torch.rand(leaf.shape, generator=generator).to(leaf.dtype)
    return leaf


def _shake(module: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in (*module.named_parameters(), *module.named_buffers()):
            if not value.is_floating_point():
                continue
            noise = torch.randn(value.shape, generator=generator).to(value.dtype)
            if name.endswith("running_var"):
                value.mul_(1 + 0.5 * torch.rand(value.shape, generator=generator).to(value.dtype))
            elif name.endswith("running_mean") or isinstance(value, nn.Parameter):
                spread = float(value.std()) if value.numel() > 1 else 0.0
                value.add_(noise * (0.5 * spread if spread > 0 else 0.1))
