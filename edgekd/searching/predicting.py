"""What a trial's files will cost, by the tables of what operators cost on the target's device
(`edgekd bench --per-layer`): nothing runs, so it is asked first.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgekd.errors import EdgekdError
from edgekd.measure.budgets import budget_named
from edgekd.measure.cost_model import LEAST_FILES, CostModel, fit_cost_model
from edgekd.measure.cost_table import graph_with_shapes, known_files, table_folder, table_of
from edgekd.measure.operator_costs import operators_of
from edgekd.run.plan import Plan, PlannedTarget
from edgekd.run.plan.planned import ExpectedFile
from edgekd.run.proof.place import Place, options_for, place_for, place_of
from edgekd.searching.correcting import FAMILIES, Correction
from edgekd.searching.judging import Limits
from edgekd.searching.outcome import PredictedFile
from edgekd.store import cache_folder, code_key, key_of
from edgekd.values.artifact import Artifact
from edgekd.values.backend_lookup import backend_info, not_run
from edgekd.values.measurement import Measurement
from edgekd.values.target import Target

STORED = "predicted"
"""The store's entry for what tables tell of a file."""

READ = ("onnx", "tflite")
"""The formats whose operators are read."""


def is_told(limits: Mapping[str, float]) -> bool:
    """Whether some budget is on something that tables tell."""
    return any(name.startswith(FAMILIES) for name in limits)


def predicted_files(plan: Plan, limits: Limits) -> tuple[PredictedFile, ...]:
    """The predicted costs of the files that the plan kept, for each target that has a budget on
    them and a table of enough files; cached by content."""
    files: list[PredictedFile] = []
    for planned in plan.targets:
        artifacts = _readable(planned)
        if not artifacts or not is_told(limits[planned.target.name]):
            continue
        place = place_for(plan, planned.target)
        try:
            for artifact in artifacts:
                found = _predicted(plan, planned, place, artifact)
                files += [found] if found is not None else []
        finally:
            place.device.close()
    return tuple(files)


def _readable(planned: PlannedTarget) -> list[Artifact]:
    kept = [file.artifact for file in planned.expected if file.artifact is not None]
    return [each for each in kept if each.format in READ and not not_run(each.format)]


def _has_tables(place: Place) -> bool:
    """Whether what was measured there is told of the target: by a device of its kind, or by the
    emulated microcontroller, which has no times but instructions."""
    return not place.reason or place.device.name.startswith("cortex-m://")


def _predicted(
    plan: Plan, planned: PlannedTarget, place: Place, artifact: Artifact
) -> PredictedFile | None:
    if not _has_tables(place):
        return None
    options = options_for(planned.target, artifact)
    folder = table_folder(cache_folder(), place.device, artifact, options)
    hashes = tuple(file.sha256 for file in known_files(folder))
    if len(hashes) < LEAST_FILES:
        return None
    name = planned.target.name
    key = key_of(code_key(measured=True), folder.name, hashes, name, artifact.sha256)
    entry = plan.store.find(STORED, key)
    if entry is None:
        model = fitted(folder, hashes)
        made = _file(planned, place, artifact, model, len(hashes)).model_dump_json()

        def write(into: Path) -> None:
            (into / "file.json").write_text(f"{made}\n", encoding="utf-8")

        entry = plan.store.publish(STORED, key, write)
    table = json.loads((entry / "file.json").read_text(encoding="utf-8"))
    return PredictedFile.model_validate(table)


def table_lines(device: str | None, targets: Sequence[Target], limits: Limits) -> list[str]:
    """For each target with a budget that tables tell, which tables there are, or how to measure
    one."""
    lines = []
    for target in targets:
        if not is_told(limits[target.name]):
            continue
        place = place_of(device, target)
        try:
            found = _lines_of(place, target, device)
        except EdgekdError as error:  # it may be back when a trial needs it
            found = [f"no table tells costs before training: {error.message}"]
        finally:
            place.device.close()
        lines += [f"{target.name}: {line}" for line in found]
    return lines


