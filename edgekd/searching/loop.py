"""Runs trials until the number or the time is used up, and stops where going on makes no sense."""

import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edgekd.errors import InputError, ToolError
from edgekd.searching.board import MOST_RETURNS, lost_board, wait_for_board
from edgekd.searching.outcome import NAME as TRIAL_FILE
from edgekd.searching.outcome import Course, Trial
from edgekd.searching.request import Search
from edgekd.searching.space import short_value
from edgekd.searching.stopping import Watch
from edgekd.searching.study import Proposal, Study
from edgekd.searching.trial import run_trial
from edgekd.stages import Progress
from edgekd.store import locked

REPEATS_IN_A_ROW = 20
"""Proposals of known recipes after which they are drawn at random."""

MOST_REPEATS = 100
"""Proposals of known recipes in a row after which the space counts as tried out."""

ASKING = "asking.lock"
"""The file in a search's folder that a worker locks while it asks for its next trial."""

SAME_FAILURES = 3
"""Trials that fail for one reason, with none that did not, after which the search stops."""

Say = Callable[[str], None]
"""Is called with a line about each trial."""


@dataclass
class Loop:
    """A search that runs: its study, the trials by their keys, the numbers of those that are tried
    again, and whether a finite space has been tried out."""

    search: Search
    study: Study
    say: Say
    on_trials: Callable[[Sequence[Trial]], None]
    trials: dict[str, Trial] = field(default_factory=dict)
    forgotten: frozenset[int] = frozenset()
    tried_out: bool = False

    def run(self, progress: Progress) -> list[Trial]:
        """Run what is missing, and return every trial by number.

        Raises `InputError` or `ToolError`, as the trials did, if all fail for one reason, and
        `ToolError` if the board went away.
        """
        self._forget_failures()
        self.on_trials(self._in_order())
        while (proposal := self._next()) is not None:
            self.say(f"trial {proposal.number}: {parameters_text(proposal)}")
            trial = self._run(proposal, progress)
            self.study.tell(proposal.asked, trial)
            self._learn()
            self.on_trials(self._in_order())
            self.say(f"trial {proposal.number}: {outcome_text(trial)}")
            self._stop_if_all_fail()
        self._stop_if_all_fail(least=1)
        return self._in_order()

    def _run(self, proposal: Proposal, progress: Progress) -> Trial:
        """Run a trial, again where its board went away and came back. If it stays away, the trial
        is left for the next call."""
        trial = self._run_once(proposal, progress)
        for _ in range(MOST_RETURNS):
            if not lost_board(self.search, trial):
                break
            try:
                wait_for_board(self.search, self.say)
            except ToolError:
                (self.search.out / trial.folder / TRIAL_FILE).unlink(missing_ok=True)
                self.study.put_back(proposal.asked)
                raise
            trial = self._run_once(proposal, progress)
        return trial

    def _run_once(self, proposal: Proposal, progress: Progress) -> Trial:
        """Run a trial, which is stopped early if it is clearly worse than others."""
        watch = Watch(
            rule=self.search.options.early_stopping,
            others=lambda: self._others(proposal.key),
            note=lambda course: self.study.note(proposal.asked, course),
            course=self.study.courses().get(proposal.key, Course()),
        )
        return run_trial(self.search, proposal, self._in_order(), watch, progress)

    def _others(self, key: str) -> list[Course]:
        """What is known of all trials but one."""
        return [course for other, course in self.study.courses().items() if other != key]

    def _next(self) -> Proposal | None:
        """The next proposal, or None at the end; one worker asks at a time."""
        with locked(self.search.out / ASKING, wait=True):
            self._learn()
            if self._done():
                return None
            proposal = self._new_proposal()
            self.tried_out = self.tried_out or proposal is None
            return proposal

    @property
    def notes(self) -> list[str]:
        """Why the search ended before its number and time were used up."""
        return ["every recipe of the space that was proposed has been tried"] * self.tried_out

    def _in_order(self) -> list[Trial]:
        return sorted(self.trials.values(), key=lambda trial: trial.number)

    def _forget_failures(self) -> None:
        """Try again where every trial of earlier calls failed: what they lacked may be there."""
        self._learn()
        if all(trial.state == "failed" and not trial.killed for trial in self.trials.values()):
            self.forgotten = frozenset(trial.number for trial in self.trials.values())
            self._learn()

    def _learn(self) -> None:
        """Every trial that there is by now, of other workers and machines too."""
        trials = [trial for trial in self.study.trials() if trial.number not in self.forgotten]
        self.trials = {trial.key: trial for trial in trials}

    def _done(self) -> bool:
        begun = len(self.trials) + len(self.study.running())
        most, size = self.search.options.most_trials, self.search.space.size
        if most is not None and begun >= most:
            return True
        if size is not None and begun >= size:
            self.tried_out = True
            return True
        return seconds_left(self.search, list(self.trials.values())) <= 0.0

    def _new_proposal(self) -> Proposal | None:
        """A proposal whose recipe is not known; known ones are answered from what is there."""
        running = self.study.running()
        for attempt in range(MOST_REPEATS):
            proposal = self.study.ask(random=attempt >= REPEATS_IN_A_ROW)
            known = self.trials.get(proposal.key)
            if known is not None:
                self.study.tell(proposal.asked, known, repeated=True)
            elif proposal.key in running:
                self.study.drop(proposal.asked)
            else:
                return proposal
        return None

    def _stop_if_all_fail(self, least: int = SAME_FAILURES) -> None:
        trials = list(self.trials.values())
        errors = [trial for trial in trials if trial.state == "failed"]
        if len(errors) < least or len(errors) < len(trials):
            return
        if len({reason_of(trial) for trial in errors}) == 1:
            last = errors[-1]
            kind = InputError if last.exit_code == InputError.exit_code else ToolError
            raise kind(
                f"every trial fails ({len(errors)} of {len(errors)}): {last.message}",
                where=last.where,
                hint=last.hint or f"see log.txt in {self.search.out / last.folder}",
            )


def seconds_left(search: Search, trials: Sequence[Trial]) -> float:
    """The time that `--hours` leaves after the trials so far and one more of a middling length;
    infinite without it."""
    if search.options.hours is None:
        return float("inf")
    lengths = [trial.seconds for trial in trials]
    usual = statistics.median(lengths) if lengths else 0.0
    together = search.options.hours * 3600.0 * search.options.workers
    return together - sum(lengths) - usual


def reason_of(trial: Trial) -> str:
    """Why a trial failed, without the numbers in it."""
    return re.sub(r"[\d.]+", "#", trial.message)


def parameters_text(proposal: Proposal) -> str:
    """The parameters of a trial on one line."""
    return ", ".join(
        f"{place.removeprefix('stages.')} = {short_value(value)}"
        for place, value in proposal.parameters.items()
    )


def outcome_text(trial: Trial) -> str:
    """What became of a trial, on one line."""
    if trial.state != "finished":
        return f"{trial.state}: {trial.message}"
    files = [
        f"{file.target} {file.name} {file.score:.4f}"
        for file in trial.files
        if file.score is not None and not file.only_size
    ]
    return f"accuracy {', '.join(files) or 'unknown'} ({trial.seconds:.0f} s)"
