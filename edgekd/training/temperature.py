"""A teacher's own temperature, which calibrates its confidence before it teaches.

Guo et al. 2017, section 4.2: the T > 0 that minimizes the cross-entropy of softmax(z / T) with the
labels of samples that the teacher did not learn from.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekd.data.samples import Data
from edgekd.training.logits import BATCH, teacher_logits
from edgekd.training.teachers import Teacher

LEAST, MOST = 0.05, 20.0
HALVINGS = 40


def fitted_temperature(logits: Tensor, labels: Tensor) -> float:
    """Logits (R, classes) and labels (R,) -> T between 0.05 and 20.

    The cross-entropy is convex in 1/T, so its slope, mean(sum_j p_j z_j - z_y), is bisected.
    """
    logits = logits.double()
    chosen = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
    low, high = 1 / MOST, 1 / LEAST
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        slope = ((F.softmax(middle * logits, dim=1) * logits).sum(1) - chosen).mean()
        low, high = (low, middle) if float(slope) > 0 else (middle, high)
    return 2 / (low + high)


def teacher_temperature(teacher: Teacher, data: Data) -> float:
    """The temperature that fits a teacher on the validation samples."""
    parts = data.validation.as_shown.batches(BATCH)
    outputs = torch.cat([teacher_logits(teacher, part).float() for part, _ in parts])
    rows, labels = data.task.rows(outputs), data.task.row_labels(data.validation.y)
    assert rows is not None
    assert labels is not None
    known = labels >= 0
    return fitted_temperature(rows[known], labels[known])
