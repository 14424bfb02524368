"""What a search found: search.json, its Pareto fronts, and the recipe of each point."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, PrivateAttr

from edgekd.errors import InputError
from edgekd.report.files import rounded
from edgekd.searching.correcting import TableUse
from edgekd.searching.judging import Point
from edgekd.searching.outcome import Trial, TrialFile
from edgekd.searching.untrained import PredictionError
from edgekd.store import read_errors, write_beside
from edgekd.values.measurement import Judgement, Verdict
from edgekd.values.tables import Value, parse

NAME = "search.json"


class FrontPoint(TrialFile):
    """One file of one trial, judged. `recipe` repeats it with `edgekd compress`; `costs` are in the
    budgets' units."""

    trial: int
    recipe: str
    costs: dict[str, float | None]
    budgets: tuple[Judgement, ...]
    verdict: Verdict
    violation: float = 0.0


class Proven(Value):
    """The chosen point, run once more by itself and measured as the user asked: `folder` is a
    normal run's. `same_bytes` says whether the file was the trial's to the byte."""

    folder: str
    verdict: Verdict
    accuracy: float | None
    same_bytes: bool
    budgets: tuple[Judgement, ...]


class TargetResult(Value):
    """One target's points. `chosen` is the position in `front` of the most accurate point that
    meets every budget, or None; then `nearest` misses them by least. `reachable` has each budget's
    best value over all trials; `predictions` say how well the untrained files told the costs of the
    trained ones, `tables` what the tables of operators' costs told before."""

    name: str
    limits: dict[str, float]
    verdict: Verdict
    front: tuple[FrontPoint, ...]
    chosen: int | None = None
    proven: Proven | None = None
    nearest: FrontPoint | None = None
    reachable: dict[str, float] = {}
    predictions: tuple[PredictionError, ...] = ()
    tables: tuple[TableUse, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> FrontPoint | None:
        """The chosen point."""
        return None if self.chosen is None else self.front[self.chosen]


class SearchResult(Value):
    """A whole search, or what there is of it so far (`state`)."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    schema_version: Literal[1] = Field(default=1, alias="schema")
    state: Literal["running", "finished"]
    verdict: Verdict
    seed: int
    versions: dict[str, str]
    command: str = ""
    created: str = ""
    wanted_trials: int | None = None
    wanted_hours: float | None = None
    space: tuple[str, ...] = ()
    family: str = ""
    targets: tuple[TargetResult, ...]
    trials: tuple[Trial, ...]
    notes: tuple[str, ...] = ()
    _folder: Path | None = PrivateAttr(default=None)

    @property
    def folder(self) -> Path | None:
        """The search's folder, from which paths start."""
        return self._folder

    def kept_in(self, folder: Path) -> "SearchResult":
        """The same result, which knows its folder."""
        copy = self.model_copy()
        copy._folder = folder.resolve()
        return copy

    def target(self, name: str) -> TargetResult:
        """One target's result. Raises `KeyError` for a name that was not searched for."""
        return {target.name: target for target in self.targets}[name]

    def recipe(self, target: str = "") -> Path | None:
        """The recipe of the point chosen for a target (the first one's by default)."""
        best = (self.target(target) if target else self.targets[0]).best
        return None if best is None or self.folder is None else self.folder / best.recipe

    def as_json(self) -> dict[str, Any]:
        """The plain tables of search.json, not rounded."""
        return self.model_dump(mode="json", by_alias=True)


def front_point(point: Point, recipe: str) -> FrontPoint:
    """A judged file as the result has it."""
    return FrontPoint(
        **{name: getattr(point.file, name) for name in TrialFile.model_fields},
        trial=point.trial,
        recipe=recipe,
        costs=point.costs,
        budgets=point.judgements,
        verdict=point.verdict,
        violation=point.violation,
    )


def verdict_of_all(verdicts: Sequence[Verdict]) -> Verdict:
    """The worst of the targets' verdicts."""
    if "fail" in verdicts:
        return "fail"
    return "unverified" if "unverified" in verdicts else "pass"


def result_text(result: SearchResult) -> str:
    """The content of search.json."""
    tables = rounded(result.as_json())
    return json.dumps(tables, indent=1, sort_keys=True, allow_nan=False) + "\n"


def write_result(result: SearchResult, folder: Path) -> Path:
    """Write search.json and return its path."""
    write_beside(folder / NAME, result_text(result))
    return folder / NAME


def load_search(path: str | Path) -> SearchResult:
    """The result in a search's folder or in its search.json. Raises `InputError` for anything
    else."""
    file = Path(path) / NAME if Path(path).is_dir() else Path(path)
    hint = "give a folder that 'edgekd search' wrote"
    try:
        with read_errors(file, "a search.json", hint=hint):
            table = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"not a readable search: {error}", where=str(file)) from None
    if not isinstance(table, dict) or table.get("schema") != 1:
        schema = table.get("schema") if isinstance(table, dict) else None
        raise InputError(
            f"unknown search schema {schema!r}", where=str(file), allowed="1", hint=hint
        )
    return parse(SearchResult, table, str(file)).kept_in(file.parent)
