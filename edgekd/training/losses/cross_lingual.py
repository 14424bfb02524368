"""Cross-lingual distillation: a sentence and its translation get the teacher's one embedding."""

from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.registry import LOSSES
from edgekd.training.losses import OutputLoss, Shape, not_negative


@LOSSES.register(paper="https://arxiv.org/abs/2004.09813")
class CrossLingual(OutputLoss):
    """`source` |s(x) - t(x)|^2 + |s(y) - t(x)|^2, x and y an aligned pair; means over the elements.

    Reimers and Gurevych 2020, equation 1: the student's inputs are the translations y and the
    teacher is shown the sentences x (the samples' paired view), which the student reads too. Its
    outputs are the embeddings, as wide as the teacher's.
    """

    needs = ("shown", "student_network")

    def __init__(self, source: float = 1.0) -> None:
        not_negative(source=source)
        super().__init__()
        self.source = source

    def prepare(self, outputs: Shape, targets: Shape, inputs: Shape) -> None:
        if len(outputs) != 1:
            raise ValueError(f"needs embeddings (D,), found outputs of shape {outputs}")

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        targets: Tensor,
        *,
        shown: Tensor,
        student_network: nn.Module,
    ) -> Tensor:
        translated = F.mse_loss(student, teacher)
        if not self.source:
            return translated
        read = student_network(shown).float()
        return translated + self.source * F.mse_loss(read, teacher)
