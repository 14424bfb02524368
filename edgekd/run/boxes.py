"""Files that search for boxes by themselves, beside those that give a network's outputs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgekd.backends import Backend
from edgekd.data.tasks import NO_LABEL, Task
from edgekd.measure.parity import Parity, compare
from edgekd.run.compiled import Compiled, cached
from edgekd.run.plan.planned import Plan
from edgekd.store import key_of
from edgekd.values.artifact import BOXES, Artifact
from edgekd.values.tree import Tree

TOLERANCE = 1e-4
"""How far a box or a score may lie from what decoding outside gives, in shares of the image."""


def finds_boxes(artifact: Artifact) -> bool:
    """Whether a file gives boxes instead of the network's outputs."""
    return BOXES in artifact.facts


def with_boxes(plan: Plan, name: str, backend: Backend, files: list[Compiled]) -> list[Compiled]:
    """The files, each with the one that finds boxes by itself if the task asks for it."""
    task = plan.data.task
    if task.search is None or not backend.info.finds_boxes:
        return files
    return [each for file in files for each in (file, _searching(plan, name, backend, file))]


def _searching(plan: Plan, name: str, backend: Backend, file: Compiled) -> Compiled:
    assert file.reference is not None
    task, candidate = plan.data.task, file.reference
    assert task.search is not None
    with torch.no_grad():
        outputs = candidate.module(candidate.example)
    search, classes = replace(task.search, candidates=_Candidates(task)), plan.data.classes

    def make(folder: Path) -> list[Artifact]:
        path = folder / f"{file.artifact.path.stem}_boxes{file.artifact.path.suffix}"
        return [backend.find_boxes(file.artifact, outputs, search, classes, path)]

    key = key_of(file.artifact.sha256, BOXES, repr(task), classes)
    (artifact,) = cached(plan.store, f"{name}-boxes", key, make)
    return replace(
        file, artifact=artifact, reference=None, original=file.artifact, source=file.artifact
    )


class _Candidates:
    """A task's candidates, from all outputs of the network."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def __call__(self, outputs: Tree) -> Any:
        assert self.task.search is not None
        return self.task.search.candidates(self.task.main(outputs))


def boxes_in(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """(N, most, 6) the boxes that a file gave: as they are, or as TFLite's operator has them, in
    corners, classes, scores, and how many there are."""
    if len(arrays) == 1:
        return arrays[0]
    corners, classes, scores, count = arrays
    top, left, bottom, right = np.moveaxis(corners, -1, 0)
    sides = (right - left, bottom - top)
    rows = np.stack([classes, (left + right) / 2, (top + bottom) / 2, *sides, scores], -1)
    there = np.arange(rows.shape[1]) < np.asarray(count).reshape(-1, 1)
    none = np.array([NO_LABEL, 0, 0, 0, 0, 0], rows.dtype)
    made: np.ndarray = np.where(there[..., None], rows, none)
    return made


def boxes_outside(task: Task, outputs: Any) -> np.ndarray:
    """(N, most, 6) what the same search outside of the file finds in what the task reads of a
    network's outputs (N, ...)."""
    return task.searched(outputs).numpy()


def boxes_parity(
    task: Task, found: np.ndarray, expected: np.ndarray, proposed: np.ndarray
) -> Parity:
    """Boxes (N, most, 6) of a file compared with those of the search outside of it, in any order.

    Of equally sure boxes, as integers give them, either may stay: another one than expected is
    right if it is among all candidates (N, n, 6) that were `proposed`, and as sure as the expected.
    """
    parity = compare(expected, _as_expected(found, expected, proposed), None, TOLERANCE, OUTSIDE)
    judge = task.of_boxes()
    boxes = [torch.from_numpy(np.ascontiguousarray(each)) for each in (found, expected)]
    agreement = float(judge.agreement(*boxes).double().mean())
    return parity.model_copy(update={"top1_agreement": agreement})


OUTSIDE = "the same search outside of the file"


def all_candidates(task: Task, outputs: Any) -> np.ndarray:
    """(N, n, 6) every candidate in what the task reads of a network's outputs, as boxes are."""
    assert task.search is not None
    boxes, sure, names = (each.detach().cpu().float() for each in task.search.candidates(outputs))
    return torch.cat([names.unsqueeze(2), boxes, sure.unsqueeze(2)], 2).numpy()


def _as_expected(found: np.ndarray, expected: np.ndarray, proposed: np.ndarray) -> np.ndarray:
    """The rows of each image in the order of the expected ones, which those that are equally sure
    stand for."""
    ordered = found.copy()
    for image, (mine, theirs) in enumerate(zip(found, expected, strict=True)):
        left, open_rows = list(range(len(mine))), list[int]()
        for row, wanted in enumerate(theirs):
            near = min(left, key=lambda place: _distance(mine[place], wanted), default=-1)
            if near >= 0 and _distance(mine[near], wanted) <= TOLERANCE:
                left.remove(near)
                ordered[image, row] = mine[near]
            else:
                open_rows.append(row)
        left.sort(key=lambda place: -mine[place][5])
        for row, place in zip(open_rows, left, strict=True):
            same = abs(mine[place][5] - theirs[row][5]) <= TOLERANCE
            known = np.abs(proposed[image] - mine[place]).max(1).min() <= TOLERANCE
            ordered[image, row] = theirs[row] if same and known else mine[place]
    return ordered


def _distance(row: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(row - other).max())
