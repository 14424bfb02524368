"""Reading single samples of a data set, in this process or in a worker: checked and named."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from edgekd.data.draws import callers_randomness, generators_of, seed_draw
from edgekd.data.inputs import FIXED
from edgekd.data.limits import Limits, limits_fault
from edgekd.data.prepare import Prepare
from edgekd.data.structure import batch_of, split_sample, target_of, tree_of
from edgekd.data.target_trees import TargetForm, is_tree
from edgekd.errors import EdgekdError, InputError, first_line
from edgekd.values.tree import Tree, concatenated, named_leaves

Transform = Callable[[Any], Any]
"""A random change of one sample's inputs, without a batch dimension."""

Form = tuple[tuple[str, tuple[int, ...], str], ...]
"""The name, shape and type of each input of a sample."""

Batch = tuple[Tree, Tensor]
"""Inputs (B, ...), None where only targets are asked for, and targets (B, ...)."""

Key = tuple[int, int]
"""The seed of a draw, and the row of a sample."""


IMAGES_DIFFER = (
    "images of one size and kind: set resize = [224, 224] or channels = 'rgb' under "
    "[data.preprocess]"
)


@dataclass(frozen=True, eq=False)
class SampleReader(Dataset[Any]):
    """A map-style data set as a reader of samples in one form.

    Every sample must have the `form`; None while it is unknown.
    `prepare` makes of a raw input what networks take; before it, `transform` is applied to the
    inputs of drawn samples, not of those read with seed `FIXED`.
    `targets_only` leaves the inputs behind once they are checked; `targets` is the form of targets
    that are several tensors. `limits` are those of integers that a network looks up.
    """

    dataset: Any
    where: str
    form: Form | None = None
    transform: Transform | None = None
    prepare: Prepare | None = None
    targets_only: bool = False
    targets: TargetForm | None = None
    limits: Mapping[str, Limits] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.dataset)

    @cached_property
    def generators(self) -> list[Any]:
        """The generators that the data set and the transform keep, which each draw seeds."""
        return generators_of(self.dataset) + generators_of(self.transform)

    def __getitem__(self, key: Key) -> tuple[Tree, Tensor] | EdgekdError:
        """One sample, or the error: a worker process returns it rather than raising it, so that
        it arrives whole."""
        try:
            x, y = self.sample(*key)
        except EdgekdError as error:
            return error
        return (None if self.targets_only else x), y

    def sample(self, seed: int | None, row: int) -> tuple[Tree, Tensor]:
        """Inputs without a batch dimension, and the target; without a seed, as random numbers come.
        `InputError` names the sample."""
        if seed is not None:
            seed_draw(seed, row, self.generators)
        place = f"{self.where}: sample {row}"
        try:
            raw, label = split_sample(self.dataset[row], place)
            drawn = self.transform is not None and seed != FIXED
            x = self._transformed(raw, row) if drawn else self._prepared(raw, row)
            self._check_target(label, row)
            y = target_of(label, f"{place}: y")
        except EdgekdError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {first_line(error)}"
            message = f"{self._name(row)} can't be read: {reason}"
            raise InputError(message, where=self.where) from error
        self._check(x, row)
        return x, y

    def target_form(self) -> TargetForm | None:
        """The form of the first sample's targets if they are several tensors."""
        with callers_randomness():
            seed_draw(FIXED, 0, self.generators)
            try:
                _, label = split_sample(self.dataset[0], self.where)
            except Exception:  # which reading it as a sample reports by name
                return None
        if not is_tree(label):
            return None
        return TargetForm.of(tree_of(label, f"{self.where}: sample 0: y"))

    def _check_target(self, label: Any, row: int) -> None:
        if self.targets is None:
            return
        tree = tree_of(label, f"{self.where}: sample {row}: y") if is_tree(label) else None
        if tree is None or TargetForm.of(tree) != self.targets:
            raise InputError(
                f"{self._name(row)} has {'one target' if tree is None else TargetForm.of(tree)}",
                where=self.where,
                allowed=f"{self.targets}, as sample 0 has",
                hint="pad targets of differing sizes to one shape",
            )

    def _name(self, row: int) -> str:
        name_of = getattr(self.dataset, "name_of", None)
        return f"sample {row}" + (f" ({name_of(row)})" if name_of is not None else "")

    def _prepared(self, raw: Any, row: int) -> Tree:
        prepared = raw if self.prepare is None else self.prepare(raw)
        return tree_of(prepared, f"{self.where}: sample {row}: x")

    def _transformed(self, raw: Any, row: int) -> Tree:
        """The input after its random change, resized only if it isn't yet what networks take."""
        assert self.transform is not None
        try:
            changed = self.transform(raw)
        except Exception as error:
            reason = f"{type(error).__name__}: {first_line(error)}"
            message = f"the transform fails on sample {row}: {reason}"
            raise InputError(message, where=self.where) from error
        x = tree_of(changed, f"{self.where}: sample {row}: x") if not _is_text(changed) else None
        if self.prepare is not None and (x is None or form_of(x) != self.form):
            x = self._prepared(changed, row)
        if self.form is not None and form_of(x) != self.form:
            raise InputError(
                f"the transform turns sample {row} into shape {shown_form(form_of(x))}",
                where=self.where,
                allowed=f"{shown_form(self.form)}, as before",
                hint="a transform that crops or turns must end in the size that it began with",
            )
        return x

    def _check(self, x: Tree, row: int) -> None:
        if self.form is not None and form_of(x) != self.form:
            raise InputError(
                f"{self._name(row)} has shape {shown_form(form_of(x))}",
                where=self.where,
                allowed=f"{shown_form(self.form)}, as sample 0 has",
                hint=IMAGES_DIFFER if len(self.form) == 1 and len(self.form[0][1]) == 3 else "",
            )
        for name, leaf in {"": x}.items() if isinstance(x, Tensor) else named_leaves(x).items():
            if leaf.is_floating_point() and not bool(leaf.isfinite().all()):
                place = f" in {name}" if name else ""
                message = f"NaN or infinity{place}, in {self._name(row)}"
                raise InputError(message, where=self.where, allowed="finite numbers")
        if self.limits:
            fault = limits_fault(x, self.limits, self._name(row), self.where)
            if fault is not None:
                raise fault

    def batch(self, keys: Sequence[Key]) -> Batch:
        """Samples read in this process, stacked; the caller's random state stays as it is."""
        with callers_randomness():
            return collated([self[key] for key in keys], self.where)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def form_of(x: Tree) -> Form:
    """The form of a sample's inputs. Bytes and floating point are one kind: networks see both as
    float32."""
    if isinstance(x, Tensor):  # the usual one, in a tenth of the time
        return (("", tuple(x.shape), "float32" if x.dtype == torch.uint8 else _kind(x)),)
    return tuple(
        (name, tuple(leaf.shape), "float32" if leaf.dtype == torch.uint8 else _kind(leaf))
        for name, leaf in named_leaves(x, "").items()
    )


