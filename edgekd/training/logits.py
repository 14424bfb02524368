"""Teachers' logits for the training samples: computed once, cached on disk by content."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgekd.data.views import shown_in_view
from edgekd.errors import InputError
from edgekd.network.evaluation import evaluating
from edgekd.training.checkpoint import read_tensors, write_tensors
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
        """(N, ...) of one view: from memory, from disk, or from the teacher."""
        if view not in self._views:
            path = self._path(view)
            stored = read_tensors(path)
            if stored is None or len(stored[0]["logits"]) != len(self.data.train):
                write_tensors(path, {"logits": self._compute(view)}, {"teacher": self.teacher.name})
                stored = read_tensors(path)
            assert stored is not None
            self._views[view] = stored[0]["logits"]
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
        return self.folder / f"logits-{name}.safetensors"

    def _compute(self, view: int) -> Tensor:
        parts, count = [], len(self.data.train)
        for number, part in enumerate(shown_in_view(self.data, view, BATCH)):
            parts.append(teacher_logits(self.teacher, part, self.output).float())
            self.progress("teacher's logits", min(count, (number + 1) * BATCH), count)
        logits = torch.cat(parts).to(self.storage)
        if not bool(logits.isfinite().all()):
            kept = "" if self.storage == torch.float32 else f" in {self.storage}"
            raise InputError(
                f"gives logits that are not numbers{kept}", where=f"teacher {self.teacher.name}"
            )
        return logits


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
