"""Early stopping: ends the training of trials that are clearly worse than others.

Trials are compared by the accuracy on the validation samples at rungs: after a quarter and after
half of the epochs of each of their trainings, by an Optuna pruner. A trial competes only with those
whose network is no larger than its own, as their plans expect. So a small network is never stopped
for being less accurate than a large one: it may be the best that fits a smaller budget, and what
was stopped stays rightly stopped where budgets move.
"""

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgekd.report import numbers
from edgekd.run.plan import Plan
from edgekd.searching.outcome import Course, RungScore
from edgekd.searching.refusal import SAME_STRUCTURE, run_files
from edgekd.searching.request import EarlyStopping
from edgekd.searching.storage import import_optuna
from edgekd.training.context import Epoch

KEY = re.compile("[0-9a-f]{16,}")
"""The name of a folder that a hash of a stage's settings gave."""

QUARTERS = 4
RUNGS = (1, 2)
"""The quarters of a training after which trials are compared."""

LEAST_RIVALS = 4
"""How many other trials have to be at a rung before one is stopped there."""


class TrialStopped(Exception):
    """A trial's training was ended early; the message says why."""


@dataclass
class Watch:
    """Follows one trial's trainings. `others` gives what is known of all other trials, and `note`
    keeps what is known of this one, which starts from `course`: what was known of it when it was
    interrupted. With the rule "none" it is never stopped."""

    rule: EarlyStopping
    others: Callable[[], Sequence[Course]]
    note: Callable[[Course], None]
    course: Course = field(default_factory=Course)
    trainings: Mapping[Path, str] = field(default_factory=dict)

    def begin(self, plan: Plan) -> Plan:
        """The same plan, whose trainings are watched."""
        self.course = self.course.model_copy(update={"sizes": expected_sizes(plan)})
        self.trainings = stage_names(plan)
        return replace(plan, on_epoch=self.on_epoch)

    def on_epoch(self, epoch: Epoch) -> None:
        """Enter an epoch's accuracy if it is at a rung. Raises `TrialStopped` if the trial is
        clearly worse than others there."""
        quarters = rung_of(epoch.done, epoch.epochs)
        if quarters is None or epoch.validation is None:
            return
        score = RungScore(
            training=training_name(epoch.work, self.trainings),
            quarters=quarters,
            epoch=epoch.done,
            epochs=epoch.epochs,
            accuracy=epoch.validation,
        )
        if score in self.course.scores[:-1]:  # a checkpoint's epoch, which others followed
            return
        if score not in self.course.scores:
            self.course = self.course.model_copy(update={"scores": (*self.course.scores, score)})
            self.note(self.course)
        if self.rule != "none":
            reason = reason_to_stop(self.rule, self.course, self.others())
            if reason:
                raise TrialStopped(reason)


def rung_of(epoch: int, epochs: int) -> int | None:
    """The last rung that a training passes with its epoch number `epoch`; None if it passes none
    then, or has ended."""
    if epoch >= epochs:
        return None
    passed = [q for q in RUNGS if (epoch - 1) * QUARTERS < q * epochs <= epoch * QUARTERS]
    return max(passed, default=None)


def stage_names(plan: Plan) -> dict[Path, str]:
    """A name for the folder in which each stage of a plan trains, the same in all trials: the
    stage's kind, numbered from the second on, with the target if it is another for each."""
    names: dict[Path, str] = {}
    for planned in plan.targets:
        counts: dict[str, int] = {}
        for stage in planned.stages:
            number = counts[stage.kind] = counts.get(stage.kind, 0) + 1
            name = f"{stage.kind} {number}" if number > 1 else stage.kind
            if name in names.values():
                name = f"{name} for {planned.target.name}"
            names.setdefault(plan.store.unfinished(stage.kind, stage.key), name)
    return names


def training_name(work: Path, names: Mapping[Path, str]) -> str:
    """The name of a training: its stage's, and the phase within the stage if there are several.
    Folders that are called by a key differ between recipes and have no part in it."""
    for folder, name in names.items():
        if work.is_relative_to(folder):
            parts = work.relative_to(folder).parts
            phases = [part.replace("-", " ") for part in parts if not KEY.fullmatch(part)]
            return ", ".join([name, *phases])
    return work.name


def expected_sizes(plan: Plan) -> dict[str, int]:
    """The bytes and the working memory of each target's smallest file, as the plan compiled it."""
    sizes: dict[str, int] = {}
    for planned in plan.targets:
        files = run_files(planned)
        memory = [file.planned_bytes for file in files if file.planned_bytes is not None]
        if files:
            sizes[f"{planned.target.name}: bytes"] = min(file.bytes for file in files)
        if memory:
            sizes[f"{planned.target.name}: memory_bytes"] = min(memory)
    return sizes


def reason_to_stop(rule: EarlyStopping, course: Course, others: Sequence[Course]) -> str | None:
    """Why a trial is to be stopped at its last rung; None if it goes on."""
    last = course.scores[-1]
    rivals = [
        other for other in others if no_larger(other, course) and _at(other, last) is not None
    ]
    if len(rivals) < LEAST_RIVALS or not _pruned(rule, course, rivals):
        return None
    middle = statistics.median(score for rival in rivals if (score := _at(rival, last)) is not None)
    return (
        f"stopped at epoch {last.epoch} of {last.epochs} ({last.training}): validation accuracy "
        f"{numbers.percent(last.accuracy)}, where the median of {len(rivals)} trials whose network "
        f"is no larger was {numbers.percent(middle)}"
    )


def no_larger(course: Course, than: Course) -> bool:
    """Whether a trial's network is at most as large as another's in everything that is known."""
    return bool(than.sizes) and all(
        name in course.sizes and course.sizes[name] <= SAME_STRUCTURE * size
        for name, size in than.sizes.items()
    )


def _at(course: Course, rung: RungScore) -> float | None:
    """A trial's accuracy at a rung, or at the next one if it has too few epochs to be judged at
    this one; None if it was not there."""
    later = [
        score.accuracy
        for score in course.scores
        if score.training == rung.training and score.quarters >= rung.quarters
    ]
    return later[0] if later else None


def _pruned(rule: EarlyStopping, course: Course, rivals: Sequence[Course]) -> bool:
    """What Optuna's pruner says of a trial at its last rung: it sees the rivals' accuracies in the
    same training, in a study of their own, since it can't judge trials with several objectives."""
    optuna = import_optuna()
    study = optuna.create_study(direction="maximize", pruner=_pruner(optuna, rule))
    training, pruned = course.scores[-1].training, False
    for competing in (*rivals, course):
        trial = study.ask()
        scores = [score for score in competing.scores if score.training == training]
        for score in scores:
            trial.report(score.accuracy, score.quarters)
            pruned = trial.should_prune()
        if competing is not course:
            study.tell(trial, scores[-1].accuracy)
    return pruned


def _pruner(optuna: Any, rule: EarlyStopping) -> Any:
    """halving: only the better half goes on from each rung (ASHA, Li et al. 2020); median: what is
    below the median ends (Golovin et al. 2017, Google Vizier)."""
    if rule == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
    return optuna.pruners.MedianPruner(n_startup_trials=LEAST_RIVALS, n_warmup_steps=0)
