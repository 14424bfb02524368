"""Whether compression costs some groups more than others."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgekd.data.samples import Data
from edgekd.data.tasks import Task
from edgekd.errors import InputError
from edgekd.measure.diagnostics import Line, OfOutputs, Outputs, Plot
from edgekd.registry import DIAGNOSTICS
from edgekd.store import read_errors


@DIAGNOSTICS.register(paper="https://arxiv.org/abs/2010.03058")
@dataclass(frozen=True)
class Groups(OfOutputs):
    """Accuracy of each group, and by how much the gap between best and worst group grew.

    Hooker et al. 2020. `groups` is an .npy file with one integer per test sample, in their order;
    without it the groups are the classes.
    """

    groups: Path | None = None

    def fault(self, task: Task, data: Data) -> str:
        if self.groups is None and bool((task.strata(data.test.y) <= 0).all()):
            return f"{task.name} has no classes to group by: name a file as 'groups'"
        return ""

    def look(self, outputs: Outputs) -> tuple[list[Line], Plot | None]:
        group, names = self._groups(outputs)
        mine = outputs.task.score(outputs.student, outputs.y)
        theirs = outputs.task.score(outputs.teacher, outputs.y)
        ours, other = by_group(mine, group), by_group(theirs, group)
        lines = [Line.mean(f"group {names(value)}", ours[value], other[value]) for value in ours]
        means = [[float(each.mean()) for each in side.values()] for side in (ours, other)]
        gaps = [max(side) - min(side) for side in means]
        grown = 100 * (gaps[0] - gaps[1])
        lines.append(Line(name="gap between groups", student=gaps[0], teacher=gaps[1]))
        lines.append(Line(name="growth of the gap", student=grown, unit="points"))
        return lines, None

    def _groups(self, outputs: Outputs):  # type: ignore[no-untyped-def]
        if self.groups is None:
            labels = outputs.data.labels
            group = outputs.task.strata(outputs.y)
            return group, lambda value: labels[value] if labels else str(value)
        group = torch.from_numpy(read_groups(outputs.folder / self.groups, len(outputs.y)))
        return group, str


def read_groups(path: Path, count: int) -> np.ndarray:
    """The integers (N,) of an .npy file, without unpickling; `InputError` for anything else."""
    try:
        with read_errors(path, "an .npy file"):
            found = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"not an .npy file of integers: {error}", where=str(path)) from None
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "iu" or found.shape != (count,):
        shape = getattr(found, "shape", type(found).__name__)
        message = f"groups of shape {shape}"
        raise InputError(message, where=str(path), allowed=f"{count} integers, one per test sample")
    return found.astype(np.int64)


def by_group(scores: Tensor, group: Tensor) -> dict[int, Tensor]:
    """The scores of each group."""
    return {int(value): scores[group == value] for value in torch.unique(group).tolist()}
