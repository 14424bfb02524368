"""What a teacher's outputs are: logits, or probabilities that are turned into logits."""

from dataclasses import dataclass

import torch
from torch import Tensor

from edgekd.data.tasks import Task
from edgekd.data.tasks.classification import CLASSIFICATION
from edgekd.errors import InputError

PROBE = 64
"""How many training samples are used to find out what a teacher's outputs are."""


@dataclass(frozen=True)
class Outputs:
    """How a teacher's raw outputs become logits.

    log(p + floor) of probabilities gives the logits back up to a constant per sample, which no
    softmax sees. `floor` is half a quantization step if the outputs are quantized.
    """

    probabilities: bool = False
    floor: float = 1e-7

    def logits(self, raw: Tensor) -> Tensor:
        """(B, ...) of float32."""
        raw = raw.float()
        return torch.log(raw + self.floor) if self.probabilities else raw

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know."""
        if not self.probabilities:
            return ()
        return (f"gives probabilities, not logits: log(p + {self.floor:.1g}) is used",)


def outputs_of(
    raw: Tensor,
    classes: int,
    where: str,
    floor: float = 1e-7,
    task: Task = CLASSIFICATION,
    y: Tensor | None = None,
) -> Outputs:
    """Check a teacher's outputs (B, ...) for some samples against the data, and return their kind.

    `y` (B, ...) are these samples' targets; without them any labels are accepted.
    """
    targets = torch.zeros(len(raw), dtype=torch.int64) if y is None else y
    fault = task.output_fault(raw, targets, classes, where)
    if fault is not None:
        raise fault
    raw = raw.float()
    if not torch.isfinite(raw).all():
        raise InputError("NaN or infinity in the outputs", where=where)
    rows = task.rows(raw)
    if rows is None:
        return Outputs(False, floor)
    sums_to_one = (rows.sum(1) - 1).abs().max() < 1e-2 + classes * floor
    return Outputs(bool(sums_to_one and (rows >= 0).all()), floor)
