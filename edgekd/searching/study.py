"""The study: which parameters a search tries next, by an Optuna sampler and storage."""

import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgekd.data.seeds import derive_seed
from edgekd.errors import ToolError
from edgekd.searching.distributions import contains, distribution, suggest
from edgekd.searching.judging import QUALITY, STRAYED, Limits, excess, lead, points_of
from edgekd.searching.outcome import Course, Trial, keep_trial
from edgekd.searching.request import Search, first_value
from edgekd.searching.space import Parameters, position_of
from edgekd.searching.storage import DATABASE, import_optuna, open_storage, storage_errors
from edgekd.store import key_of
from edgekd.values.measurement import Kind
from edgekd.values.ranges import Range

TRIAL, KEY, OWNER, ATTEMPTS = "edgekd trial", "edgekd key", "edgekd owner", "edgekd attempts"
"""The attributes of an Optuna trial: ours as JSON, its recipe's key, the machine and folder where
it runs, and how often it was begun."""

COURSE = "edgekd course"
"""The attribute with what is known of a trial that trains: it belongs to trials that run too."""

OFFSET = "edgekd offset"
"""The attribute of a study: what our numbers of its trials are above Optuna's."""

STARTS = "edgekd starts"
"""The attribute of a study with the values that were given to be tried first."""

MOST_ATTEMPTS = 3
"""A trial during which the process ended as often as this is not begun again."""

UNKNOWN = 1.0
"""Stands for a cost that nothing measured in any trial, which then decides nothing."""


@dataclass(frozen=True)
class Proposal:
    """What is to be tried next: `asked` is Optuna's number of it, `number` that of its folder."""

    asked: int
    number: int
    parameters: Parameters
    key: str


