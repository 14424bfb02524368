"""What a compiled file computes: its accuracy, and how it compares with teacher and reference."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from edgekd.data.tasks import Pooled, Task
from edgekd.data.tasks.classification import CLASSIFICATION
from edgekd.measure.accuracy import (
    NotFinite,
    Scores,
    accuracy_measurement,
    drop_measurement,
    mean_measurement,
    pooled_measurement,
    scores_of,
)
from edgekd.measure.diagnostics import Finding
from edgekd.measure.inference import arrays_of, infer_samples
from edgekd.measure.outputs import tree_of_outputs
from edgekd.measure.parity import Parity
from edgekd.network.evaluation import predict
from edgekd.run.boxes import all_candidates, boxes_in, boxes_outside, boxes_parity, finds_boxes
from edgekd.run.compiled import Compiled
from edgekd.run.diagnosing import file_findings
from edgekd.run.plan import Plan
from edgekd.run.proof.open_sizes import parity_at_sizes
from edgekd.run.proof.parity_check import parity_of, parity_with_original
from edgekd.run.proof.place import Place, options_for
from edgekd.stages import Progress
from edgekd.values.artifact import Artifact
from edgekd.values.backend_lookup import not_run
from edgekd.values.measurement import Measurement, unavailable
from edgekd.values.target import Target
from edgekd.values.tree import Tree, leaves

NO_REFERENCE = "a file alone has no graph in PyTorch to be compared with"

SAME_NUMBERS = "computes_as"
"""The fact that names the file (by SHA-256) whose outputs another one is defined to give."""


@dataclass(frozen=True)
class TeacherOutputs:
    """What the task reads of the trained model's outputs (N, ...) on the test set, with its targets
    (N, ...): what every artifact is compared with."""

    outputs: Any
    y: np.ndarray
    task: Task = CLASSIFICATION

    @cached_property
    def scores(self) -> Scores:
        """(N,) each test sample's score, 0 to 1, or one for all of them."""
        return scores_of(self.outputs, self.y, "the trained model", self.task)


@dataclass(frozen=True)
class Proof:
    """What one file computes: its accuracy, and how it compares with teacher and reference."""

    accuracy: Measurement
    drop: Measurement
    agreement: float | None
    parity: Parity | None
    reference: tuple[np.ndarray, ...] | None = None
    reason: str = ""
    further: tuple[Measurement, ...] = ()
    findings: tuple[Finding, ...] = ()


def proof_of(
    plan: Plan,
    target: Target,
    place: Place,
    each: Compiled,
    original: TeacherOutputs,
    progress: Progress,
) -> Proof:
    """Run a file over the whole test set, where it can run at all, and compare what it gives."""
    artifact, device = each.artifact, place.device
    progress(f"run {artifact.path.name} on {device.name}", 0, 1)
    reason = not_run(artifact.format) or device.can_run(artifact)
    if each.is_baseline and place.reason:
        reason = "the teacher's file is for the target's own kind of machine only"
    if reason:
        return _without(reason, device.name)
    test = plan.data.test
    everything = infer_samples(device, artifact, test, options_for(target, artifact))
    reference = predict(each.reference.module, plan.data.test) if each.reference else None
    task = original.task
    form = plan.output_form if reference is None else reference
    searches = finds_boxes(artifact)
    judge = task.of_boxes() if searches else task
    if searches:
        outputs: Any = torch.from_numpy(boxes_in(everything))
    else:
        outputs = task.main(tree_of_outputs(artifact, everything, form))
    try:
        scores = scores_of(outputs, original.y, str(artifact.path), judge)
    except NotFinite as error:
        if not each.is_compared:
            raise
        return _without(error.message, device.name)
    parity, originals = None, None
    if each.original is not None:
        originals = infer_samples(device, each.original, test, options_for(target, each.original))
        if searches:
            given = task.main(tree_of_outputs(each.original, originals, form))
            found, proposed = boxes_in(everything), all_candidates(task, given)
            parity = boxes_parity(task, found, boxes_outside(task, given), proposed)
            originals = (found,)  # what `verify` expects to find again
        else:
            parity = parity_with_original(each, everything, originals, task)
    if reference is not None:
        parity = parity_of(target, place, each, test, everything, reference, task)
        parity = parity_at_sizes(plan, target, place, each, parity)
    progress(f"run {artifact.path.name} on {device.name}", 1, 1)
    return Proof(
        accuracy_measurement(scores, device.name, place.kind, task.metric),
        drop_measurement(original.scores, scores, device.name, place.kind, task.metric),
        float(judge.score(outputs, task.decode(original.outputs)).double().mean())
        if searches
        else _agreement(task, outputs, original.outputs),
        parity,
        originals if reference is None else tuple(part.numpy() for part in leaves(reference)),
        "" if parity else NO_REFERENCE,
        (
            *_further(place, judge, outputs, original.y),
            *(() if searches else _played(plan, target, place, artifact)),
        ),
        () if searches else _diagnosed(plan, target, place, each, outputs, original),
    )


