"""DeepInversion: a student learns on images recovered from the teacher's batch norms."""

import math
from contextlib import ExitStack
from dataclasses import replace

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.data.seeds import seeded, seeded_generator
from edgekd.errors import EdgekdError, InputError
from edgekd.registry import SCHEMES
from edgekd.stages.distill.schemes import Scheme, SchemeResult
from edgekd.stages.distill.schemes._faults import (
    class_faults,
    layer_teacher_faults,
    one_process_faults,
)
from edgekd.stages.distill.schemes._generator import roll
from edgekd.stages.distill.schemes._networks import as_teacher, differentiable, frozen
from edgekd.stages.distill.schemes._norm_statistics import NormStatistics, norms_of
from edgekd.stages.distill.schemes._stand_in import made, ticks
from edgekd.training.context import Context
from edgekd.training.distillation import check_teaching, teach
from edgekd.training.loop import Batch, fit
from edgekd.training.losses._rows import divergence
from edgekd.training.teachers import Teacher

STEPS = 50
"""Steps of the images between two checkpoints."""


@SCHEMES.register(paper="https://arxiv.org/abs/1912.08795")
class DeepInversion(Scheme):
    """No real sample is read: images are optimized from noise and then used as training data.

    Yin et al. 2020, equations 1 to 4: each image x with its class c minimizes CE(t(x), c) +
    total_variation * TV(x) + l2 * |x|^2 + statistics * (sum over batch norms of |mean(x) - running
    mean|_2 + |var(x) - running var|_2), shifted by up to `jitter` pixels per step. `images` are
    made, `chunk` at a time, in `iterations` steps of `rate`, starting from noise with the `mean`
    and `std` of the teacher's inputs. The student learns on them by `label_weight` and `losses`,
    layers included; the last epoch's weights are kept, since there is no validation data.

    `competition` above 0 is their Adaptive DeepInversion (equations 6 and 7): the images are made
    in `rounds`, the student learns on all images so far after each, and from the second round on
    an image also minimizes competition * (1 - JS(softmax t(x), softmax s(x))), s the student.
    """

    images: PositiveInt = 512
    chunk: PositiveInt = 256
    iterations: PositiveInt = 300
    rate: PositiveFloat = 0.05
    total_variation: float = Field(default=1e-3, ge=0.0)
    l2: float = Field(default=1e-5, ge=0.0)
    statistics: PositiveFloat = 1.0
    jitter: int = Field(default=1, ge=0)
    mean: float = 0.0
    std: PositiveFloat = 1.0
    competition: float = Field(default=0.0, ge=0.0)
    rounds: int = Field(default=2, ge=2)

    def check(self, student: nn.Module, context: Context) -> list[EdgekdError]:
        why = "sends gradients through the teacher"
        faults = layer_teacher_faults(context, "deep-inversion", why)
        faults += class_faults(context, "deep-inversion") + one_process_faults(
            context, "deep-inversion"
        )
        if faults:
            return faults
        teacher = context.teachers[0].module
        assert teacher is not None
        if not norms_of(teacher):
            message = (
                f"the teacher {context.teachers[0].name} has no batch norm to take statistics from"
            )
            hint = 'use scheme = "data-free", whose generator needs none'
            faults.append(InputError(message, where=context.where, hint=hint))
        if context.data.example.ndim != 4:
            shape = tuple(context.data.example.shape[1:])
            message = f"'deep-inversion' makes images, but the samples have shape {shape}"
            place = f"{context.where}: data '{context.data.name}'"
            hint = 'use scheme = "data-free"'
            faults.append(InputError(message, where=place, hint=hint))
        faults += self._round_faults(context)
        return faults + check_teaching(student, context.with_teachers(context.teachers[:1]))

    def _round_faults(self, context: Context) -> list[EdgekdError]:
        place = f"{context.where}: scheme.rounds"
        if not self.competition and "rounds" in self.model_fields_set:
            message = "'rounds' only applies to images that compete with the student"
            return [InputError(message, where=place, hint="set competition = 1.0")]
        if self.competition and self.images < self.rounds:
            message = f"{self.images} images are too few for {self.rounds} rounds"
            return [InputError(message, where=place, allowed=f"up to {self.images}")]
        return []

    def cost(self, context: Context) -> str:
        rounds = f", in {self.rounds} rounds" if self.competition else ""
        name = context.teachers[0].name
        return (
            f"{self.images:,} images by {self.iterations} steps through {name}, "
            f"then {context.teaching.epochs} epochs of them{rounds}"
        )

    def teach(self, student: nn.Module, context: Context) -> SchemeResult:
        labels = torch.arange(self.images) % context.data.classes
        rounds = self.rounds if self.competition else 1
        parts: list[Tensor] = []
        for turn, wanted in enumerate(torch.tensor_split(labels, rounds), 1):
            rival = as_teacher(student, "the student") if turn > 1 else None
            for chosen in torch.split(wanted, self.chunk):
                parts.append(self._images(len(parts), chosen, context, rival))
            x = torch.cat(parts)
            on = replace(context, data=made(context.data, x, labels[: len(x)]))
            on = on.with_teachers(context.teachers[:1]).with_teaching(keep="last")
            teach(student, on.phase("student" if turn == rounds else f"student-{turn}"))
        ending = f", in {rounds} rounds against the student" if self.competition else ""
        return SchemeResult(student, f"on {self.images} inverted images, without data{ending}")

    def _images(
        self, number: int, labels: Tensor, context: Context, rival: Teacher | None
    ) -> Tensor:
        """One chunk of images (N, C, H, W) for these classes."""
        teacher, shape = context.teachers[0], tuple(context.data.example.shape[1:])
        with seeded(context.seed, "images", number):
            pixels = Pixels(self.mean + self.std * torch.randn(len(labels), *shape))
        with ExitStack() as stack:
            network = stack.enter_context(frozen(teacher))
            norms = stack.enter_context(NormStatistics(network))
            other = stack.enter_context(frozen(rival)) if rival is not None else None

            def loss(module: nn.Module, batch: Batch) -> Tensor:
                drawn = seeded_generator(context.seed, "jitter", number, batch.step)
                pixels_now = module(batch.x)
                x = roll(pixels_now, self.jitter, drawn)
                answers, distance = norms.watch(lambda: differentiable(teacher, network, x))
                label_loss = F.cross_entropy(answers, labels.to(x.device))
                prior = self.total_variation * variation(x) + self.l2 * power(x)
                total: Tensor = label_loss + prior + self.statistics * distance
                if rival is not None and other is not None:
                    mine = differentiable(rival, other, x)
                    total = total + self.competition * rivalry(answers, mine)
                return total

            alone = self._image_training(context)
            key = "" if rival is None else rival.key
            identity = f"{self!r} {teacher.key} {key} {labels.tolist()}"
            fit(pixels, loss, alone.phase(f"images-{number}"), identity=identity)
        return pixels.values.detach().clone()

    def _image_training(self, context: Context) -> Context:
        """The context in which pixels are the only thing that is trained, one batch a step."""
        steps = min(STEPS, self.iterations)
        return replace(context, data=ticks(context.data, steps)).with_teaching(
            epochs=math.ceil(self.iterations / steps),
            batch_size=1,
            learning_rate=self.rate,
            optimizer="adamw",
            weight_decay=0.0,
            warmup=0.0,
            schedule="cosine",
            patience=None,
            keep="last",
        )


class Pixels(nn.Module):
    """Images as trainable parameters: they are the output for every input."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(values)

    def forward(self, x: Tensor) -> Tensor:
        return self.values


def variation(x: Tensor) -> Tensor:
    """The sum of squared differences of neighbouring pixels, the mean over the images."""
    down, right = x[:, :, 1:] - x[:, :, :-1], x[:, :, :, 1:] - x[:, :, :, :-1]
    return (down.square().sum() + right.square().sum()) / len(x)


def power(x: Tensor) -> Tensor:
    """|x|^2, the mean over the images."""
    return x.square().sum() / len(x)


def rivalry(theirs: Tensor, mine: Tensor) -> Tensor:
    """1 - JS(softmax t, softmax s), JS in nats, the mean over the images."""
    first, second = torch.log_softmax(theirs, dim=1), torch.log_softmax(mine, dim=1)
    middle = torch.logaddexp(first, second) - math.log(2)
    return 1 - (divergence(first, middle) + divergence(second, middle)).mean() / 2