class Study:
    """The trials of a search in an Optuna storage. A search with other budgets or ranges is
    another study in the same storage, which starts from the trials that are there. `here` is the
    machine and folder where the search began, for a worker on another machine."""

    def __init__(self, search: Search, worker: int = 0, here: str = "") -> None:
        self.search = search
        self.place = search.options.storage or str(search.out / DATABASE)
        self.place_here = here or f"{platform.node()}:{search.out}#"
        self.owner = f"{self.place_here}{worker}"
        self._optuna = import_optuna()
        costs = [f"{name} on {target}" for target, name in objectives(search.limits)]
        directions = ["maximize", *("minimize" for _ in costs)]
        storage = open_storage(search.options.storage, search.out)
        with storage_errors(self.place):
            self._study = self._optuna.create_study(
                storage=storage,
                study_name=study_name(search),
                directions=directions,
                sampler=self._sampler(0),
                load_if_exists=True,
            )
            self._study.set_metric_names(["accuracy", *costs])  # what Optuna's dashboard shows

    def start_from(self, trials: Sequence[Trial]) -> None:
        """Enter trials that the study lacks, let the recipe as it was and what another search found
        be the first, and try again what this folder's last call left unfinished. Trials that a plan
        refused are left to be planned again: these budgets may be others."""
        known = {trial.user_attrs.get(KEY) for trial in self._all()}
        with storage_errors(self.place):
            if OFFSET not in self._study.user_attrs:
                new = [
                    trial for trial in trials if trial.key not in known and trial.state != "refused"
                ]
                entries = [entry for trial in new if (entry := self._entry(trial)) is not None]
                self._study.add_trials(entries)
                last = max((trial.number for trial in trials), default=-1)
                self._study.set_user_attr(OFFSET, max(0, last + 1 - len(entries)))
                if not self._all() and self.search.space.first:
                    self._study.enqueue_trial(dict(self.search.space.first))
            self._enqueue_starts()
            self.retry_unfinished()

    def _enqueue_starts(self) -> None:
        """Propose the values that were given to be tried first, unless they have been."""
        entered = list(self._study.user_attrs.get(STARTS, []))
        new = [start for start in self.search.starts if start not in entered]
        for start in new:
            self._study.enqueue_trial(dict(start))
        if new:
            self._study.set_user_attr(STARTS, [*entered, *new])

    def retry_unfinished(self, worker: int | None = None) -> None:
        """Propose again what a process of this folder, or one of its workers, left unfinished."""
        states = self._optuna.trial.TrialState
        mine = self.place_here + ("" if worker is None else f"{worker}")
        for trial in self._all():
            owner = str(trial.user_attrs.get(OWNER, ""))
            ours = owner.startswith(mine) if worker is None else owner == mine
            if trial.state == states.RUNNING and ours:
                attempts = trial.user_attrs.get(ATTEMPTS, 1)
                if attempts >= MOST_ATTEMPTS:
                    lost = self._lost(trial)
                    keep_trial(lost, self.search.out)
                    self.tell(trial.number, lost)
                    continue
                self._study.tell(trial.number, state=states.FAIL)
                again = {ATTEMPTS: attempts + 1}
                self._study.enqueue_trial(trial.params, user_attrs=again)

    def _lost(self, trial: Any) -> Trial:
        return Trial(
            number=self._number(trial.number),
            state="failed",
            key=trial.user_attrs[KEY],
            parameters=trial.params,
            seconds=0.0,
            message=f"the process ended {MOST_ATTEMPTS} times while this trial ran",
            hint="is there enough memory? The trial's recipe is in its folder",
            exit_code=ToolError.exit_code,
            killed=True,
        )

    def trials(self) -> list[Trial]:
        """Every finished trial, those of other machines too."""
        kept = [trial.user_attrs.get(TRIAL) for trial in self._all()]
        return [Trial.model_validate_json(text) for text in kept if text]

    def note(self, number: int, course: Course) -> None:
        """Keep what is known of the running trial with Optuna's `number`."""
        with storage_errors(self.place):
            live = self._optuna.trial.Trial(self._study, self._all()[number]._trial_id)
            live.set_user_attr(COURSE, course.model_dump_json())

    def courses(self) -> dict[str, Course]:
        """What is known of every trial by its key, those of other workers and machines too."""
        return {
            str(trial.user_attrs[KEY]): Course.model_validate_json(trial.user_attrs[COURSE])
            for trial in self._all()
            if COURSE in trial.user_attrs
        }

    def running(self) -> list[str]:
        """The keys of the trials that are running, those of other workers and machines too."""
        running = self._optuna.trial.TrialState.RUNNING
        found = [trial for trial in self._all() if trial.state == running]
        return [str(trial.user_attrs.get(KEY, "")) for trial in found]

    def drop(self, number: int) -> None:
        """Give up a proposal of a recipe that is running elsewhere."""
        with storage_errors(self.place):
            self._study.tell(number, state=self._optuna.trial.TrialState.FAIL)

    def put_back(self, number: int) -> None:
        """Propose again what could not be run now, without counting it as an attempt."""
        with storage_errors(self.place):
            trial = self._all()[number]
            again = {ATTEMPTS: trial.user_attrs.get(ATTEMPTS, 1)}
            self._study.tell(number, state=self._optuna.trial.TrialState.FAIL)
            self._study.enqueue_trial(trial.params, user_attrs=again)

    def ask(self, random: bool = False) -> Proposal:
        """A new trial. `random` ignores what is known of others."""
        parameters: Parameters = {}
        with storage_errors(self.place):
            self._study.sampler = self._sampler(len(self._all()), random)
            trial = self._study.ask()

            def choose(place: str, among: Range) -> Any:
                parameters[place] = suggest(trial, place, among)
                return position_of(parameters[place], among)

            trial.set_user_attr(OWNER, self.owner)
            table = self.search.space.table(choose)
            key = self.search.key_of_table(table)
            trial.set_user_attr(KEY, key)
        return Proposal(trial.number, self._number(trial.number), parameters, key)

    def _number(self, number: int) -> int:
        """Our number of an Optuna trial: that of its folder, which no other study uses."""
        return int(self._study.user_attrs.get(OFFSET, 0)) + number

    def tell(self, number: int, trial: Trial, repeated: bool = False) -> None:
        """Enter the outcome of the trial with Optuna's `number`; one that repeats another's recipe
        takes its values and is not counted."""
        states = self._optuna.trial.TrialState
        frozen = self._all()[number]
        values = self._values(trial)
        with storage_errors(self.place):
            live = self._optuna.trial.Trial(self._study, frozen._trial_id)
            live.set_user_attr(CONSTRAINTS, self._constraints(trial))
            if not repeated:
                live.set_user_attr(TRIAL, trial.model_dump_json())
            if values is not None:
                self._study.tell(number, values)
            else:
                self._study.tell(number, state=getattr(states, _state(trial)))

    def _all(self) -> list[Any]:
        with storage_errors(self.place):
            return list(self._study.get_trials(deepcopy=False))

    def _sampler(self, number: int, random: bool = False) -> Any:
        """A new sampler for each trial, so that a search that was interrupted goes on as it would
        have gone."""
        samplers = self._optuna.samplers
        seed = derive_seed(self.search.request.recipe.seed, "search", number) % 2**32
        if random or self.search.options.sampler == "random":
            return samplers.RandomSampler(seed=seed)
        most = self.search.options.most_trials or 4 * STARTUP
        return samplers.TPESampler(
            seed=seed,
            n_startup_trials=max(2, min(STARTUP, most // 3)),
            multivariate=True,
            group=True,
            constant_liar=self.search.options.workers > 1,
            constraints_func=_constraints_of,
        )

    def _entry(self, trial: Trial) -> Any:
        """A finished trial of another study as one of this; None if this recipe would not be the
        same with its values."""
        distributions = self._distributions(trial)
        if distributions is None:
            return None
        values, states = self._values(trial), self._optuna.trial.TrialState
        constraints, course = self._constraints(trial), trial.course.model_dump_json()
        return self._optuna.trial.create_trial(
            state=getattr(states, _state(trial)) if values is None else states.COMPLETE,
            values=values,
            params=trial.parameters,
            distributions=distributions,
            user_attrs={
                KEY: trial.key,
                TRIAL: trial.model_dump_json(),
                CONSTRAINTS: constraints,
                COURSE: course,
            },
            system_attrs={"constraints": constraints},
        )

    def _distributions(self, trial: Trial) -> dict[str, Any] | None:
        """The distributions of a trial's values; None if they don't make the recipe that was run,
        or lie outside the ranges."""
        found = {}

        def choose(place: str, among: Range) -> Any:
            value, found[place] = trial.parameters[place], distribution(among)
            if not contains(among, value):
                raise KeyError(place)
            return position_of(value, among)

        try:
            table = self.search.space.table(choose)
        except (KeyError, ValueError):
            return None
        same = self.search.key_of_table(table) == trial.key
        return found if same and set(found) == set(trial.parameters) else None

    def _values(self, trial: Trial) -> list[float] | None:
        return values_of(trial, self.search.limits, self.search.accept)

    def _constraints(self, trial: Trial) -> list[float]:
        return constraints_of(trial, self.search.limits, self.search.accept)


STARTUP = 10
"""Trials at random before the sampler has enough to learn from."""

CONSTRAINTS = "edgekd constraints"


def _constraints_of(trial: Any) -> Sequence[float]:
    constraints: Sequence[float] = trial.user_attrs.get(CONSTRAINTS, ())
    return constraints


def _state(trial: Trial) -> str:
    """Optuna's state of a trial without values."""
    return "PRUNED" if trial.state in ("refused", "stopped") else "FAIL"


def objectives(limits: Limits) -> list[tuple[str, str]]:
    """The costs that a search makes small: (target, budget)."""
    return [
        (target, name)
        for target, budgets in limits.items()
        for name in budgets
        if name not in QUALITY
    ]


def values_of(trial: Trial, limits: Limits, accept: Sequence[Kind]) -> list[float] | None:
    """The mean accuracy over targets, then each cost; None if a target has no file whose accuracy
    is known."""
    if trial.state != "finished":
        return None
    leads = {target: lead(points_of([trial], target, limits, accept)) for target in limits}
    points = {target: point for target, point in leads.items() if point is not None}
    if len(points) < len(limits):
        return None
    scores = [point.score for point in points.values()]
    costs = [points[target].costs.get(name) for target, name in objectives(limits)]
    known = [UNKNOWN if cost is None else float(cost) for cost in costs]
    return [math.fsum(scores) / len(scores), *known]


def constraints_of(trial: Trial, limits: Limits, accept: Sequence[Kind]) -> list[float]:
    """Each target's budgets and parity, above 0 where they are broken; of a refused trial, those
    that its plan breaks."""
    found: list[float] = []
    for target, budgets in limits.items():
        point = lead(points_of([trial], target, limits, accept))
        missed = {name: excess(one) for name, one in point.by_budget.items()} if point else {}
        if trial.state == "refused":
            missed = trial.refused_by.get(target, {})
        strayed = point is not None and point.file.parity == "fail"
        found += [missed.get(name, 0.0) for name in budgets]
        found.append(STRAYED if strayed else 0.0)
    return found


def study_name(search: Search) -> str:
    """The study of a search: its space, targets and budgets, with everything else that a trial
    depends on."""
    ranges = [(dimension.place, str(dimension.range)) for dimension in search.space.dimensions]
    first = search.key_of_table(search.space.table(first_value))
    return f"edgekd-{key_of(first, ranges, search.limits, search.request.accept)}"
