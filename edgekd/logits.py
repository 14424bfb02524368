"""Teachers' logits for the training samples: computed once, kept on disk by content."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from edgekd.checkpoint import read_tensors, write_tensors
from edgekd.data.samples import Data
from edgekd.errors import InputError
from edgekd.teachers import Teacher
from edgekd.views import view_of

BATCH = 512


def teacher_logits(teacher: Teacher, x: Tensor) -> Tensor:
    """(B, classes) that autograd may use: a clone where the teacher ran in inference mode."""
    with torch.no_grad():
        logits = teacher.logits(x)
        return logits.clone() if logits.is_inference() else logits.detach()


class CachedLogits:
    """One teacher's logits for every training sample, view by view, as they are asked for."""

    def __init__(
        self,
        teacher: Teacher,
        data: Data,
        seed: int,
        folder: Path,
        progress: Callable[[str, int, int], None],
    ) -> None:
        self.teacher, self.data, self.seed = teacher, data, seed
        self.folder, self.progress = folder, progress
        self._views: dict[int, Tensor] = {}

    def at(self, view: int) -> Tensor:
        """(N, classes) of one view: from memory, from disk, or from the teacher."""
        if view not in self._views:
            path = self._path(view)
            found = read_tensors(path)
            if found is None or len(found[0]["logits"]) != len(self.data.train):
                write_tensors(path, {"logits": self._compute(view)}, {"teacher": self.teacher.name})
                found = read_tensors(path)
            assert found is not None
            self._views[view] = found[0]["logits"]
        return self._views[view]

    def _path(self, view: int) -> Path:
        data = self.data
        variant = repr((data.augmentation, self.seed, view)) if data.augmentation.active else ""
        content = "\n".join([self.teacher.key, data.train.sha256, variant])
        name = hashlib.sha256(content.encode()).hexdigest()[:24]
        return self.folder / f"logits-{name}.safetensors"

    def _compute(self, view: int) -> Tensor:
        inputs = view_of(self.data, view, self.seed)
        parts = []
        for number, part in enumerate(torch.split(inputs, BATCH)):
            parts.append(teacher_logits(self.teacher, part).float())
            self.progress("teacher's logits", min(len(inputs), (number + 1) * BATCH), len(inputs))
        logits = torch.cat(parts)
        if not bool(logits.isfinite().all()):
            raise InputError(
                "gives logits that are not numbers", where=f"teacher {self.teacher.name}"
            )
        return logits
