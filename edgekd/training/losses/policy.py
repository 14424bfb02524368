"""Policy distillation: the student does what the teacher does in the states that are visited."""

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from edgekd.registry import LOSSES
from edgekd.training.losses import OutputLoss, Shape, above_zero, not_negative
from edgekd.training.losses._rows import divergence, softened


@LOSSES.register(paper="https://arxiv.org/abs/1511.06295")
class Policy(OutputLoss):
    """KL(softmax(q_t / T) || softmax(q_s)), the mean over the states.

    Rusu et al. 2015, equations 3 to 5: q are a policy's logits (T = 1) or action values (T = 0.01
    in the paper), and `form` takes their negative log-likelihood of the teacher's best action
    (`nll`) or the squared error of the values (`mse`) instead. With `value` above zero the last
    output is a state's value, whose squared error is added by that weight. Zero where q_s equals
    q_t / T; never for `nll`.
    """

    def __init__(
        self,
        form: Literal["kl", "nll", "mse"] = "kl",
        temperature: float = 1.0,
        value: float = 0.0,
    ) -> None:
        above_zero(temperature=temperature)
        not_negative(value=value)
        super().__init__()
        self.form, self.temperature, self.value = form, temperature, value

    def prepare(self, outputs: Shape, targets: Shape, inputs: Shape) -> None:
        least = 3 if self.value else 2
        if len(outputs) != 1 or outputs[0] < least:
            raise ValueError(f"needs at least {least} outputs per state, found shape {outputs}")

    def forward(self, student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
        if not self.value:
            return self._actions(student, teacher)
        values = ((student[:, -1] - teacher[:, -1]) ** 2).mean()
        return self._actions(student[:, :-1], teacher[:, :-1]) + self.value * values

    def _actions(self, student: Tensor, teacher: Tensor) -> Tensor:
        if self.form == "nll":
            return F.cross_entropy(student, teacher.argmax(1))
        if self.form == "mse":
            return F.mse_loss(student, teacher)
        return divergence(softened(teacher, self.temperature), softened(student, 1.0)).mean()