def _kind(leaf: Tensor) -> str:
    return str(leaf.dtype).removeprefix("torch.")


def shown_form(form: Form) -> str:
    """A form as messages name it."""
    if len(form) == 1 and not form[0][0]:
        return f"{form[0][1]}" + ("" if form[0][2] == "float32" else f" {form[0][2]}")
    return ", ".join(f"{name} {shape} {kind}" for name, shape, kind in form)


def collated(samples: Sequence[tuple[Tree, Tensor] | EdgekdError], where: str) -> Batch:
    """Samples of one form as a batch. Raises the first of them that is an error."""
    good: list[tuple[Tree, Tensor]] = []
    for sample in samples:
        if isinstance(sample, EdgekdError):
            raise sample
        good.append(sample)
    y = joined([target.unsqueeze(0) for _, target in good], where)
    if good[0][0] is None:
        return None, y
    return concatenated([batch_of(x) for x, _ in good]), y


def joined(targets: Sequence[Tensor], where: str) -> Tensor:
    """Targets (B, ...) one after the other: whole and real numbers together are real numbers."""
    if len({target.shape[1:] for target in targets}) > 1:
        hint = "pad targets of differing sizes to one shape"
        raise InputError("targets differ in shape", where=where, hint=hint)
    if len({target.dtype for target in targets}) > 1:
        targets = [target.float() for target in targets]
    return torch.cat(list(targets))
