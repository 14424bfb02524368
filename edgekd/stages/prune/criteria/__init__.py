"""One pruning criterion a file: how much a weight matters; what scores lowest goes first.

A criterion works on one tensor at a time and keeps no state: the scoring in `edgekd.stages.prune`
feeds it. `needs` says what it must be shown, `reads` which tensors it judges:

- "weights": the kernels of convolutions and linear layers, element by element;
- "norms": the scales of normalization layers (one a channel);
- "outputs": what the layers give, (B, C, ...), summed up to one number a channel;
- "order": nothing: the channels stand in the order of their importance already.
"""

from typing import ClassVar, Literal

from torch import Tensor


class Criterion:
    """Score of each element; higher is kept.

    `step` sees each batch (needs "gradients": the model stands still; "training": it learns in
    between) with the tensor as it was in the forward pass and its gradient. `finish` turns what
    was summed up into the score, given the tensor as it was at first and at last.
    """

    needs: ClassVar[Literal["nothing", "gradients", "training"]] = "nothing"
    reads: ClassVar[Literal["weights", "norms", "outputs", "order"]] = "weights"
    moves: ClassVar[bool] = False
    """Whether single weights are pruned while the model trains, by scores that go on changing."""
    comparable: ClassVar[bool] = False
    """Whether single weights' scores mean the same in every layer: with allocation "global" they
    compete as they are, and are not divided by their layer's mean first."""

    def step(self, score: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        """The running score after one more batch; it starts at zero."""
        return score

    def finish(self, score: Tensor, first: Tensor, last: Tensor, steps: int) -> Tensor:
        """The score of each element after `steps` batches."""
        return score / max(1, steps)

    def channel(self, total: Tensor) -> Tensor:
        """A channel's score from the sum over its elements."""
        return total
