"""Teachers' logits for the training samples: computed once, cached on disk by content."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import Tensor

from edgekd.data.views import shown_in_view
from edgekd.errors import InputError
from edgekd.network.evaluation import evaluating
from edgekd.training.checkpoint import read_tensors, write_tensors
from edgekd.training.context import Context
from edgekd.training.loop import Batch
from edgekd.training.teachers import Teacher
from edgekd.values.tree import Tree, moved

BATCH = 512


def teacher_logits(teacher: Teacher, x: Tree) -> Tensor:
    """(B, ...) that autograd may use: a clone if the teacher ran in inference mode."""
    with torch.no_grad():
        logits = teacher.logits(x)
        return logits.clone() if logits.is_inference() else logits.detach()


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
        self, teacher: Teacher, context: Context, storage: torch.dtype = torch.float32
    ) -> None:
        self.teacher, self.data, self.storage = teacher, context.data, storage
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
        content = "\n".join(parts)
        name = hashlib.sha256(content.encode()).hexdigest()[:24]
        return self.folder / f"logits-{name}.safetensors"

    def _compute(self, view: int) -> Tensor:
        parts, count = [], len(self.data.train)
        for number, part in enumerate(shown_in_view(self.data, view, BATCH)):
            parts.append(teacher_logits(self.teacher, part).float())
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
        self._cached = [CachedLogits(teacher, context, storage) for teacher in context.teachers]

    def of(self, number: int, batch: Batch) -> Tensor:
        """(B, ...) of float32 that teacher `number` gives for a batch, on its device."""
        if batch.view is not None:
            logits = self._cached[number].at(batch.view)[batch.index]
        else:
            logits = teacher_logits(self.teachers[number], moved(batch.shown, "cpu"))
        return logits.to(batch.y.device, torch.float32)
