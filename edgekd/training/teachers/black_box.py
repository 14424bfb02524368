"""A teacher without layers: only samples in and outputs out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.training.teachers.outputs import Outputs
from edgekd.values.tree import (
    OutputName,
    Tree,
    chunks,
    concatenated,
    count,
    leaves,
    mapped,
    moved,
    rows,
)

Predict = Callable[[Tree], Tree]
"""A batch of inputs in our layout to the raw outputs."""


@dataclass(frozen=True)
class Predictor:
    """What a black box's file provides; `floor` is half a step of quantized outputs."""

    predict: Predict
    floor: float = 1e-7


@dataclass(frozen=True)
class BlackBox:
    """A `Teacher` whose outputs come from elsewhere. `notes` say what the user should know."""

    name: str
    key: str
    weight: float
    predict: Predict
    outputs: Outputs
    notes: tuple[str, ...] = ()

    @property
    def module(self) -> nn.Module | None:
        """None: there are no layers to tap."""
        return None

    def logits(self, x: Tree, output: OutputName = None) -> Any:
        """(B, ...) for a batch, on the device of `x`."""
        device = leaves(x)[0].device
        with torch.no_grad():
            return moved(self.outputs.logits(self.predict(moved(x, "cpu")), output), device)


def in_batches(predict: Predict, size: int | None) -> Predict:
    """`predict`, but called with batches of `size`, the last one padded; None fits any batch."""
    if size is None:
        return predict

    def padded(part: Tensor) -> Tensor:
        return torch.cat([part, part[-1:].expand(size - len(part), *part.shape[1:])])

    def fixed(x: Tree) -> Tree:
        return concatenated(
            [rows(predict(mapped(padded, part)), slice(0, count(part))) for part in chunks(x, size)]
        )

    return fixed


def batch_of(shapes: Sequence[Sequence[int | None]]) -> int | None:
    """The batch size that a file is fixed to, or None."""
    return next((shape[0] for shape in shapes if shape[0] is not None), None)
