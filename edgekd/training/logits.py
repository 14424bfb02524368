"""Teachers' logits for the training samples: computed once, cached on disk by content."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgekd.data.views import shown_in_view
from edgekd.errors import InputError
from edgekd.network.evaluation import evaluating
from edgekd.store import file_beside
from edgekd.training.context import Context
from edgekd.training.loop import Batch
from edgekd.training.teachers import Teacher
from edgekd.values.tree import OutputName, Tree, mapped, moved

BATCH = 512


def teacher_logits(teacher: Teacher, x: Tree, output: OutputName = None) -> Any:
    """(B, ...) that autograd may use: a clone if the teacher ran in inference mode. `output` is
    another output than the one that the task reads."""
    with torch.no_grad():
        logits = teacher.logits(x) if output is None else teacher.logits(x, output)
        return mapped(lambda part: part.clone() if part.is_inference() else part.detach(), logits)


@contextmanager
def eval_mode(teachers: Iterable[Teacher]) -> Iterator[None]:
    """A context in which every teacher with layers is in eval mode; restored afterwards."""
    with ExitStack() as stack:
        for teacher in teachers:
            if teacher.module is not None:
                stack.enter_context(evaluating(teacher.module))
        yield


class CachedLogits:
    """One teacher's logits for every training sample, computed per view when needed."""

    def __init__(
        self,
        teacher: Teacher,
        context: Context,
        storage: torch.dtype = torch.float32,
        output: OutputName = None,
    ) -> None:
        self.teacher, self.data, self.storage = teacher, context.data, storage
        self.output = output
        self.folder, self.progress = context.logits_folder, context.progress
        self._views: dict[int, Tensor] = {}

    def at(self, view: int) -> Tensor:
        """(N, ...) of one view, mapped from the disk; the teacher computes them first if they
        aren't there."""
        if view not in self._views:
            path = self._path(view)
            stored = _mapped(path, len(self.data.train))
            if stored is None:
                self._compute(view, path)
                stored = _mapped(path, len(self.data.train))
            assert stored is not None
            self._views[view] = stored
        return self._views[view]

    def _path(self, view: int) -> Path:
        data = self.data
        variant = repr((data.augmentation, view)) if data.varies else ""
        parts = [self.teacher.key, data.train.sha256, variant]
        if self.storage != torch.float32:
            parts.append(str(self.storage))
        if self.output is not None or self.data.task.output is not None:
            parts.append(repr((self.output, self.data.task.output)))
        content = "\n".join(parts)
        name = hashlib.sha256(content.encode()).hexdigest()[:24]
        return self.folder / f"logits-{name}.npy"

    def _compute(self, view: int, path: Path) -> None:
        """Write a view's logits to the disk, a batch at a time."""
        done, count = 0, len(self.data.train)
        path.parent.mkdir(parents=True, exist_ok=True)
        with file_beside(path) as beside:
            whole: Any = None
            for part in shown_in_view(self.data, view, BATCH):
                logits = teacher_logits(self.teacher, part, self.output).float().cpu()
                logits = logits.to(self.storage)
                self._refuse_not_finite(logits)
                if whole is None:
                    shape = (count, *logits.shape[1:])
                    kind = logits.numpy().dtype
                    whole = np.lib.format.open_memmap(beside, mode="w+", dtype=kind, shape=shape)
                whole[done : done + len(logits)] = logits.numpy()
                done += len(logits)
                self.progress("teacher's logits", done, count)
            whole.flush()

    def _refuse_not_finite(self, logits: Tensor) -> None:
        if not bool(logits.isfinite().all()):
            kept = "" if self.storage == torch.float32 else f" in {self.storage}"
            raise InputError(
                f"gives logits that are not numbers{kept}", where=f"teacher {self.teacher.name}"
            )


def _mapped(path: Path, count: int) -> Tensor | None:
    """The array (N, ...) in an .npy file, whose pages are read when they are used; None if the file
    is missing, damaged or of another length. What is written to it stays in memory."""
    try:
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return torch.from_numpy(array) if len(array) == count else None


class TeacherLogits:
    """The logits of a context's teachers for the batches of one training, cached if views repeat.

    `storage` is the precision in which they are kept; half precision halves the disk space.
    """

    def __init__(self, context: Context, storage: torch.dtype = torch.float32) -> None:
        self.teachers = context.teachers
        self._context, self._storage = context, storage
        self._cached: dict[tuple[int, OutputName], CachedLogits] = {}

    def of(self, number: int, batch: Batch, output: OutputName = None) -> Tensor:
        """(B, ...) of float32 that teacher `number` gives for a batch, on its device; `output` is
        another output than the one that the task reads."""
        teacher = self.teachers[number]
        if batch.view is None:
            logits: Tensor = teacher_logits(teacher, moved(batch.shown, "cpu"), output)
            return logits.to(batch.device, torch.float32)
        cached = self._cached.get((number, output))
        if cached is None:
            cached = CachedLogits(teacher, self._context, self._storage, output)
            self._cached[number, output] = cached
        return cached.at(batch.view)[batch.index].to(batch.device, torch.float32)
