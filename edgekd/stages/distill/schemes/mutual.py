"""Deep mutual learning: peers learn together, each from the labels and from the others."""

import copy

import torch
from pydantic import Field
from torch import Tensor, nn

from edgekd.errors import EdgekdError, InputError
from edgekd.registry import SCHEMES
from edgekd.stages.distill.schemes import Scheme, SchemeResult
from edgekd.stages.distill.schemes._answers import Comparison, mean
from edgekd.stages.distill.schemes._faults import (
    answer_faults,
    layer_teacher_faults,
    one_process_faults,
)
from edgekd.stages.distill.schemes._networks import as_teacher, fresh
from edgekd.training.context import Context
from edgekd.training.distillation import check_teaching
from edgekd.training.loop import Batch, fit


@SCHEMES.register(paper="https://arxiv.org/abs/1706.00384")
class Mutual(Scheme):
    """Peers with the student's structure learn together with it and are removed afterwards.

    Zhang et al. 2018, equation 8, for K networks: L_k = CE(z_k, y) + 1/(K-1) sum_{l != k} of
    KL(p_l || p_k), with the recipe's `label_weight` and `losses` in place of both (the paper's own:
    `label_weight = 1`, kl at temperature 1). All networks step at once; with `in_turn`, one after
    the other, each using the updated outputs of those before it, as in the paper's algorithm 1: K
    steps and K times the forward passes per batch. With `with_teacher` a copy of the first teacher
    is one more peer and learns too; the teacher itself stays as it is.
    """

    peers: int = Field(default=1, ge=0)
    with_teacher: bool = False
    in_turn: bool = False

    def check(self, student: nn.Module, context: Context) -> list[EdgekdError]:
        faults = answer_faults(context, "mutual")
        if self.with_teacher:
            faults += layer_teacher_faults(context, "mutual", "trains a copy of the teacher")
        elif not self.peers:
            message = "there are no peers to learn with"
            hint = "set peers = 1 or more, or with_teacher = true"
            faults.append(InputError(message, where=f"{context.where}: scheme.peers", hint=hint))
        if self.in_turn:
            faults += one_process_faults(context, "mutual in turn")
        also = context.teachers[:1] if self.with_teacher else ()
        return faults or check_teaching(
            student, context.with_teachers([as_teacher(student, "a peer"), *also])
        )

    def cost(self, context: Context) -> str:
        count = self.peers + self.with_teacher
        turns = ", in turn" * self.in_turn
        return f"{context.length}, learning together with {count} peer{'s' * (count > 1)}{turns}"

    def teach(self, student: nn.Module, context: Context) -> SchemeResult:
        peers = [fresh(student, context.seed, "peer", number) for number in range(self.peers)]
        if self.with_teacher and context.teachers[0].module is not None:
            peers.append(copy.deepcopy(context.teachers[0].module).requires_grad_(True))
        comparison = Comparison(context)

        def loss(module: nn.Module, batch: Batch) -> Tensor:
            networks = (module, *peers)
            learners = [batch.turn] if self.in_turn else range(len(networks))
            answers = []
            for number, network in enumerate(networks):
                with torch.set_grad_enabled(number in learners):
                    answers.append(context.data.task.read(network, batch.x))
            total = torch.zeros((), device=batch.device)
            for number in learners:
                own, others = answers[number], answers[:number] + answers[number + 1 :]
                total = total + comparison.labels(own, batch)
                total = total + mean([comparison(own, each, batch) for each in others])
            return total

        companions = nn.ModuleList([comparison, *peers])
        turns = len(peers) + 1 if self.in_turn else 1
        fit(student, loss, context, companions=companions, identity=repr(self), turns=turns)
        return SchemeResult(student, f"with {len(peers)} peers")