def _lines_of(place: Place, target: Target, device: str | None) -> list[str]:
    if not _has_tables(place):
        return [f"no table tells costs before training: {place.reason}"]
    kinds = [
        (kind, target.backends[name])
        for name in target.backends
        for kind in backend_info(name).files
        if kind.format in READ and not kind.not_run
    ]
    found, where = [], place.device
    for kind, options in kinds:
        folder = table_of(cache_folder(), where, kind.runtime, kind.format, options)
        found.append((kind.format, len(known_files(folder))))
    enough = [f"{count} {format} files" for format, count in found if count >= LEAST_FILES]
    if enough:
        return [f"costs before training by the tables of {' and '.join(enough)} on {where.name}"]
    if not found:
        return []
    url = device or (where.name if "://" in where.name else "")
    at = f" --device {url}" if url else ""
    most = max(count for _, count in found)
    return [
        f"no table tells costs before training ({most} of {LEAST_FILES} files): measure some with "
        f"'edgekd bench FILE... --target {target.name}{at} --per-layer'"
    ]


@functools.lru_cache(maxsize=8)
def fitted(folder: Path, hashes: tuple[str, ...]) -> CostModel:
    """The model of a table with these files. A fit takes seconds, and trials share it."""
    return fit_cost_model([file for file in known_files(folder) if file.sha256 in hashes])


def _file(
    planned: PlannedTarget, place: Place, artifact: Artifact, model: CostModel, files: int
) -> PredictedFile:
    value, timed = model.predict(operators_of(graph_with_shapes(artifact.path))), model.unit == "us"
    cost = Measurement(
        metric="latency_ms_p50" if timed else "instructions",
        value=value / 1e3 if timed else value,
        kind="estimated",
        device=place.device.name,
        protocol=f"{model.name} over {files} files",
    )
    return PredictedFile(
        target=planned.target.name,
        format=artifact.format,
        precision=artifact.precision,
        sha256=artifact.sha256,
        cost=cost,
        table_files=files,
        median_error=model.median_error,
        most_over=max(0.0, *model.errors),
    )


@dataclass(frozen=True)
class PredictedCosts:
    """The predictions for the files of one trial, and how they are corrected."""

    files: tuple[PredictedFile, ...] = ()
    corrections: Mapping[tuple[str, str], Correction] = field(default_factory=dict)

    def least(self, target: str, file: ExpectedFile, budget: str, at_first: float) -> float | None:
        """What the file will cost at least, in the budget's unit; None if no table tells. Until the
        search has measured enough files, the table's own largest overestimate is subtracted, or
        `at_first` if that is more."""
        found = self._of(target, file, budget)
        if found is None or found.cost.value is None:
            return None
        known = budget_named(budget)
        correction = self.corrections.get((target, known.measured_as[0]))
        if correction is None or not correction.is_trusted:
            least = found.cost.value / max(at_first, 1.0 + found.most_over)
        else:
            least = found.cost.value * correction.ratio / max(at_first, correction.margin)
        return least / known.factor

    def text(self, target: str, file: ExpectedFile, budget: str, least: str) -> str:
        """How a refusal says what a file takes at least."""
        found = self._of(target, file, budget)
        assert found is not None
        assert found.cost.value is not None
        value = found.cost.value / budget_named(budget).factor
        return f"takes at least {least} by the table (estimated: {value:.4g})"

    def are_trusted(self, excesses: Mapping[str, Mapping[str, float]]) -> bool:
        """Whether enough files were measured to believe that these budgets are broken."""
        keys = [(target, budget_named(budget).measured_as[0])
                for target, budgets in excesses.items() for budget in budgets
                if budget.startswith(FAMILIES)]  # fmt: skip
        return all(key in self.corrections and self.corrections[key].is_trusted for key in keys)

    def _of(self, target: str, file: ExpectedFile, budget: str) -> PredictedFile | None:
        if file.artifact is None or not budget.startswith(FAMILIES):
            return None
        family = budget_named(budget).measured_as[0].partition("_")[0]
        found = (
            each
            for each in self.files
            if each.target == target
            and each.sha256 == file.artifact.sha256
            and each.cost.metric.startswith(family)
        )
        return next(found, None)
