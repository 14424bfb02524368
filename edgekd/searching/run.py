"""A search from beginning to end: trials, fronts, each target's best point, and their files."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from edgekd.errors import InputError
from edgekd.installed import tool_versions, versions_of
from edgekd.run.reporting import resolved_recipe
from edgekd.searching.best import Best, prove_best
from edgekd.searching.correcting import table_uses
from edgekd.searching.judging import Point, best_of, front_of, nearest_of, points_of, reachable
from edgekd.searching.loop import Loop
from edgekd.searching.outcome import Trial, kept_trials
from edgekd.searching.page import write_page
from edgekd.searching.request import Search
from edgekd.searching.result import (
    SearchResult,
    TargetResult,
    front_point,
    verdict_of_all,
    write_result,
)
from edgekd.searching.space import describe
from edgekd.searching.study import Study
from edgekd.searching.trial import request_for
from edgekd.searching.untrained import errors_of
from edgekd.searching.workers import run_workers
from edgekd.stages import Progress
from edgekd.store import exclusive, folder_beside
from edgekd.values.measurement import Verdict

Say = Callable[[str], None]

FRONT = "front"


def run_search(search: Search, progress: Progress, say: Say, quick: bool = False) -> SearchResult:
    """Run what is missing of a search, prove the best, and write everything into its folder, which
    is locked against other searches. With `quick` the proof measures briefly too."""
    check_free(search)
    with exclusive(search.out):
        study = Study(search)
        study.start_from(kept_trials(search.out))
        if search.options.workers > 1 or search.options.engine != "processes":
            run_workers(search, study, say, lambda trials: _keep_state(search, trials))
        loop = Loop(search, study, say, on_trials=lambda trials: _keep_state(search, trials))
        trials = loop.run(progress)
        best = {}
        for name in search.limits:
            points = points_of(trials, name, search.limits, search.accept)
            best[name] = prove_best(search, trials, name, points, progress, say, quick)
        result = make_result(search, trials, best, loop.notes)
        _write_front(search, trials, result)
        write_result(result, search.out)
        write_page(result, search.out)
    return result.kept_in(search.out)


def _keep_state(search: Search, trials: Sequence[Trial]) -> None:
    """Write what there is so far, for `edgekd search status`."""
    write_result(make_result(search, trials, {}), search.out)


def make_result(
    search: Search,
    trials: Sequence[Trial],
    best: Mapping[str, Best],
    notes: Sequence[str] = (),
) -> SearchResult:
    """The result of the trials; a search that still runs has no `best`."""
    recipes = _recipes(search, trials, best)
    targets = tuple(
        _target_result(search, trials, name, best.get(name), recipes) for name in search.limits
    )
    options = search.options
    return SearchResult(
        state="finished" if best else "running",
        verdict=verdict_of_all([target.verdict for target in targets]),
        seed=search.request.recipe.seed,
        versions={**tool_versions(), **versions_of(["optuna"])},
        command=search.request.command,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        wanted_trials=options.most_trials,
        wanted_hours=options.hours,
        space=tuple(describe(dimension) for dimension in search.space.dimensions),
        family=search.space.family,
        targets=targets,
        trials=tuple(trials),
        notes=(*notes, *_notes(trials)),
    )


def _notes(trials: Sequence[Trial]) -> list[str]:
    finished = [trial for trial in trials if trial.state == "finished"]
    files = [file for trial in finished for file in trial.files if file.accuracy is not None]
    if files and all(file.validation is None for file in files):
        return ["there are no validation samples, so points were chosen by their test accuracy"]
    return []


def _shown(points: Sequence[Point]) -> list[Point]:
    """The front, and the best point where another file beats it that breaks a budget."""
    front, best = front_of(points), best_of(points)
    return front if best is None or best in front else [*front, best]


def _recipes(search: Search, trials: Sequence[Trial], best: Mapping[str, Best]) -> dict[int, str]:
    """The recipe of each trial that a front has, by the trial's number: `front/1.toml`, ..."""
    numbers: dict[int, str] = {}
    for name in search.limits:
        points = points_of(trials, name, search.limits, search.accept)
        others = (nearest_of(points), best[name].point if name in best else None)
        for point in [*_shown(points), *filter(None, others)]:
            numbers.setdefault(point.trial, f"{FRONT}/{len(numbers) + 1}.toml")
    return numbers


def _target_result(
    search: Search,
    trials: Sequence[Trial],
    name: str,
    best: Best | None,
    recipes: Mapping[int, str],
) -> TargetResult:
    points = points_of(trials, name, search.limits, search.accept)
    shown = _shown(points)
    chosen = best.point if best else best_of(points)
    if chosen is not None and chosen not in shown:  # the best was refuted by its proof
        shown.append(chosen)
    nearest = None if chosen else nearest_of(points)
    verdict: Verdict = "fail" if chosen is None else chosen.verdict
    if best and best.proven:
        verdict = best.proven.verdict
    return TargetResult(
        name=name,
        limits=dict(search.limits[name]),
        verdict=verdict,
        front=tuple(front_point(point, recipes.get(point.trial, "")) for point in shown),
        chosen=shown.index(chosen) if chosen is not None else None,
        proven=best.proven if best else None,
        nearest=front_point(nearest, recipes.get(nearest.trial, "")) if nearest else None,
        reachable=reachable(points),
        predictions=errors_of(trials, name, search.limits[name]),
        tables=table_uses(trials, name, search.limits[name]),
        notes=best.notes if best else (),
    )


def _write_front(search: Search, trials: Sequence[Trial], result: SearchResult) -> None:
    """Write the recipe of each point of the fronts, in place of those of an earlier call."""
    by_number = {trial.number: trial for trial in trials}
    wanted = {
        point.recipe: point.trial
        for target in result.targets
        for point in (*target.front, *([target.nearest] if target.nearest else []))
        if point.recipe
    }
    with folder_beside(search.out / FRONT) as folder:
        for path, number in wanted.items():
            text = _front_text(search, by_number[number], result, path)
            (folder / Path(path).name).write_text(text, encoding="utf-8")


def _front_text(search: Search, trial: Trial, result: SearchResult, path: str) -> str:
    names = " ".join(f"--target {target.name}" for target in result.targets)
    lines = [f"# Trial {trial.number} of a search. Its run: {trial.folder}"]
    for target in result.targets:
        for position, point in enumerate(target.front):
            if point.trial == trial.number:
                mark = ", the chosen one" if position == target.chosen else ""
                lines.append(f"# {target.name}: {point.name}, {point.verdict}{mark}")
    lines.append(f"# edgekd compress {path} {names}")
    recipe = search.space.recipe_of(trial.parameters)
    request = request_for(search, recipe, FRONT)
    if recipe.objects:
        lines.append("# It names objects that were given in Python: give them to edgekd.compress.")
    return "\n".join(lines) + "\n\n" + resolved_recipe(request)


def check_free(search: Search) -> None:
    """Refuse a folder that holds something else than a search."""
    if (search.out / "report.json").exists():
        raise InputError(
            "the folder holds a run of 'edgekd compress'",
            where=str(search.out),
            hint="choose another folder with --out",
        )
