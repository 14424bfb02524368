"""How several teachers' logits become one teacher's, sample by sample."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgekd.training.losses import Loss, ResponseLoss


class Fusion(nn.Module):
    """The teachers' shares in each sample's target: here their weights, equal for all samples. A
    subclass may compute other shares; its parameters are trained with the student by `own_loss` and
    discarded afterwards.
    """

    def shares(self, answers: Tensor, weights: Tensor, student: Tensor, labels: Tensor) -> Tensor:
        """Answers (K, B, classes), weights (K,), logits (B, classes), labels (B,) -> (K, B).

        The shares are not negative, and sum to one over the teachers.
        """
        return (weights / weights.sum()).view(-1, 1).expand(answers.shape[:2])

    def own_loss(self, answers: Tensor, shares: Tensor, labels: Tensor) -> Tensor | None:
        """The fusion's own loss, or None if it learns nothing."""
        return None


def merge(answers: Sequence[Tensor], weights: Sequence[float] | Tensor, loss: Loss) -> Tensor:
    """One teacher's logits as they are; several as one. `weights` are (K,), or (K, B) by sample.

    With p_i = softmax(z_i / T) at the loss's own T the result is z = T log(sum w_i p_i / sum w_i),
    so that softmax(z / T) is the weighted mean. A loss without a temperature gets the weighted
    mean of the logits, and so does one that compares whole outputs.
    """
    if len(answers) == 1:
        return answers[0]
    temperature = loss.averaged_at if isinstance(loss, ResponseLoss) else None
    shares = torch.as_tensor(weights, dtype=torch.float32, device=answers[0].device)
    rows = shares[0].numel()  # 1, or one of each sample
    shares = (shares / shares.sum(0)).view(len(answers), rows, *[1] * (answers[0].dim() - 1))
    stacked = torch.stack(list(answers))
    if temperature is None:
        return (shares * stacked).sum(0)
    logs = torch.log_softmax(stacked / temperature, dim=2) + shares.log()
    merged: Tensor = temperature * logs.logsumexp(0)
    return merged
