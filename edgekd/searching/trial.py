"""One trial: a normal run in a folder of its own, with the store of stages that all share."""

import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from edgekd.errors import EdgekdError, unexpected_error
from edgekd.measure.accuracy import WholeScore, scores_of
from edgekd.measure.inference import infer_samples
from edgekd.measure.outputs import tree_of_outputs
from edgekd.report.values import ArtifactReport, Report
from edgekd.run.compress import run_plan
from edgekd.run.log import append_errors
from edgekd.run.plan import Plan, PlannedTarget
from edgekd.run.plan.make import make_plan
from edgekd.run.plan.planned import Request
from edgekd.run.proof.place import Place, options_for, place_for
from edgekd.run.reporting import resolved_recipe
from edgekd.searching.correcting import TABLE, corrections_of
from edgekd.searching.outcome import (
    PredictedFile,
    Trial,
    UntrainedFile,
    failed,
    file_outcomes,
    folder_of,
    keep_trial,
)
from edgekd.searching.predicting import PredictedCosts, predicted_files
from edgekd.searching.refusal import Refusal, refusal_of
from edgekd.searching.request import Search
from edgekd.searching.stopping import TrialStopped, Watch
from edgekd.searching.study import Proposal
from edgekd.searching.untrained import (
    UntrainedCosts,
    factors_of,
    is_timed,
    tells,
    untrained_files,
)
from edgekd.stages import Progress
from edgekd.store import write_beside
from edgekd.values.artifact import Artifact
from edgekd.values.backend_lookup import not_run
from edgekd.values.recipe import Recipe

STAGES = "stages"
UNTRAINED = "untrained"
"""The folder in a trial's with the files of its plan, as long as it runs."""


def run_trial(
    search: Search,
    proposal: Proposal,
    others: Sequence[Trial],
    watch: Watch,
    progress: Progress,
) -> Trial:
    """Run a trial to its end, whatever that is, and keep the outcome in its folder. `others` are
    the finished trials, which tell how well a plan predicts what a file will cost."""
    started = time.perf_counter()
    number, parameters, key = proposal.number, proposal.parameters, proposal.key
    folder = search.out / folder_of(number)
    trial = Trial(number=number, state="finished", key=key, parameters=parameters, seconds=0.0)
    try:
        share_stages(folder, search.out)
        trial = trial.model_copy(update=_run(search, proposal, others, watch, progress))
    except TrialStopped as stopped:
        trial = trial.model_copy(update={"state": "stopped", "message": str(stopped)})
    except EdgekdError as error:
        trial = failed(number, key, parameters, error)
        append_errors(folder, [error])
    except Exception as error:
        wrapped = unexpected_error(error, f"trial {number}", "the trial")
        trial = failed(number, key, parameters, wrapped)
        append_errors(folder, [wrapped])
    finally:
        shutil.rmtree(folder / UNTRAINED, ignore_errors=True)
    seconds = round(time.perf_counter() - started, 2)
    trial = trial.model_copy(update={"seconds": seconds, "course": watch.course})
    keep_trial(trial, search.out)
    return trial


def share_stages(folder: Path, out: Path) -> None:
    """Make a run's folder, whose finished stages lie in the search's own store."""
    (out / STAGES).mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        (folder / STAGES).symlink_to(os.path.relpath(out / STAGES, folder))


def _run(
    search: Search,
    proposal: Proposal,
    others: Sequence[Trial],
    watch: Watch,
    progress: Progress,
) -> dict[str, object]:
    """Run a trial's recipe; the fields of its outcome."""
    recipe = search.space.recipe_of(proposal.parameters)
    request = request_for(search, recipe, folder_of(proposal.number))
    if any(map(is_timed, search.limits.values())):
        request = replace(request, untrained=request.out / UNTRAINED)
    write_beside(request.out / "recipe.toml", resolved_recipe(request))
    plan = make_plan(request)
    known = _before_training(search, plan, others, progress)
    found = {"untrained": known.untrained, "predicted": known.predicted}
    if known.refusal is not None:
        return {**_refused(known.refusal), **found}
    report = run_plan(watch.begin(plan), progress)
    return {"files": file_outcomes(report, _validation(plan, report)), **found}


@dataclass(frozen=True)
class _Known:
    """What is known of a trial before its training, and why it need not be trained."""

    refusal: Refusal | None
    predicted: tuple[PredictedFile, ...] = ()
    untrained: tuple[UntrainedFile, ...] = ()


def _before_training(
    search: Search, plan: Plan, others: Sequence[Trial], progress: Progress
) -> _Known:
    """Ask what is cheapest first: the files' sizes, the tables, and a run of the untrained files.
    What a table refuses is run all the same where it can be, until enough files are compared."""
    limits = search.limits
    refusal = refusal_of(plan, limits)
    if refusal is not None:
        return _Known(refusal)
    predicted = predicted_files(plan, limits)
    costs = PredictedCosts(predicted, corrections_of(others))
    refusal = refusal_of(plan, limits, costs, TABLE)
    if refusal is not None and costs.are_trusted(refusal.excesses):
        return _Known(refusal, predicted)
    untrained = untrained_files(plan, limits, search.accept, progress)
    if refusal is None or tells(untrained, refusal.excesses):
        factors = factors_of(others)
        refusal = refusal_of(plan, limits, UntrainedCosts(untrained, factors, search.accept))
    return _Known(refusal, predicted, untrained)


def _refused(refusal: Refusal) -> dict[str, object]:
    return {
        "state": "refused",
        "message": refusal.message,
        "where": refusal.where,
        "refused_by": refusal.excesses,
    }


def request_for(search: Search, recipe: Recipe, folder: str) -> Request:
    """The request of a run of the search, in a folder below its own."""
    return replace(search.request, recipe=recipe, out=search.out / folder)


def _validation(plan: Plan, report: Report) -> dict[str, float]:
    """Each file's accuracy on the validation samples, by its hash, where it can run."""
    accuracies: dict[str, float] = {}
    if not len(plan.data.validation):
        return accuracies
    for planned, target in zip(plan.targets, report.targets, strict=True):
        place = place_for(plan, planned.target)
        try:
            for listed in target.artifacts:
                accuracy = _accuracy(plan, planned, place, listed)
                if accuracy is not None:
                    accuracies[listed.sha256] = accuracy
        finally:
            place.device.close()
    return accuracies


def _accuracy(
    plan: Plan, planned: PlannedTarget, place: Place, listed: ArtifactReport
) -> float | None:
    artifact = artifact_of(plan.request.out, planned.target.name, listed)
    if not_run(artifact.format) or place.device.can_run(artifact):
        return None
    samples, task = plan.data.validation, plan.data.task
    arrays = infer_samples(place.device, artifact, samples, options_for(planned.target, artifact))
    outputs = task.main(tree_of_outputs(artifact, arrays, plan.output_form))
    scores = scores_of(outputs, samples.y.numpy(), str(artifact.path), task)
    return scores.value if isinstance(scores, WholeScore) else float(scores.mean())


def artifact_of(folder: Path, target: str, listed: ArtifactReport) -> Artifact:
    """The file that a report lists, as an artifact on disk."""
    return Artifact(
        path=folder / listed.path,
        format=listed.format,
        runtime=listed.runtime,
        precision=listed.precision,
        target=target,
        sha256=listed.sha256,
        bytes=listed.bytes,
        inputs=listed.inputs,
        outputs=listed.outputs,
        lineage=listed.lineage,
        facts=listed.facts,
        companions=listed.companions,
    )
