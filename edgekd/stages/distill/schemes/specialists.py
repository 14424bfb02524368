"""Specialists: copies of the teacher, trained on classes that it confuses, teach with it."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.data.samples import Data
from edgekd.data.seeds import seeded
from edgekd.errors import EdgekdError, InputError
from edgekd.network.evaluation import predict
from edgekd.registry import SCHEMES
from edgekd.stages.distill.schemes import Scheme, SchemeResult
from edgekd.stages.distill.schemes._faults import class_faults, layer_faults, layer_teacher_faults
from edgekd.stages.distill.schemes._stand_in import only
from edgekd.training.checkpoint import sha256_of_state
from edgekd.training.context import Context
from edgekd.training.distillation import check_teaching, teach
from edgekd.training.logits import eval_mode
from edgekd.training.loop import Batch, fit
from edgekd.training.teachers import Teacher
from edgekd.values.tree import OutputName, Tree


@SCHEMES.register(paper="https://arxiv.org/abs/1503.02531")
class Specialists(Scheme):
    """The first teacher and its specialists for confusable classes teach as one.

    Hinton et al. 2015, section 5. Classes are grouped by k-means on the covariance of the teacher's
    predictions. A specialist starts as the teacher and learns its group against one dustbin class,
    half of its samples from the group; the dustbin's logit is then raised by the log of the factor
    by which the group was oversampled. For each sample the target q minimizes KL(p_g, q) + sum of
    KL(p_m, q) over the specialists whose group contains the teacher's prediction (equation 5; a
    dustbin stands for the sum of q over the other classes). The student learns from q by the
    recipe's `losses`. The specialists train for `epochs`, with the recipe's other settings.
    """

    specialists: int = Field(default=2, ge=1)
    epochs: PositiveInt = 3

    def check(self, student: nn.Module, context: Context) -> list[EdgekdError]:
        faults = class_faults(context, "specialists") + layer_faults(context, "specialists")
        faults = faults or layer_teacher_faults(
            context, "specialists", "trains copies of the teacher"
        )
        if faults:
            return faults
        most = context.data.classes // 2
        if self.specialists > most:
            message = f"{self.specialists} groups are too many for {context.data.classes} classes"
            hint = "a specialist needs at least two classes"
            place = f"{context.where}: scheme.specialists"
            faults.append(InputError(message, where=place, allowed=f"up to {most}", hint=hint))
        return faults + check_teaching(student, context.with_teachers(context.teachers[:1]))

    def cost(self, context: Context) -> str:
        return (
            f"{self.epochs} epochs for each of {self.specialists} specialists of "
            f"{context.teachers[0].name}, then {context.length}"
        )

    def teach(self, student: nn.Module, context: Context) -> SchemeResult:
        general = context.teachers[0]
        assert general.module is not None
        with eval_mode([general]):
            parts = context.data.train.batches(256)
            logits = torch.cat([general.logits(x).float() for x, _ in parts])
            chances = torch.softmax(logits, dim=1)
            groups = confusable(chances, self.specialists, context.seed)
            made = [self._specialist(general, n, group, context) for n, group in enumerate(groups)]
            taught = teach(
                student, context.with_teachers([Together(general, made)]).phase("student")
            )
        names = "; ".join(" ".join(map(str, group)) for group in groups)
        return SchemeResult(taught, f"specialists for {names}")

    def _specialist(
        self, general: Teacher, number: int, group: tuple[int, ...], context: Context
    ) -> "Specialist":
        network = copy.deepcopy(general.module)
        assert network is not None
        network.requires_grad_(True)
        data, excess = shown(context.data, group, seed=context.seed + number)
        smoothing = context.teaching.label_smoothing

        def loss(module: nn.Module, batch: Batch) -> Tensor:
            grouped = with_dustbin(data.task.read(module, batch.x), group)
            return F.cross_entropy(grouped, place_in(batch.y, group), label_smoothing=smoothing)

        own = replace(context, data=data).phase(f"specialist-{number + 1}")
        own = own.with_teaching(epochs=self.epochs, keep="last")
        fit(network, loss, own, identity=f"{group}")
        return Specialist(network.requires_grad_(False), group, excess)


@dataclass(frozen=True)
class Specialist:
    """A network for its group; `excess` is the log of the factor of oversampling."""

    network: nn.Module
    group: tuple[int, ...]
    excess: float

    def chances(self, x: Tensor) -> Tensor:
        """(B, len(group) + 1): the group's classes in order, the dustbin last."""
        logits = with_dustbin(predict(self.network, x), self.group)
        logits[:, -1] += self.excess
        return torch.softmax(logits, dim=1)


