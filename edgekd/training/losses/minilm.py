"""MiniLM: the last layer's self-attention, as distributions and as relations of its values."""

from torch import Tensor

from edgekd.registry import LOSSES
from edgekd.training.losses import DepthsLoss, Shape, not_negative
from edgekd.training.losses._attention_maps import is_map, relation_divergence, value_relations


@LOSSES.register(paper="https://arxiv.org/abs/2002.10957")
class MiniLM(DepthsLoss):
    """KL(A_t || A_s) + `values` KL(R_t || R_s), means over batch, heads and tokens.

    Wang et al. 2020, equations 5 to 8: A are the attention weights of the last layer, R =
    softmax(V V^T / sqrt(d)) the relations of its values. Name two layers on each side: the one that
    gives (heads, L, L) and the one that projects the values (L, D). Widths may differ, heads and
    lengths may not.
    """

    deepest = True
    automatic = ("attention", "value")

    def __init__(self, values: float = 1.0) -> None:
        not_negative(values=values)
        super().__init__()
        self.values = values

    def prepare(self, student: list[Shape], teacher: list[Shape]) -> None:
        for shapes in (student, teacher):
            fits = len(shapes) == 2 and is_map(shapes[0]) and len(shapes[1]) == 2
            if not fits or shapes[1][0] != shapes[0][1] or shapes[1][1] % shapes[0][0]:
                raise ValueError(
                    f"needs attention weights (heads, L, L) and values (L, D), found {shapes}"
                )
        if student[0] != teacher[0]:
            raise ValueError(
                f"needs as many heads and tokens on both sides, found {student[0]} and {teacher[0]}"
            )

    def forward(self, student: list[Tensor], teacher: list[Tensor]) -> Tensor:
        heads = student[0].shape[1]
        mine, theirs = (value_relations(side[1], heads) for side in (student, teacher))
        attention = relation_divergence(teacher[0], student[0])
        return attention + self.values * relation_divergence(theirs, mine)
