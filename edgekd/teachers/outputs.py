"""What a teacher's outputs are: logits, or probabilities that are turned into logits."""

from dataclasses import dataclass

import torch
from torch import Tensor

from edgekd.errors import InputError

PROBE = 64
"""How many training samples tell what a teacher's outputs are."""


@dataclass(frozen=True)
class Outputs:
    """How a teacher's raw outputs become logits.

    log(p + floor) of probabilities gives the logits back up to a constant per sample, which no
    softmax sees. `floor` is half a quantization step where the outputs are quantized.
    """

    probabilities: bool = False
    floor: float = 1e-7

    def logits(self, raw: Tensor) -> Tensor:
        """(B, classes) of float32."""
        raw = raw.float()
        return torch.log(raw + self.floor) if self.probabilities else raw

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know."""
        if not self.probabilities:
            return ()
        return (f"gives probabilities, not logits: log(p + {self.floor:.1g}) is used",)


def outputs_of(raw: Tensor, classes: int, where: str, floor: float = 1e-7) -> Outputs:
    """Check a teacher's outputs (B, ...) for some samples against the data, and tell their kind."""
    if raw.ndim != 2 or raw.shape[1] != classes:
        raise InputError(
            f"outputs have shape {('B', *raw.shape[1:])}".replace("'", ""),
            where=where,
            allowed=f"(B, {classes}): the data has {classes} classes",
        )
    raw = raw.float()
    if not torch.isfinite(raw).all():
        raise InputError("NaN or infinity in the outputs", where=where)
    sums_to_one = (raw.sum(1) - 1).abs().max() < 1e-2 + classes * floor
    return Outputs(bool(sums_to_one and (raw >= 0).all()), floor)
