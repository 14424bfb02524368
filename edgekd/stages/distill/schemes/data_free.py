"""Data-free distillation: a generator makes the samples on which the teacher teaches."""

from contextlib import ExitStack
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.data.seeds import seeded, seeded_generator
from edgekd.errors import EdgekdError, InputError
from edgekd.registry import SCHEMES
from edgekd.stages.distill.schemes import Scheme, SchemeResult
from edgekd.stages.distill.schemes._answers import Comparison
from edgekd.stages.distill.schemes._faults import (
    answer_faults,
    class_faults,
    layer_teacher_faults,
    one_process_faults,
)
from edgekd.stages.distill.schemes._generator import Generator
from edgekd.stages.distill.schemes._networks import differentiable, frozen
from edgekd.stages.distill.schemes._norm_statistics import NormStatistics, norms_of
from edgekd.stages.distill.schemes._stand_in import ticks
from edgekd.training.context import Context
from edgekd.training.distillation import check_teaching
from edgekd.training.loop import Batch, fit
from edgekd.training.teachers import Teacher


@SCHEMES.register(paper="https://arxiv.org/abs/1904.01186")
class DataFree(Scheme):
    """No real sample is read: a generator learns to make inputs for the frozen teacher.

    The student learns by the recipe's `losses` from the teacher's logits t on x = G(noise), and by
    `label_weight` from argmax t. By `objective` the generator minimizes "dafl" (Chen et al. 2019,
    equation 10) CE(t, argmax t) - activation * mean|f| - balance * H(mean softmax(t)), f the input
    of the teacher's last linear layer; "zskt" (Micaelli & Storkey 2019, equation 1) - KL(softmax t
    || softmax s), the student's disagreement. Both add `statistics` times the distance from the
    teacher's batch-norm statistics. The generator learns in one of `student_steps` steps (zskt: 10
    in the paper). Samples get the `mean` and `std` of the teacher's inputs. An epoch has `samples`
    generated samples; the last epoch's weights are kept, since there is no validation data.
    """

    objective: Literal["dafl", "zskt"] = "dafl"
    samples: PositiveInt = 4096
    student_steps: PositiveInt = 1
    latent: PositiveInt = 64
    width: PositiveInt = 32
    activation: float = Field(default=0.1, ge=0.0)
    balance: float = Field(default=5.0, ge=0.0)
    statistics: float = Field(default=0.0, ge=0.0)
    mean: float = 0.0
    std: PositiveFloat = 1.0

    def check(self, student: nn.Module, context: Context) -> list[EdgekdError]:
        why = "sends gradients through the teacher"
        faults = layer_teacher_faults(context, "data-free", why) + class_faults(
            context, "data-free"
        )
        faults = faults or answer_faults(context, "data-free") + one_process_faults(
            context, "data-free"
        )
        if faults:
            return faults
        teacher = context.teachers[0].module
        assert teacher is not None
        if self.statistics and not norms_of(teacher):
            message = (
                f"the teacher {context.teachers[0].name} has no batch norm to take statistics from"
            )
            place = f"{context.where}: scheme.statistics"
            faults.append(InputError(message, where=place, hint="set statistics = 0"))
        if context.teaching.batch_size == 1:
            message = "the generator's batch norm needs at least two samples per batch"
            faults.append(InputError(message, where=f"{context.where}: batch_size"))
        return faults + check_teaching(student, context.with_teachers(context.teachers[:1]))

    def cost(self, context: Context) -> str:
        return (
            f"{context.teaching.epochs} epochs of {self.samples:,} generated samples, "
            f"learning from {context.teachers[0].name} without data"
        )

    def teach(self, student: nn.Module, context: Context) -> SchemeResult:
        comparison, size = Comparison(context), context.teaching.batch_size
        with seeded(context.seed, "generator"):
            shape = tuple(context.data.example.shape[1:])
            generator = Generator(shape, self.latent, self.width, self.mean, self.std)
        teacher = context.teachers[0]
        with ExitStack() as stack:
            network = stack.enter_context(frozen(teacher))
            inner = stack.enter_context(LastInputs(network))
            norms = stack.enter_context(NormStatistics(network)) if self.statistics else None

            def loss(module: nn.Module, batch: Batch) -> Tensor:
                noise = seeded_generator(context.seed, "noise", batch.step, int(batch.index[0]))
                z = torch.randn(max(2, len(batch.index)), self.latent, generator=noise)
                learns = batch.step % self.student_steps == 0
                with torch.set_grad_enabled(learns):
                    x = generator(z.to(batch.x.device))
                    theirs, far = self._answers(teacher, network, x, norms)
                mine = context.data.task.read(module, x.detach())
                labels = theirs.detach().argmax(1)
                total: Tensor = comparison(mine, theirs, batch, labels)
                total = total + comparison.labels(mine, batch, labels)
                if learns:
                    total = total + self._asking(theirs, inner, module, x)
                    total = total + self.statistics * far
                return total

            made = replace(context, data=ticks(context.data, max(size, self.samples)))
            companions = nn.ModuleList([comparison, generator])
            identity = f"{self!r} {teacher.key}"
            last = made.with_teaching(keep="last")
            fit(student, loss, last, companions=companions, identity=identity)
        return SchemeResult(student, f"{self.objective} generator, without data")

    def _answers(
        self, teacher: Teacher, network: nn.Module, x: Tensor, norms: NormStatistics | None
    ) -> tuple[Tensor, Tensor]:
        """The teacher's logits, and how far `x` is from its batch statistics if that counts."""
        if norms is None:
            return differentiable(teacher, network, x), x.new_zeros(())
        return norms.watch(lambda: differentiable(teacher, network, x))

    def _asking(self, theirs: Tensor, inner: "LastInputs", module: nn.Module, x: Tensor) -> Tensor:
        """The generator's own loss; no gradient of it reaches the student."""
        if self.objective == "dafl":
            features = inner.taken()
            strength = features.abs().mean() if features is not None else theirs.new_zeros(())
            return asking_dafl(theirs, strength, self.activation, self.balance)
        before = [(value, value.requires_grad) for value in module.parameters()]
        module.requires_grad_(False)
        try:
            mine = module(x).float()
        finally:
            for value, required in before:
                value.requires_grad_(required)
        return -divergence(theirs, mine)


