"""On-the-fly ensemble: branches of one network, gated into a teacher while all of them learn."""

import torch
from pydantic import Field
from torch import Tensor, nn

from edgekd.data.seeds import seeded
from edgekd.errors import EdgekdError, InputError
from edgekd.network.evaluation import evaluating
from edgekd.network.taps import Taps
from edgekd.registry import SCHEMES
from edgekd.stages.distill.schemes import Scheme, SchemeResult
from edgekd.stages.distill.schemes._answers import Comparison
from edgekd.stages.distill.schemes._cut import pooled, rest_behind, width_of
from edgekd.stages.distill.schemes._faults import answer_faults, class_faults
from edgekd.stages.distill.schemes._networks import as_teacher, fresh
from edgekd.training.context import Context
from edgekd.training.distillation import check_teaching
from edgekd.training.layer_pairs import blocks_of
from edgekd.training.loop import Batch, fit
from edgekd.training.terms import shapes_at


@SCHEMES.register(paper="https://arxiv.org/abs/1806.04606")
class OnTheFly(Scheme):
    """ONE: the student's upper layers are copied into branches; their gated ensemble teaches all.

    Lan et al. 2018, equation 8: L = sum_i CE(z_i, y) + CE(z_e, y) + T^2 sum_i KL(p_e || p_i), with
    z_e = sum_i g_i z_i and the gate g = softmax(relu(BN(W pooled features))) (section 3.1). The
    cross-entropies are weighted by `label_weight`, the branches learn from z_e by the recipe's
    `losses` (the paper's: label_weight = 1, kl at temperature 3). `layer` is the last shared layer,
    by default the last block but one; branches and gate are removed afterwards. No teacher is
    needed.
    """

    branches: int = Field(default=2, ge=1)
    layer: str | None = None

    def check(self, student: nn.Module, context: Context) -> list[EdgekdError]:
        faults = answer_faults(context, "on-the-fly") + class_faults(context, "on-the-fly")
        if context.teaching.batch_size == 1:
            message = "the gate's batch norm needs at least two samples per batch"
            faults.append(InputError(message, where=f"{context.where}: batch_size"))
        faults = faults or check_teaching(
            student, context.with_teachers([as_teacher(student, "a branch")])
        )
        if not faults:
            try:
                rest_behind(
                    student, self._layer(student, context), f"{context.where}: scheme.layer"
                )
            except InputError as fault:
                faults.append(fault)
        return faults

    def cost(self, context: Context) -> str:
        return f"{context.length}, with {self.branches} extra branches that are removed afterwards"

    def teach(self, student: nn.Module, context: Context) -> SchemeResult:
        layer = self._layer(student, context)
        rest = rest_behind(student, layer, context.where)
        branches = [fresh(rest, context.seed, "branch", n) for n in range(self.branches)]
        with evaluating(student):
            shape = shapes_at(student, [layer], context.data.example, context.where)[0]
        with seeded(context.seed, "gate"):
            gate = Gate(width_of(shape), self.branches + 1)
        comparison = Comparison(context)

        with Taps(student, [layer]) as taps:

            def loss(module: nn.Module, batch: Batch) -> Tensor:
                own = context.data.task.read(module, batch.x)
                features = taps.outputs[layer]
                answers = [own, *(branch(features).float() for branch in branches)]
                together = ensemble(torch.stack(answers), gate(pooled(features)))
                total = comparison.labels(together, batch)
                for answer in answers:
                    total = total + comparison.labels(answer, batch)
                    total = total + comparison(answer, together, batch)
                return total

            learned = nn.ModuleList([comparison, gate, *branches])
            fit(student, loss, context, companions=learned)
        return SchemeResult(student, f"{self.branches} branches at {layer}, removed afterwards")

    def _layer(self, student: nn.Module, context: Context) -> str:
        blocks = blocks_of(student)
        if self.layer is None and len(blocks) < 2:
            message = "the network has no sequence of blocks in which to branch"
            hint = 'name the last shared layer: scheme = { name = "on-the-fly", layer = "..." }'
            raise InputError(message, where=f"{context.where}: scheme.layer", hint=hint)
        return self.layer or blocks[-2]


class Gate(nn.Module):
    """Weights of the branches from the shared features: (B, width) -> (B, branches), sum one."""

    def __init__(self, width: int, branches: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, branches)
        self.norm = nn.BatchNorm1d(branches)

    def forward(self, features: Tensor) -> Tensor:
        scores = torch.relu(self.norm(self.linear(features.float())))
        return torch.softmax(scores, dim=1)


def ensemble(answers: Tensor, shares: Tensor) -> Tensor:
    """z_e = sum_i g_i z_i: (K, B, classes) and (B, K) -> (B, classes)."""
    return torch.einsum("kbc,bk->bc", answers, shares)
