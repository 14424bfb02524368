"""Finds, scores and removes whole residual blocks. A residual block is the innermost module that
passes its input on when all its parameters are zero: removing it leaves its shortcut. Blocks whose
shortcut has a layer stay.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.errors import InputError
from edgekd.network.evaluation import evaluate
from edgekd.stages.prune.allocation import Pool, best, global_, uniform
from edgekd.stages.prune.criteria import Criterion
from edgekd.stages.prune.cutting import output_shapes
from edgekd.stages.prune.kinds import KERNELS, NORMS
from edgekd.stages.prune.scoring import Scores
from edgekd.stages.prune.selection import NO_NORM_INSIDE, Selection
from edgekd.stages.prune.spec import Goal, PruneSpec
from edgekd.stages.prune.structured import within
from edgekd.training.context import Context
from edgekd.values.tree import Tree


@dataclass(frozen=True)
class Block:
    """A residual block by its module's name; `shape` is that of its output, (1, ...)."""

    name: str
    shape: tuple[int, ...]


def residual_blocks(module: nn.Module, example: Tree) -> list[Block]:
    """Every residual block, in the order of the network, except blocks that run twice."""
    inputs: dict[str, list[Tensor]] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(part: nn.Module, given: tuple[Any, ...], keys: Any, output: Any) -> None:
            passes = len(given) == 1 and not keys and isinstance(output, Tensor)
            if passes and isinstance(given[0], Tensor) and output.shape == given[0].shape:
                inputs.setdefault(name, []).append(given[0].detach())
            else:
                inputs.setdefault(name, []).extend([torch.empty(0)] * 2)

        return hook

    with ExitStack() as hooks, torch.no_grad():
        for name, part in module.named_modules():
            hooks.enter_context(part.register_forward_hook(watch(name), with_kwargs=True))
        module(example)
    found = [
        Block(name, tuple(given[0].shape))
        for name, given in inputs.items()
        if name and len(given) == 1 and _passes_on(module.get_submodule(name), given[0])
    ]
    order = {name: number for number, (name, _) in enumerate(module.named_modules())}
    inner = [
        block
        for block in found
        if not any(other.name.startswith(f"{block.name}.") for other in found)
    ]
    return sorted(inner, key=lambda block: order[block.name])


def _passes_on(part: nn.Module, x: Tensor) -> bool:
    """Whether the module has parameters and returns its input once they are zero."""
    if isinstance(part, KERNELS) or not any(isinstance(each, KERNELS) for each in part.modules()):
        return False
    empty = copy.deepcopy(part)
    with torch.no_grad():
        for parameter in empty.parameters():
            parameter.zero_()
        try:
            return torch.equal(empty(x), x)
        except Exception:  # its own code needs what zeros take from it, such as a norm above zero
            return False


def remove_blocks(module: nn.Module, example: Tree, names: Sequence[str]) -> nn.Module:
    """A copy in which each named block is replaced by its shortcut."""
    smaller = copy.deepcopy(module)
    for name in names:
        smaller.set_submodule(name, nn.Identity())
    for part in smaller.modules():
        part.training = False
    with torch.no_grad():
        shapes, expected = output_shapes(smaller(example)), output_shapes(module(example))
    if shapes != expected:
        text = f"without these blocks the output is {shapes}, not {expected}"
        raise InputError(text, where=", ".join(names))
    return smaller


def branch_energy(module: nn.Module, blocks: Sequence[Block], x: Tensor) -> dict[str, Tensor]:
    """(1,) the mean square of what each block adds to its input, over samples and positions."""
    energies: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(part: nn.Module, given: tuple[Any, ...], output: Tensor) -> None:
            energies[name] = (output - given[0]).double().square().mean().reshape(1)

        return hook

    with ExitStack() as hooks, torch.no_grad():
        for block in blocks:
            part = module.get_submodule(block.name)
            hooks.enter_context(part.register_forward_hook(watch(block.name)))
        module(x)
    return energies


