"""Training a student from one teacher or several: what is compared, and every check before it."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from edgekd.data.samples import Data
from edgekd.errors import EdgekdError, InputError, raise_all
from edgekd.logits import CachedLogits, teacher_logits
from edgekd.losses import DepthsLoss, Loss, ResponseLoss
from edgekd.taps import Taps
from edgekd.teachers import Teacher
from edgekd.teaching_faults import (
    data_faults,
    feature_faults,
    logit_faults,
    weight_faults,
)
from edgekd.terms import Term, bridge, source_of, terms_of
from edgekd.training import Batch, OnStep, Progress, StepLoss, Training, evaluating, fit
from edgekd.views import stream


class Teaching(Training):
    """A training with teachers: label_weight * cross-entropy + sum of weight * loss.

    Each table of `losses` has the loss's `name`, its `weight` (1 if not given), for losses on
    features the `student` and `teacher` layer (the same name on both sides if one is given), and
    the loss's own parameters. Features come from the first teacher that is no black box, or from
    the one that `network` names. Several teachers' softened probabilities are averaged by their
    weights before a loss on logits sees them.
    """

    label_weight: float = Field(default=0.1, ge=0.0)
    losses: tuple[dict[str, Any], ...] = ({"name": "kl", "weight": 0.9, "temperature": 4.0},)


def check_teaching(
    teaching: Teaching,
    student: nn.Module,
    *,
    data: Data,
    teachers: Sequence[Teacher],
    where: str = "distill",
) -> list[EdgekdError]:
    """Every reason why this teaching can't work, found with one forward pass and no training."""
    terms, faults = terms_of(teaching.losses, where)
    if not faults and not teaching.label_weight and not any(term.weight for term in terms):
        faults.append(InputError("every weight is zero: there is nothing to learn", where=where))
    if teaching.losses and not teachers:
        hint = "name one under [[teachers]], or set losses = [] to train with labels only"
        faults.append(InputError("there is no teacher", where=where, hint=hint))
    broken = data_faults(data, where) + weight_faults(student, teachers, where)
    broken = broken or logit_faults(student, teachers if terms else (), data, where)
    if broken:
        return faults + broken
    for term in terms:
        if term.reads_features and teachers:
            faults += feature_faults(term, student, teachers, data)
    return faults


def teach(
    student: nn.Module,
    teaching: Teaching,
    *,
    data: Data,
    teachers: Sequence[Teacher],
    work: Path,
    seed: int = 0,
    progress: Progress = lambda what, done, total: None,
    on_step: OnStep | None = None,
    cache: Path | None = None,
    companions: nn.Module | None = None,
    where: str = "distill",
) -> nn.Module:
    """Train `student` in place and return it in eval mode on the CPU.

    Teachers are left as they are, to the bit, and no hook stays on anything. `cache` is a folder
    for teachers' logits that runs may share; without it they are kept under `work`. `companions`
    is trained along. Raises what `check_teaching` finds.
    """
    raise_all(check_teaching(teaching, student, data=data, teachers=teachers, where=where))
    terms = [term for term in terms_of(teaching.losses, where)[0] if term.weight]
    folder = cache or work / "logits"
    lesson = _Lesson(teaching, terms, teachers if terms else (), data, seed, folder, progress)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(seed, "losses"))
        lesson.prepare(student)
    learned = nn.ModuleList([term.loss for term in terms])
    if companions is not None:
        learned.append(companions)
    with lesson.tapping(student):
        return fit(
            student,
            lesson.step_loss(),
            teaching,
            data=data,
            work=work,
            seed=seed,
            progress=progress,
            on_step=on_step,
            companions=learned,
            identity=" ".join(f"{teacher.key}*{teacher.weight}" for teacher in teachers),
        )


