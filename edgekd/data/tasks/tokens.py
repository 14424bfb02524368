"""One class per token: the next word of a text, a tag, a node of a graph."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from edgekd.data.tasks import (
    NO_LABEL,
    Direction,
    Task,
    classes_hint,
    integer_faults,
    mean_cross_entropy,
    shape_fault,
)
from edgekd.errors import EdgekdError, InputError
from edgekd.registry import TASKS


@TASKS.register(paper="Bengio et al. 2003, a neural probabilistic language model")
@dataclass(frozen=True)
class Tokens(Task):
    """One class per token: logits (B, L, classes), labels (B, L), -1 if there are none.

    For a language model the label of a token is the one that follows. The score is the share of a
    sample's labelled tokens whose largest logit is at the label.
    """

    metric: ClassVar[str] = "token accuracy"
    directions: ClassVar[Mapping[str, Direction]] = {"cross_entropy_nats": "lower"}
    smooths: ClassVar[bool] = True
    has_rows: ClassVar[bool] = True
    labels_rows: ClassVar[bool] = True

    def label_loss(self, outputs: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
        """Cross-entropy, the mean over the labelled tokens."""
        return mean_cross_entropy(self.rows(outputs), self.row_labels(y), smoothing)

    def score(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The share of right tokens; 1 if none is labelled."""
        known = y != NO_LABEL
        right = ((outputs.argmax(2) == y) & known).sum(1).double()
        count = known.sum(1)
        return right.where(count > 0, 1.0) / count.clamp(min=1)

    def decode(self, outputs: Tensor) -> Tensor:
        """(B, L) the class of each token's largest logit."""
        return outputs.argmax(2)

    def rows(self, outputs: Tensor) -> Tensor:
        """(B L, classes)."""
        return outputs.flatten(0, 1)

    def row_labels(self, y: Tensor) -> Tensor:
        """(B L,)."""
        return y.flatten()

    def extra_metrics(self, outputs: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The cross-entropy of each sample's labelled tokens, in nats: its exponential is the
        perplexity."""
        rows = F.cross_entropy(
            self.rows(outputs).double(), y.flatten(), ignore_index=NO_LABEL, reduction="none"
        )
        count = (y != NO_LABEL).sum(1).clamp(min=1)
        return {"cross_entropy_nats": rows.view(y.shape).sum(1) / count}

    def target_faults(self, y: Tensor, classes: int, where: str) -> list[EdgekdError]:
        """Labels that aren't (N, L) integers from -1 to below `classes`."""
        return integer_faults(y, 2, classes, NO_LABEL, where)

    def output_fault(
        self, outputs: object, y: Tensor, classes: int, where: str
    ) -> InputError | None:
        """Anything other than one logit per class and token."""
        wanted = (len(y), *y.shape[1:], classes)
        if isinstance(outputs, Tensor) and tuple(outputs.shape) == wanted:
            return None
        hint = classes_hint(outputs, 2, classes)
        return shape_fault(outputs, f"{wanted}: one logit per class and token", where, hint)