def _without(reason: str, device: str) -> Proof:
    gone = [unavailable(name, reason, device=device) for name in ("accuracy", "accuracy_drop")]
    return Proof(gone[0], gone[1], None, None, reason=reason)


def _diagnosed(
    plan: Plan,
    target: Target,
    place: Place,
    each: Compiled,
    outputs: Any,
    original: TeacherOutputs,
) -> tuple[Finding, ...]:
    """The diagnostics of a deployed file; the teacher's own file has none."""
    if each.is_baseline:
        return ()
    run = _runner(plan, target, place, each.artifact)
    name = each.artifact.path.name
    return file_findings(plan, name, place.kind, outputs, original.outputs, run)


def _runner(plan: Plan, target: Target, place: Place, artifact: Artifact) -> Callable[[Tree], Any]:
    """What the task reads of the file's outputs, as a function of a tree of inputs (B, ...)."""

    def run(x: Tree) -> Any:
        options = options_for(target, artifact)
        outputs = place.device.infer(artifact, arrays_of(x), options)
        return plan.data.task.main(tree_of_outputs(artifact, outputs, plan.output_form))

    return run


def _agreement(task: Task, outputs: Any, others: Any) -> float:
    """How far the outputs say what others do, 0 to 1."""
    return float(task.agreement(outputs, others).double().mean())


def _further(place: Place, task: Task, outputs: Any, y: np.ndarray) -> tuple[Measurement, ...]:
    """What else the task tells of each sample."""
    told = task.extra_metrics(outputs, torch.from_numpy(y))
    return tuple(
        mean_measurement(
            metric, values.numpy(), place.device.name, place.kind, f"over {len(values)} samples"
        )
        for metric, values in told.items()
    )


def _played(
    plan: Plan, target: Target, place: Place, artifact: Artifact
) -> tuple[Measurement, ...]:
    """What the task finds by letting the file act."""
    run, task = _runner(plan, target, place, artifact), plan.data.task

    def first(count: int) -> tuple[Tree, torch.Tensor]:
        drawn = plan.data.test.some(count)
        return drawn.x, drawn.y

    def measured(metric: str, values: torch.Tensor | Pooled) -> Measurement:
        device, kind = place.device.name, place.kind
        if isinstance(values, Pooled):
            protocol = f"over {len(values.parts)} {task.rollout_unit}"
            return pooled_measurement(metric, values, device, kind, protocol)
        protocol = f"{len(values)} {task.rollout_unit}"
        return mean_measurement(metric, values.numpy(), device, kind, protocol)

    return tuple(measured(*each) for each in task.rollout_metrics(run, first).items())


def inherited(
    artifact: Artifact, proof: Proof, everything: Sequence[Compiled], proofs: Sequence[Proof]
) -> Proof:
    """A file that can't run here takes the accuracy, as an estimate, of the one that it was made
    of, where its compiler keeps every number as it is."""
    source = artifact.facts.get(SAME_NUMBERS)
    if source is None or proof.accuracy.value is not None:
        return proof
    for each, other in zip(everything, proofs, strict=True):
        if each.artifact.sha256 == source and other.accuracy.value is not None:
            told = {
                "kind": "estimated",
                "protocol": f"that of {each.artifact.path.name}, whose arithmetic it keeps",
            }
            return replace(
                proof,
                accuracy=other.accuracy.model_copy(update=told),
                drop=other.drop.model_copy(update=told),
            )
    return proof