def asking_dafl(theirs: Tensor, strength: Tensor, activation: float, balance: float) -> Tensor:
    """CE(t, argmax t) - activation * strength - balance * H(mean softmax t), H in nats."""
    surely = F.cross_entropy(theirs, theirs.detach().argmax(1))
    average = torch.softmax(theirs, dim=1).mean(0)
    spread = -(average * average.clamp_min(1e-12).log()).sum()
    return surely - activation * strength - balance * spread


def divergence(theirs: Tensor, mine: Tensor) -> Tensor:
    """KL(softmax t || softmax s), the mean over the batch."""
    logs, own = torch.log_softmax(theirs, dim=1), torch.log_softmax(mine, dim=1)
    return F.kl_div(own, logs, reduction="batchmean", log_target=True)


class LastInputs:
    """A context that records the input of a network's last linear layer."""

    def __init__(self, network: nn.Module) -> None:
        linear = [part for part in network.modules() if isinstance(part, nn.Linear)]
        self._layer = linear[-1] if linear else None
        self._features: Tensor | None = None

    def __enter__(self) -> "LastInputs":
        if self._layer is not None:
            self._handle = self._layer.register_forward_pre_hook(self._take)
        return self

    def __exit__(self, *ended: object) -> None:
        if self._layer is not None:
            self._handle.remove()
        self._features = None

    def _take(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._features = inputs[0]

    def taken(self) -> Tensor | None:
        """(B, D), or None if the network has no linear layer."""
        return self._features
