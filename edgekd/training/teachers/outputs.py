"""What a teacher's outputs are: logits, or probabilities that are turned into logits."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edgekd.data.tasks import Task
from edgekd.data.tasks.classification import CLASSIFICATION
from edgekd.errors import InputError
from edgekd.values.tree import OutputName, Tree, as_float, count, leaf, leaves

PROBE = 64
"""How many training samples are used to find out what a teacher's outputs are."""


@dataclass(frozen=True)
class Outputs:
    """How a teacher's raw outputs become logits.

    log(p + floor) of probabilities gives the logits back up to a constant per sample, which no
    softmax sees. `floor` is half a quantization step if the outputs are quantized. `task` tells
    which of several outputs are the logits.
    """

    probabilities: bool = False
    floor: float = 1e-7
    task: Task = CLASSIFICATION

    def logits(self, raw: Tree, output: OutputName = None) -> Any:
        """(B, ...) of float32: the output that the task reads, or another as it is."""
        if output is not None:
            return leaf(raw, output, "teacher").float()
        main = as_float(self.task.main(raw))
        return torch.log(main + self.floor) if self.probabilities else main

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know."""
        if not self.probabilities:
            return ()
        return (f"gives probabilities, not logits: log(p + {self.floor:.1g}) is used",)


def outputs_of(
    raw: Tree,
    classes: int,
    where: str,
    floor: float = 1e-7,
    task: Task = CLASSIFICATION,
    y: Tensor | None = None,
) -> Outputs:
    """Check a teacher's outputs (B, ...) for some samples against the data, and return their kind.

    `y` (B, ...) are these samples' targets; without them any labels are accepted.
    """
    targets = torch.zeros(count(raw), dtype=torch.int64) if y is None else y
    main = task.main(raw)
    fault = task.output_fault(main, targets, classes, where)
    if fault is not None:
        raise fault
    if not all(bool(torch.isfinite(part).all()) for part in leaves(raw)):
        raise InputError("NaN or infinity in the outputs", where=where)
    rows = task.rows(main.float()) if isinstance(main, Tensor) else None
    if rows is None:
        return Outputs(False, floor, task)
    sums_to_one = (rows.sum(1) - 1).abs().max() < 1e-2 + classes * floor
    return Outputs(bool(sums_to_one and (rows >= 0).all()), floor, task)
