"""A teacher without layers: only samples in and outputs out."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgekd.training.teachers.outputs import Outputs

Predict = Callable[[Tensor], Tensor]
"""A batch (B, ...) of float32 in our layout to raw outputs (B, classes)."""


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

    def logits(self, x: Tensor) -> Tensor:
        """(B, classes) for a batch, on the device of `x`."""
        with torch.no_grad():
            return self.outputs.logits(self.predict(x.cpu())).to(x.device)


def in_batches(predict: Predict, size: int | None) -> Predict:
    """`predict`, but called with batches of `size`, the last one padded; None fits any batch."""
    if size is None:
        return predict

    def fixed(x: Tensor) -> Tensor:
        outputs = []
        for part in torch.split(x, size):
            padding = part[-1:].expand(size - len(part), *part.shape[1:])
            outputs.append(predict(torch.cat([part, padding]))[: len(part)])
        return torch.cat(outputs)

    return fixed
