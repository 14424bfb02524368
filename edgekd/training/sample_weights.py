"""Sample weights: for rare classes, or for samples on which student and teacher disagree."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekd.data.tasks import NO_LABEL

SampleWeights = Literal["equal", "inverse-frequency", "disagreement"]


def inverse_frequency(labels: Tensor, classes: int) -> Tensor:
    """Training labels (N,) -> (classes,): N / (K n_c) over the K classes with samples, 0 for a
    class without any. Over the training set the mean weight is one."""
    counts = torch.bincount(labels, minlength=classes).double()
    present = counts > 0
    weights = torch.where(present, len(labels) / (present.sum() * counts.clamp_min(1)), 0.0)
    return weights.float()


def disagreement(student: Tensor, teacher: Tensor) -> Tensor:
    """Logits (R, classes) twice -> (R,) of mean one: half of |p_s - p_t|_1 over its mean.

    Where they agree everywhere, every weight is one. No gradient goes through it.
    """
    with torch.no_grad():
        apart = (F.softmax(student, dim=1) - F.softmax(teacher, dim=1)).abs().sum(1) / 2
        mean = apart.mean()
        return torch.where(mean > 1e-6, apart / mean.clamp_min(1e-6), torch.ones_like(apart))


def weighted_cross_entropy(
    rows: Tensor, labels: Tensor, weights: Tensor, smoothing: float
) -> Tensor:
    """The mean over labelled rows (R, classes) of weight * cross-entropy; 0 if there are none."""
    losses = F.cross_entropy(
        rows, labels, ignore_index=NO_LABEL, reduction="none", label_smoothing=smoothing
    )
    count = max(1, int((labels != NO_LABEL).sum()))
    return (weights * losses).sum() / count
