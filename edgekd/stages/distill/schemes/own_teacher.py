"""Be your own teacher: the deepest layers teach shallow ones through temporary heads."""

from typing import cast

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from edgekd.data.seeds import seeded
from edgekd.errors import EdgekdError, InputError
from edgekd.network.evaluation import evaluating
from edgekd.network.taps import Taps, layer_names, no_such_layer
from edgekd.registry import SCHEMES
from edgekd.stages.distill.schemes import Scheme, SchemeResult
from edgekd.stages.distill.schemes._answers import Comparison
from edgekd.stages.distill.schemes._cut import pooled, width_of
from edgekd.stages.distill.schemes._faults import answer_faults, class_faults
from edgekd.stages.distill.schemes._networks import as_teacher
from edgekd.training.context import Context
from edgekd.training.distillation import check_teaching
from edgekd.training.layer_pairs import blocks_of
from edgekd.training.loop import Batch, fit
from edgekd.training.losses import Shape
from edgekd.training.terms import shapes_at


@SCHEMES.register(paper="https://arxiv.org/abs/1905.08094")
class OwnTeacher(Scheme):
    """The student's last layer teaches shallow ones through auxiliary heads.

    Zhang et al. 2019, equations 2 to 4: each head i adds (1 - alpha) CE(z_i, y) + alpha KL(p_C ||
    p_i) + lambda |F_i - F_C|^2, with C the deepest classifier, which learns from the labels alone.
    Here `label_weight` is 1 - alpha, the recipe's `losses` are alpha KL (the paper's: 0.7, and kl
    with weight 0.3 at temperature 3), and `feature_weight` is lambda, on pooled features and the
    mean over elements. `layers` are the layers that get a head, by default up to `heads` blocks at
    even depths; `deepest` is the layer of F_C, by default the last block. The heads are removed
    afterwards. No teacher is needed.
    """

    layers: tuple[str, ...] = ()
    heads: PositiveInt = 3
    deepest: str | None = None
    feature_weight: float = Field(default=0.03, ge=0.0)

    def check(self, student: nn.Module, context: Context) -> list[EdgekdError]:
        faults = answer_faults(context, "own-teacher") + class_faults(context, "own-teacher")
        faults = faults or check_teaching(
            student, context.with_teachers([as_teacher(student, "itself")])
        )
        if faults:
            return faults
        place, known = f"{context.where}: scheme.layers", layer_names(student)
        try:
            layers = self._layers(student, place)
            faults += [no_such_layer(name, known, place) for name in layers if name not in known]
            if not faults:
                with evaluating(student):
                    shapes_at(student, layers, context.data.example, place)
        except InputError as fault:
            faults.append(fault)
        return faults

    def cost(self, context: Context) -> str:
        return f"{context.length}, its last layer teaching heads that are removed afterwards"

    def teach(self, student: nn.Module, context: Context) -> SchemeResult:
        layers = self._layers(student, context.where)
        with evaluating(student), seeded(context.seed, "heads"):
            shapes = shapes_at(student, layers, context.data.example, context.where)
            width = width_of(shapes[-1])
            heads = nn.ModuleList(Head(shape, width, context.data.classes) for shape in shapes[:-1])
        comparison = Comparison(context)

        with Taps(student, layers) as taps:

            def loss(module: nn.Module, batch: Batch) -> Tensor:
                deepest = context.data.task.read(module, batch.x)
                total = comparison.labels(deepest, batch, weight=1.0)
                goal = pooled(taps.outputs[layers[-1]].float()).detach()
                for name, part in zip(layers[:-1], heads, strict=True):
                    head = cast(Head, part)
                    features, answer = head(taps.outputs[name].float())
                    total = total + comparison.labels(answer, batch)
                    total = total + comparison(answer, deepest, batch)
                    total = total + self.feature_weight * torch.mean((features - goal) ** 2)
                return total

            fit(student, loss, context, companions=nn.ModuleList([comparison, heads]))
        return SchemeResult(student, f"heads at {', '.join(layers[:-1])}, removed afterwards")

    def _layers(self, student: nn.Module, where: str) -> list[str]:
        """The layers that get a head, and the deepest layer after them."""
        blocks = blocks_of(student)
        count = min(self.heads, len(blocks) - 1)
        spread = [blocks[round((n + 1) * len(blocks) / (count + 1)) - 1] for n in range(count)]
        layers = [*(self.layers or spread), *([self.deepest] if self.deepest else blocks[-1:])]
        if len(layers) < 2:
            message = "the network has no sequence of blocks after which to put heads"
            hint = 'scheme = { name = "own-teacher", layers = ["..."], deepest = "..." }'
            raise InputError(message, where=where, hint=hint)
        return layers


class Head(nn.Module):
    """A bottleneck to the deepest layer's width, pooling, and a classifier of its own."""

    def __init__(self, shape: Shape, width: int, classes: int) -> None:
        super().__init__()
        self.bottleneck = nn.Sequential(
            nn.Linear(width_of(shape), width), nn.LayerNorm(width), nn.ReLU()
        )
        self.classifier = nn.Linear(width, classes)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features of a layer -> (B, width) and logits (B, classes)."""
        deep = self.bottleneck(pooled(features))
        return deep, self.classifier(deep)
