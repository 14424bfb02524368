"""Divergence of two yes-or-no answers."""

from torch import Tensor
from torch.nn import functional as F


def binary_divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """Logits -> KL(sigmoid(teacher) || sigmoid(student)), element by element."""
    yes = teacher.sigmoid()
    divergence = yes * (F.logsigmoid(teacher) - F.logsigmoid(student))
    return divergence + (1 - yes) * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
