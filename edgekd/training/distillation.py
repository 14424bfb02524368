"""Training a student from one teacher or several: what is compared, and every check before it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import nn

from edgekd.data.samples import Data
from edgekd.data.views import stream
from edgekd.errors import EdgekdError, InputError, raise_all
from edgekd.training.faults import (
    data_faults,
    feature_faults,
    logit_faults,
    output_faults,
    row_faults,
    task_faults,
    weight_faults,
)
from edgekd.training.fusion import Fusion
from edgekd.training.lesson import Lesson
from edgekd.training.logits import Answers
from edgekd.training.loop import OnStep, Progress, Training, fit
from edgekd.training.sample_weights import SampleWeights
from edgekd.training.schedules import Balance, Schedule, is_scheduled, schedule_for_weight
from edgekd.training.teachers import Teacher
from edgekd.training.terms import paired, terms_of


class Teaching(Training):
    """A training with teachers: label_weight * cross-entropy + sum of weight * loss.

    Each table of `losses` has the loss's `name`, its `weight` (1 if not given), for losses on
    features the `student` and `teacher` layer (the same name on both sides if one is given), and
    the loss's own parameters. Features come from the first teacher that is no black box, or from
    the one that `network` names. Several teachers' softened probabilities are averaged by their
    weights before a loss on logits sees them.

    A number in a loss's table, its weight and `label_weight` may be a schedule's table (which is
    kept as `label_schedule`). `sample_weights` lets samples of rare classes count more, or those
    that teacher and student disagree on. With `calibrate_teachers` each teacher's logits are first
    divided by the temperature that fits the validation samples.
    """

    label_weight: float = Field(default=0.1, ge=0.0)
    label_schedule: dict[str, Any] | None = None
    sample_weights: SampleWeights = "equal"
    calibrate_teachers: bool = False
    losses: tuple[dict[str, Any], ...] = ({"name": "kl", "weight": 0.9, "temperature": 4.0},)

    @model_validator(mode="before")
    @classmethod
    def _scheduled(cls, table: Any) -> Any:
        if not isinstance(table, dict) or not is_scheduled(table.get("label_weight")):
            return table
        given = table["label_weight"]
        return {**table, "label_weight": _label_schedule(given).bounds[1], "label_schedule": given}

    def content(self, folder: Path) -> str:
        """A hash of what the files that its table names hold, relative to `folder`."""
        return ""

    @property
    def label_schedule_made(self) -> Schedule | None:
        """What changes `label_weight`, if anything does."""
        return None if self.label_schedule is None else _label_schedule(self.label_schedule)


def _label_schedule(table: dict[str, Any]) -> Schedule:
    made = schedule_for_weight(table, "label_weight")
    if isinstance(made, Balance):
        hint = "balance the weight of a loss instead: it is measured against the labels' loss"
        raise InputError("the labels' weight can't be balanced", where="label_weight", hint=hint)
    return made


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
    faults += task_faults(terms, teaching.label_smoothing, data.task, where)
    faults += row_faults(teaching, data, bool(teachers and terms), where)
    broken = data_faults(data, where) + weight_faults(student, teachers, where)
    broken = broken or logit_faults(student, teachers if terms else (), data, where)
    if broken:
        return faults + broken
    for term in terms:
        if term.reads_features and teachers:
            faults += feature_faults(term, student, teachers, data)
        elif not term.reads_features:
            faults += output_faults(term, student, teachers, data)
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
    fusion: Fusion | None = None,
    storage: torch.dtype = torch.float32,
) -> nn.Module:
    """Train `student` in place and return it in eval mode on the CPU.

    Teachers are left as they are, to the bit, and no hook stays on anything. `cache` is a folder
    for teachers' logits that runs may share; without it they are kept under `work`. `companions`
    is trained along. `fusion` is how several teachers' answers become one, by their weights if not
    given; `storage` is what their logits are kept in. Raises what `check_teaching` finds.
    """
    raise_all(check_teaching(teaching, student, data=data, teachers=teachers, where=where))
    asked = [term for term in terms_of(teaching.losses, where)[0] if term.weight]
    terms = paired(asked, student, teachers)
    folder = cache or work / "logits"
    wanted = teachers if terms else ()
    answers = Answers(wanted, data, folder, progress, storage)
    lesson = Lesson(teaching, terms, answers, data, fusion)
    if teaching.calibrate_teachers:
        lesson.calibrate()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(seed, "losses"))
        lesson.prepare(student)
    learned = nn.ModuleList([term.learned for term in terms])
    if fusion is not None:
        learned.append(fusion)
    if companions is not None:
        learned.append(companions)
    with lesson.tapping(student):
        return fit(
            student,
            lesson.loss,
            teaching,
            data=data,
            work=work,
            seed=seed,
            progress=progress,
            on_step=on_step,
            companions=learned,
            identity=" ".join(f"{teacher.key}*{teacher.weight}" for teacher in teachers),
        )