def block_scores_of(
    module: nn.Module, blocks: Sequence[Block], scores: Scores, criterion: Criterion
) -> dict[str, float]:
    """Each block's score: the criterion over all kernels (or norms) in it. `scores` are by
    parameter, or by block if the criterion reads outputs. In their order the first count most.
    """
    if criterion.reads == "order":
        return {block.name: -float(number) for number, block in enumerate(blocks)}
    found = {}
    kinds = NORMS if criterion.reads == "norms" else KERNELS
    for block in blocks:
        if criterion.reads == "outputs":
            found[block.name] = float(scores[block.name])
            continue
        part = module.get_submodule(block.name)
        names = [
            f"{block.name}.{name}.weight"
            for name, each in part.named_modules()
            if isinstance(each, kinds)
        ]
        total = torch.stack([scores[name].double().sum() for name in names]).sum()
        found[block.name] = float(criterion.channel(total))
    return found


def selected_blocks(
    module: nn.Module, example: Tree, spec: PruneSpec, criterion: Criterion
) -> Selection[Block]:
    """The residual blocks that are removed if their scores are low, and those that the recipe does
    not ignore but that the criterion can't score."""
    wanted = [each for each in residual_blocks(module, example) if not spec.ignores(each.name)]
    left = {
        block.name: NO_NORM_INSIDE
        for block in wanted
        if criterion.reads == "norms" and not _has_norm(module.get_submodule(block.name))
    }
    return Selection([block for block in wanted if block.name not in left], left)


def _has_norm(part: nn.Module) -> bool:
    return any(isinstance(each, NORMS) for each in part.modules())


def block_pools(
    blocks: Sequence[Block],
    worth: Mapping[str, float],
    first: Mapping[tuple[int, ...], int],
    spec: PruneSpec,
) -> tuple[list[Pool], list[list[Block]]]:
    """The pools that compete: the blocks of each shape ("uniform"), or all of them."""
    shapes = dict.fromkeys(block.shape for block in blocks)
    sets = [[block for block in blocks if block.shape == shape] for shape in shapes]
    counts = [first.get(shape, 0) for shape in shapes]
    if spec.allocation != "uniform":
        sets, counts = [list(blocks)], [sum(first.values())]
    pools = [
        Pool(each[0].name, torch.tensor([worth[block.name] for block in each]), count, least=0)
        for each, count in zip(sets, counts, strict=True)
    ]
    return pools, sets


def cut_blocks(
    module: nn.Module,
    example: Tree,
    spec: PruneSpec,
    scores: Scores,
    criterion: Criterion,
    goal: Goal,
    context: Context,
) -> nn.Module:
    """A copy without the lowest-scoring blocks, as many as the goal requires. With allocation
    "sensitivity" a block's score is the accuracy lost on the validation samples when only that
    block is removed; the criterion breaks ties.
    """
    blocks = selected_blocks(module, example, spec, criterion).chosen
    if not blocks:
        return module
    worth = block_scores_of(module, blocks, scores, criterion)
    if spec.allocation == "sensitivity":
        worth = _measured(module, example, blocks, worth, context)
    pools, sets = block_pools(blocks, worth, goal.first, spec)

    def at(share: float) -> nn.Module:
        kept = (global_ if spec.allocation == "global" else uniform)(pools, share)
        gone = []
        for pool, each in zip(pools, sets, strict=True):
            staying = set(best(pool, kept[pool.name]))
            gone += [block.name for number, block in enumerate(each) if number not in staying]
        return remove_blocks(module, example, gone) if gone else module

    if goal.limit is None:
        assert goal.amount is not None
        return at(goal.amount)
    report = partial(context.progress, "blocks for the budget")
    return within(module, example, goal, at, 1.0, report)


def _measured(
    module: nn.Module,
    example: Tree,
    blocks: Sequence[Block],
    worth: Mapping[str, float],
    context: Context,
) -> dict[str, float]:
    samples = context.data.validation
    before, found = evaluate(module, samples), {}
    span = max(abs(value) for value in worth.values()) or 1.0
    least = 0.5 / max(1, len(samples))  # less than one sample's worth of accuracy
    for number, block in enumerate(blocks):
        context.progress("sensitivity", number, len(blocks))
        lost = before - evaluate(remove_blocks(module, example, [block.name]), samples)
        found[block.name] = lost + least * worth[block.name] / span
    return found


def first_blocks(blocks: Sequence[Block]) -> dict[tuple[int, ...], int]:
    """The number of blocks of each shape."""
    counts: dict[tuple[int, ...], int] = {}
    for block in blocks:
        counts[block.shape] = counts.get(block.shape, 0) + 1
    return counts