@dataclass(frozen=True)
class Together:
    """The teacher and its specialists as one black box."""

    general: Teacher
    specialists: Sequence[Specialist]
    name: str = "the teacher with its specialists"
    weight: float = 1.0
    module: nn.Module | None = None

    @property
    def key(self) -> str:
        """Of the teacher, the specialists' weights and their groups."""
        parts = [f"{sha256_of_state(s.network)} {s.group} {s.excess}" for s in self.specialists]
        return " ".join([self.general.key, *parts])

    def logits(self, x: Tree, output: OutputName = None) -> Tensor:
        """(B, classes): the log of q."""
        chances = torch.softmax(self.general.logits(x).float(), dim=1)
        choice = chances.argmax(1)
        views = [(s.group, s.chances(x)) for s in self.specialists]
        q = chances.clone()
        for active in {tuple(int(c) in g for g, _ in views) for c in choice}:
            asked = [view for view, is_active in zip(views, active, strict=True) if is_active]
            same = torch.tensor([tuple(int(c) in g for g, _ in views) == active for c in choice])
            q[same] = combined(chances[same], [(g, p[same]) for g, p in asked])
        return q.clamp_min(1e-12).log()


def combined(general: Tensor, views: Sequence[tuple[tuple[int, ...], Tensor]]) -> Tensor:
    """The q (B, C) that minimizes KL(general, q) + sum of KL(view, q); a view's last is a dustbin.

    It is the maximum likelihood of grouped counts, found by its fixed point: each dustbin's share
    is spread over the classes outside the group as q spreads, and q is the mean of all.
    """
    q = general
    for _ in range(100 if views else 0):
        total = general.clone()
        for group, chances in views:
            outside = torch.ones_like(q)
            outside[:, list(group)] = 0.0
            rest = q * outside
            spread = chances[:, -1:] * rest / rest.sum(1, keepdim=True).clamp_min(1e-12)
            spread[:, list(group)] = chances[:, :-1]
            total = total + spread
        q = total / (1 + len(views))
    return q


def with_dustbin(logits: Tensor, group: tuple[int, ...]) -> Tensor:
    """(B, C) -> (B, len(group) + 1): the group's logits, and one for all other classes together."""
    others = [label for label in range(logits.shape[1]) if label not in group]
    rest = logits[:, others].logsumexp(1, keepdim=True)
    return torch.cat([logits[:, list(group)], rest], dim=1)


def place_in(y: Tensor, group: tuple[int, ...]) -> Tensor:
    """(B,) labels as places in the group, `len(group)` for every other class."""
    places = torch.full_like(y, len(group))
    for place, label in enumerate(group):
        places[y == label] = place
    return places


def shown(data: Data, group: tuple[int, ...], seed: int) -> tuple[Data, float]:
    """A specialist's samples, half of them from its group, and the log of the oversampling."""
    inside = torch.isin(data.train.y, torch.tensor(group))
    places, others = inside.nonzero().flatten(), (~inside).nonzero().flatten()
    count = min(len(places), len(others))
    with seeded(seed, "dustbin"):
        others = others[torch.randperm(len(others))[:count]]
    chosen = torch.cat([places, others]).sort().values
    before = len(places) / max(1, int((~inside).sum()))
    now = len(places) / max(1, len(others))
    train = data.train.take(chosen)
    return only(data, train), float(np.log(now / before))


def confusable(chances: Tensor, count: int, seed: int) -> list[tuple[int, ...]]:
    """Groups of two classes or more that are predicted together, by k-means on the covariance's
    columns of predictions (N, C)."""
    from sklearn.cluster import KMeans

    columns = np.cov(chances.double().numpy().T)
    clusters = KMeans(count, n_init=10, random_state=seed % 2**32).fit(columns)
    groups = [set(np.flatnonzero(clusters.labels_ == each).tolist()) for each in range(count)]
    distance = np.linalg.norm(columns[:, None] - columns[None], axis=2)
    for group in groups:
        while len(group) < 2:  # a class alone is confused with nobody: its nearest joins it
            others = [c for c in range(len(columns)) if c not in group]
            group.add(int(min(others, key=lambda c: distance[list(group), c].min())))
    return sorted(tuple(sorted(group)) for group in groups)
