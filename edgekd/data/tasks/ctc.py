"""Sequences without alignment: handwriting, speech, plates."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekd.data.tasks import NO_LABEL, Direction, Task, integer_faults, shape_fault
from edgekd.errors import EdgekdError, InputError
from edgekd.registry import TASKS

BLANK = 0


@TASKS.register(paper="Graves et al. 2006, connectionist temporal classification")
@dataclass(frozen=True)
class CTC(Task):
    """Sequences without alignment: logits (B, frames, classes), class 0 the blank; labels (B, S)
    starting at 1, -1 after the end of a shorter sequence.

    The score is 1 - the character error rate of the best path, not below 0.
    """

    metric: ClassVar[str] = "1 - CER"
    directions: ClassVar[Mapping[str, Direction]] = {"exact_match": "higher"}
    has_rows: ClassVar[bool] = True

    def label_loss(self, outputs: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
        """-log p(labels), each sequence's divided by its length; one that can't fit counts 0."""
        logs = F.log_softmax(outputs, 2).transpose(0, 1)
        frames = torch.full((len(y),), outputs.shape[1], dtype=torch.int64)
        lengths = (y != NO_LABEL).sum(1)
        return F.ctc_loss(logs, y.clamp(min=1), frames, lengths, BLANK, zero_infinity=True)

    def score(self, outputs: Tensor, y: Tensor) -> Tensor:
        """1 - edits / length, not below 0; for an empty sequence 1 where nothing is read."""
        texts = self.decode(outputs).tolist()
        scores = [
            _share(_text(mine), _text(theirs))
            for mine, theirs in zip(texts, y.tolist(), strict=True)
        ]
        return torch.tensor(scores, dtype=torch.float64)

    def decode(self, outputs: Tensor) -> Tensor:
        """(B, frames) the best path without repeats and blanks, -1 after its end."""
        path = outputs.argmax(2)
        before = F.pad(path[:, :-1], (1, 0), value=BLANK)
        kept = (path != BLANK) & (path != before)
        order = torch.argsort(~kept, dim=1, stable=True)
        return path.where(kept, NO_LABEL).gather(1, order)

    def rows(self, outputs: Tensor) -> Tensor:
        """(B frames, classes), the blank among them."""
        return outputs.flatten(0, 1)

    def extra_metrics(self, outputs: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Whether each whole sequence is right."""
        return {"exact_match": (self.score(outputs, y) == 1.0).double()}

    def target_faults(self, y: Tensor, classes: int, where: str) -> list[EdgekdError]:
        """Labels that aren't (N, S) integers from 1 to below `classes`, or -1 at the end."""
        faults = integer_faults(y, 2, classes, NO_LABEL, where)
        if faults:
            return faults
        if bool((y == BLANK).any()):
            first = int((y == BLANK).any(1).nonzero()[0])
            message = f"sample {first} has the label 0, which is the blank"
            faults.append(InputError(message, where=where, allowed=f"1 to {classes - 1}, or -1"))
        gaps = (y[:, 1:] != NO_LABEL) & (y[:, :-1] == NO_LABEL)
        if bool(gaps.any()):
            first = int(gaps.any(1).nonzero()[0])
            message = f"sample {first} has a label after its end (-1)"
            faults.append(InputError(message, where=where))
        return faults

    def output_fault(
        self, outputs: object, y: Tensor, classes: int, where: str
    ) -> InputError | None:
        """Other than one logit per class and frame; too few frames for the longest sequence."""
        wanted = f"({len(y)}, frames, {classes}): one logit per class and frame"
        fits = isinstance(outputs, Tensor) and outputs.ndim == 3
        if not fits or (outputs.shape[0], outputs.shape[2]) != (len(y), classes):  # type: ignore[attr-defined]
            return shape_fault(outputs, wanted, where)
        frames = outputs.shape[1]  # type: ignore[attr-defined]
        if frames < y.shape[1]:
            message = f"{frames} frames can't hold sequences of length {y.shape[1]}"
            return InputError(message, where=where, allowed=f"{y.shape[1]} frames or more")
        return None


def _text(labels: list[int]) -> list[int]:
    return labels[: labels.index(NO_LABEL)] if NO_LABEL in labels else labels


def _share(read: list[int], truth: list[int]) -> float:
    if not truth:
        return float(not read)
    return max(0.0, 1.0 - edits(read, truth) / len(truth))


def edits(read: list[int], truth: list[int]) -> int:
    """Levenshtein's distance: the least insertions, deletions and substitutions."""
    row = list(range(len(truth) + 1))
    for number, mine in enumerate(read, 1):
        before, row[0] = row[0], number
        for place, theirs in enumerate(truth, 1):
            changed = before + (mine != theirs)
            before, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, changed)
    return row[-1]
