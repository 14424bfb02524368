"""DeepInversion: images that the teacher's batch norms remember, and a student taught on them."""

import math

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.errors import EdgekdError, InputError
from edgekd.registry import SCHEMES
from edgekd.schemes import Scheme, Situation, Taught
from edgekd.schemes._faults import class_faults, layer_teacher_faults, one_process_faults
from edgekd.schemes._generator import roll
from edgekd.schemes._networks import differentiable, drawing, frozen
from edgekd.schemes._norm_statistics import NormStatistics, norms_of
from edgekd.schemes._stand_in import made, ticks
from edgekd.training import Batch
from edgekd.views import stream

STEPS = 50
"""Steps of the images between two checkpoints."""


@SCHEMES.register(paper="https://arxiv.org/abs/1912.08795")
class DeepInversion(Scheme):
    """No sample of the data is read: images are made from noise, then teach as data would.

    Yin et al. 2020, equations 1 to 4: each image x with its class c minimizes CE(t(x), c) +
    total_variation * TV(x) + l2 * |x|^2 + statistics * (sum over batch norms of |mean(x) - running
    mean|_2 + |var(x) - running var|_2), shifted by up to a pixel or two a step; their Adaptive
    variant's competition with the student is left out. `images` are made, `chunk` at a time, in
    `iterations` steps of `rate`, begun from noise of the `mean` and `std` of the teacher's inputs.
    The student learns on them by `label_weight` and `losses`, layers included; the last epoch's
    weights are kept, as there is no data to choose by.
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

    def check(self, student: nn.Module, at: Situation) -> list[EdgekdError]:
        why = "sends gradients through the teacher"
        faults = layer_teacher_faults(at, "deep-inversion", why)
        faults += class_faults(at, "deep-inversion") + one_process_faults(at, "deep-inversion")
        if faults:
            return faults
        teacher = at.teachers[0].module
        assert teacher is not None
        if not norms_of(teacher):
            message = f"the teacher {at.teachers[0].name} has no batch norm whose statistics tell"
            hint = 'use scheme = "data-free", whose generator needs none'
            faults.append(InputError(message, where=at.where, hint=hint))
        if at.data.example.ndim != 4:
            shape = tuple(at.data.example.shape[1:])
            message = f"'deep-inversion' makes images, found samples of shape {shape}"
            place = f"{at.where}: data '{at.data.name}'"
            hint = 'use scheme = "data-free"'
            faults.append(InputError(message, where=place, hint=hint))
        return faults + at.check(student, at.teachers[:1])

    def cost(self, at: Situation) -> str:
        return (
            f"{self.images:,} images by {self.iterations} steps through {at.teachers[0].name}, "
            f"then {at.teaching.epochs} epochs of them"
        )

    def teach(self, student: nn.Module, at: Situation) -> Taught:
        labels = torch.arange(self.images) % at.data.classes
        parts = [
            self._images(number, chosen, at)
            for number, chosen in enumerate(torch.split(labels, self.chunk))
        ]
        on = at.with_(data=made(at.data, torch.cat(parts), labels), keep="last")
        taught = on.teach(student, at.teachers[:1], "student")
        return Taught(taught, f"on {self.images} inverted images, no data")

    def _images(self, number: int, labels: Tensor, at: Situation) -> Tensor:
        """One chunk of images (N, C, H, W) for these classes."""
        teacher, shape = at.teachers[0], tuple(at.data.example.shape[1:])
        with drawing(at.seed, "images", number):
            pixels = Pixels(self.mean + self.std * torch.randn(len(labels), *shape))
        with frozen(teacher) as network, NormStatistics(network) as norms:

            def loss(module: nn.Module, batch: Batch) -> Tensor:
                drawn = torch.Generator().manual_seed(stream(at.seed, "jitter", number, batch.step))
                pixels_now = module(batch.x)
                x = roll(pixels_now, self.jitter, drawn)
                answers, distance = norms.watch(lambda: differentiable(teacher, network, x))
                told = F.cross_entropy(answers, labels.to(x.device))
                prior = self.total_variation * variation(x) + self.l2 * power(x)
                return told + prior + self.statistics * distance

            steps = min(STEPS, self.iterations)
            alone = at.with_(
                data=ticks(at.data, steps),
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
            identity = f"{self!r} {teacher.key} {labels.tolist()}"
            alone.fit(pixels, loss, f"images-{number}", identity=identity)
        return pixels.values.detach().clone()


class Pixels(nn.Module):
    """Images as what is trained: whatever goes in, they come out."""

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
