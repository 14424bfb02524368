"""What the losses on rows of logits share: divergences per row, and a temperature's square."""

from torch import Tensor
from torch.nn import functional as F


def divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(teacher || student) of log-probabilities (R, classes) -> (R,)."""
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(1)


def softened(logits: Tensor, temperature: float | Tensor) -> Tensor:
    """log softmax(z / T) over the classes."""
    return F.log_softmax(logits / temperature, dim=1)


def squared(temperature: float | Tensor) -> float | Tensor:
    """T^2: one number, or (R,) where each row has a temperature of its own."""
    if isinstance(temperature, Tensor) and temperature.ndim == 2:
        return temperature.squeeze(1) ** 2
    return temperature**2
