"""The diagnosis of a finished run: its int8 model against the float candidate it was made of."""

# code-key: presents

from pathlib import Path

from edgekd.errors import InputError
from edgekd.measure.diagnosis import Diagnosis
from edgekd.measure.diagnosis.find import diagnose_pair
from edgekd.measure.diagnosis.pair import Pair, read_pair, renamed
from edgekd.report.files import load_report, write_report
from edgekd.report.values import ArtifactReport, Report
from edgekd.run.pipeline import load_candidate
from edgekd.run.plan import Plan
from edgekd.run.plan.make import make_plan
from edgekd.run.request import make_request
from edgekd.store import write_beside
from edgekd.values.artifact import IN_INTEGERS
from edgekd.values.backend_lookup import backend_info, backend_of
from edgekd.values.candidate import Candidate
from edgekd.values.progress import Progress, silent
from edgekd.values.recipe import load_recipe
from edgekd.values.target import Target, load_target, target_files
from edgekd.values.tree import leaves

SAMPLES = 64


def diagnose_run(
    folder: Path, target: Target | None = None, progress: Progress = silent
) -> Diagnosis:
    """The int8 model of a finished run against the float candidate that it was made of, on
    validation data, or test data where there is none. Times are those of the run's report, which
    gets the diagnosis."""
    report = load_report(folder)
    name, artifact = _int8_file(report, folder, target.name if target else None)
    recipe = load_recipe(folder / "recipe.toml")
    # The candidates don't depend on the target, whose file may lie elsewhere.
    profile = target or load_target(name if name in target_files() else "x86")
    plan = make_plan(make_request(recipe, {"target": profile, "out": folder}))
    floating, quantized = _candidates(plan, report, artifact, folder)
    part = plan.data.validation if len(plan.data.validation) else plan.data.test
    inputs = [leaf.numpy() for leaf in leaves(part.some(SAMPLES).x)]
    made = folder / "diagnosis"
    made.mkdir(exist_ok=True)
    paths = [made / f"{name}-float.onnx", made / f"{name}-int8.onnx"]
    for path, candidate in zip(paths, (floating, quantized), strict=True):
        _export(candidate, path)
    pair = renamed(read_pair(*paths), _module_names(read_pair(*paths), report))
    wide = backend_info(backend_of(artifact.format)).wide_cost
    found = diagnose_pair(pair, inputs, artifact.layer_times, None, progress, wide)
    targets = tuple(
        each.model_copy(update={"diagnosis": found}) if each.name == name else each
        for each in report.targets
    )
    write_report(report.model_copy(update={"targets": targets}), folder)
    return found


def _int8_file(report: Report, folder: Path, target: str | None) -> tuple[str, ArtifactReport]:
    names = [each.name for each in report.targets]
    if target is not None and target not in names:
        raise InputError(f"the run has no target '{target}'", where=str(folder),
                         allowed=", ".join(names))  # fmt: skip
    found = [
        (each.name, artifact)
        for each in report.targets
        if target in (None, each.name)
        for artifact in each.artifacts
        if artifact.precision in IN_INTEGERS
    ]
    if not found:
        raise InputError("the run made no int8 file", where=str(folder),
                         hint="a recipe with a quantize stage makes one")  # fmt: skip
    timed = [each for each in found if each[1].layer_times is not None]
    return (timed or found)[0]


def _candidates(
    plan: Plan, report: Report, artifact: ArtifactReport, folder: Path
) -> tuple[Candidate, Candidate]:
    """The last float candidate before the int8 one, and the int8 one, as the run stored them."""
    floating, quantized = plan.start, None
    for stage in report.stages:
        if stage.line not in artifact.lineage:
            continue
        stored = folder / "stages" / f"{stage.kind}-{stage.key}"
        if not stored.is_dir():
            raise InputError(f"the run no longer has its {stage.kind} stage", where=str(stored),
                             hint="run edgekd compress again")  # fmt: skip
        candidate = load_candidate(plan, stored)
        if candidate.is_floating:
            floating = candidate
        elif candidate.form == "int8":
            quantized = candidate
    if quantized is None:
        raise InputError("the file comes from no stage of edgekd's own", where=str(folder),
                         hint="edgekd diagnose FLOAT INT8 --data DATA")  # fmt: skip
    return floating, quantized


def _export(candidate: Candidate, path: Path) -> None:
    from edgekd.backends.onnx.export import to_onnx
    from edgekd.quant.export import export_graph

    graph = candidate.module
    if candidate.form != "int8":
        graph = export_graph(candidate.module, candidate.example, "diagnose")
    write_beside(path, to_onnx(graph, candidate.example).SerializeToString())


def _module_names(pair: Pair, report: Report) -> dict[str, str]:
    """Names with dots for those of the exported files."""
    names = {layer.name.replace(".", "_"): layer.name for layer in report.layers.after}
    return {each.name: names.get(each.name.replace(".", "_"), each.name) for each in pair.layers}