class _Lesson:
    """The teachers' side of a training: cached logits, tapped networks, and the sum of losses."""

    def __init__(
        self,
        teaching: Teaching,
        terms: Sequence[Term],
        teachers: Sequence[Teacher],
        data: Data,
        seed: int,
        folder: Path,
        progress: Progress,
    ) -> None:
        self.teaching, self.terms, self.teachers, self.data = teaching, terms, teachers, data
        self.sources = [
            source_of(term, teachers) if term.reads_features else None for term in terms
        ]
        self.cached = [CachedLogits(t, data, seed, folder, progress) for t in teachers]

    def prepare(self, student: nn.Module) -> None:
        """Make the regressors, from the shapes of one sample's features."""
        for term, source in zip(self.terms, self.sources, strict=True):
            if source is not None and source.module is not None:
                with evaluating(student), evaluating(source.module):
                    bridge(term, student, source.module, self.data.example)

    @contextmanager
    def tapping(self, student: nn.Module) -> Iterator[None]:
        """Hooks on the student and on every teacher whose features are read."""
        with ExitStack() as stack:
            for teacher in self.teachers:
                if teacher.module is not None:
                    stack.enter_context(evaluating(teacher.module))
            names = [name for term in self.terms for name in term.student]
            self.student_taps = stack.enter_context(Taps(student, names))
            self.live = _LiveTeachers(stack, self.terms, self.sources)
            yield

    def step_loss(self) -> StepLoss:
        """The loss of one batch, as `fit` wants it."""
        teaching = self.teaching

        def loss(module: nn.Module, batch: Batch) -> Tensor:
            logits = module(batch.x).float()
            total: Tensor = logits.new_zeros(())
            if teaching.label_weight:
                total = teaching.label_weight * nn.functional.cross_entropy(
                    logits, batch.y, label_smoothing=teaching.label_smoothing
                )
            answers = self._answers(batch)
            for term, source in zip(self.terms, self.sources, strict=True):
                value = self._value(term, source, logits, answers, batch.y)
                total = total + term.weight * value
            return total

        return loss

    def _answers(self, batch: Batch) -> list[Tensor]:
        """Each teacher's logits for the batch; teachers with tapped layers run to give them."""
        needed = None in self.sources
        answers = []
        for teacher, cached in zip(self.teachers, self.cached, strict=True):
            found = self.live.run(teacher, batch.x)
            if not needed:
                continue
            if found is None and batch.view is not None:
                found = cached.at(batch.view)[batch.index]
            if found is None:
                found = teacher_logits(teacher, batch.x.cpu())
            answers.append(found.to(batch.x.device, torch.float32))
        return answers

    def _value(
        self,
        term: Term,
        source: Teacher | None,
        logits: Tensor,
        answers: list[Tensor],
        labels: Tensor,
    ) -> Tensor:
        if source is None:
            merged = merge(answers, [t.weight for t in self.teachers], term.loss)
            if isinstance(term.loss, ResponseLoss):
                value: Tensor = term.loss(logits, merged, labels)
            else:
                value = term.loss(logits, merged)
            return value
        features = self.live.outputs(source)
        mine = [self.student_taps.outputs[name].float() for name in term.student]
        theirs = [features[name].float() for name in term.teacher]
        if isinstance(term.loss, DepthsLoss):
            value = term.loss(mine, theirs)
        else:
            value = term.loss(mine[0], theirs[0])
        return value


class _LiveTeachers:
    """The teachers that must run in every step, because a loss reads their layers."""

    def __init__(
        self, stack: ExitStack, terms: Sequence[Term], sources: Sequence[Teacher | None]
    ) -> None:
        self._networks: dict[int, nn.Module] = {}
        self._taps: dict[int, Taps] = {}
        names: dict[int, list[str]] = {}
        for term, source in zip(terms, sources, strict=True):
            if source is not None and source.module is not None:
                self._networks[id(source)] = source.module
                names.setdefault(id(source), []).extend(term.teacher)
        for key, network in self._networks.items():
            stack.callback(network.to, "cpu")
            self._taps[key] = stack.enter_context(Taps(network, names[key]))

    def run(self, teacher: Teacher, x: Tensor) -> Tensor | None:
        """The logits of a tapped teacher, its layers' outputs kept; None for any other one."""
        network = self._networks.get(id(teacher))
        if network is None:
            return None
        with torch.no_grad():
            logits: Tensor = network.to(x.device)(x)
        return logits

    def outputs(self, teacher: Teacher) -> dict[str, Tensor]:
        return self._taps[id(teacher)].outputs


def merge(answers: Sequence[Tensor], weights: Sequence[float], loss: Loss) -> Tensor:
    """One teacher's logits as they are; several as one.

    With p_i = softmax(z_i / T) at the loss's own T the result is z = T log(sum w_i p_i / sum w_i),
    so that softmax(z / T) is the weighted mean. A loss without a temperature gets the weighted
    mean of the logits.
    """
    if len(answers) == 1:
        return answers[0]
    temperature: float | None = getattr(loss, "temperature", None)
    shares = torch.tensor(weights, dtype=torch.float32, device=answers[0].device)
    shares = (shares / shares.sum()).view(-1, 1, 1)
    stacked = torch.stack(list(answers))
    if temperature is None:
        return (shares * stacked).sum(0)
    logs = torch.log_softmax(stacked / temperature, dim=2) + shares.log()
    merged: Tensor = temperature * logs.logsumexp(0)
    return merged
