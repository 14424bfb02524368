"""Graph networks: node embeddings, edge weights and the pooled output, on a budget of edges."""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.registry import LOSSES
from edgekd.training.losses import DepthsLoss, Shape, not_all_zero, not_negative

Part = Literal["nodes", "edges", "pooled"]


@LOSSES.register(paper="https://arxiv.org/abs/2003.10477")
class Graph(DepthsLoss):
    """`nodes` |W h_s - h_t|^2 + `edges` |e_s - k e_t|^2 + `pooled` |V p_s - p_t|^2, element means.

    `parts` says what each named layer gives, in order: node embeddings h (N, D), edge weights e
    (N, N) or (heads, N, N) of one shape, the pooled output p (D,). W and V are learned if the
    widths differ. Yang et al. 2020 distil a graph network's node embeddings; with `edge_budget`
    below 1 only that share of each graph's edges is kept (k = 1) and the weights of the others are
    trained towards zero. The edges kept are those with the largest |e_s d|V p_s - p_t|^2 / de_s|,
    the first-order change of the pooled mismatch without them.
    """

    least = 1
    example: ClassVar[dict[str, Any]] = {
        "student": ["nodes", "edges", "pooled"],
        "teacher": ["nodes", "edges", "pooled"],
    }

    def __init__(
        self,
        parts: tuple[Part, ...] = ("nodes", "edges", "pooled"),
        nodes: float = 1.0,
        edges: float = 1.0,
        pooled: float = 1.0,
        edge_budget: float = 1.0,
    ) -> None:
        not_negative(nodes=nodes, edges=edges, pooled=pooled)
        not_all_zero(nodes=nodes, edges=edges, pooled=pooled)
        if not 0 < edge_budget <= 1:
            raise ValueError(f"edge_budget must be above 0 and at most 1, found {edge_budget}")
        if edge_budget < 1 and not {"edges", "pooled"} <= set(parts):
            raise ValueError("an edge_budget needs both 'edges' and 'pooled' among the parts")
        super().__init__()
        self.parts, self.edge_budget = parts, edge_budget
        self.nodes, self.edges, self.pooled = nodes, edges, pooled
        self.bridges = nn.ModuleList()

    def prepare(self, student: list[Shape], teacher: list[Shape]) -> None:
        if len(student) != len(self.parts):
            named = ", ".join(self.parts)
            raise ValueError(f"{len(student)} layers are named for the parts {named}")
        self.bridges = nn.ModuleList()
        for part, mine, theirs in zip(self.parts, student, teacher, strict=True):
            same = mine == theirs if part == "edges" else mine[:-1] == theirs[:-1]
            if not same or (part == "edges" and mine[-1] != mine[-2:][0]):
                raise ValueError(f"{part} of shapes {mine} and {theirs} can't be matched")
            bridged = part != "edges" and mine[-1] != theirs[-1]
            self.bridges.append(nn.Linear(mine[-1], theirs[-1]) if bridged else nn.Identity())

    def forward(self, student: list[Tensor], teacher: list[Tensor]) -> Tensor:
        total, mismatch = student[0].new_zeros(()), student[0].new_zeros(())
        sides = list(zip(self.parts, self.bridges, student, teacher, strict=True))
        for part, bridge, mine, theirs in sides:
            if part == "edges":
                continue
            apart = F.mse_loss(bridge(mine), theirs)
            total = total + (self.nodes if part == "nodes" else self.pooled) * apart
            mismatch = apart if part == "pooled" else mismatch
        for part, _, mine, theirs in sides:
            if part == "edges":
                kept = self._kept(mine, mismatch)
                total = total + self.edges * F.mse_loss(mine, kept * theirs)
        return total

    def _kept(self, edges: Tensor, mismatch: Tensor) -> Tensor:
        """1 for the edges of each graph that its budget has room for, else 0."""
        if self.edge_budget == 1:
            return torch.ones_like(edges)
        slope = None
        if mismatch.requires_grad and edges.requires_grad:
            (slope,) = torch.autograd.grad(mismatch, edges, retain_graph=True, allow_unused=True)
        # Where the pooled output does not depend on the edges, the heaviest ones stay.
        weight = edges.detach() if slope is None else edges.detach() * slope
        flat = weight.abs().flatten(1)
        count = max(1, round(self.edge_budget * flat.shape[1]))
        places = flat.topk(count, dim=1).indices
        return torch.zeros_like(flat).scatter_(1, places, 1.0).view_as(edges)
