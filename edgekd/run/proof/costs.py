"""What compiled files cost where they run: latency, memory and energy, beside the teacher's."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edgekd.devices import Options, Samples
from edgekd.devices.lease import leased
from edgekd.errors import MissingRuntime, ToolError
from edgekd.measure.layer_times import LayerTimes, layer_times, reference_of
from edgekd.measure.measuring import measure
from edgekd.measure.meters.latency import ratio
from edgekd.measure.meters.quality import quality_warnings
from edgekd.run.compiled import Compiled
from edgekd.run.plan import Plan
from edgekd.run.proof.place import Place, options_for
from edgekd.stages import Progress
from edgekd.values.artifact import Artifact
from edgekd.values.measurement import Measurement, unavailable
from edgekd.values.target import Target
from edgekd.values.tree import leaves

COSTS = ("latency_ms_p50", "latency_ms_p90", "latency_ms_p99", "peak_memory_bytes", "energy_mj")


@dataclass(frozen=True)
class Costs:
    """What was measured of one file, and what speaks against how it was."""

    measurements: tuple[Measurement, ...]
    notes: tuple[str, ...] = ()
    layers: LayerTimes | None = None


def costs_of(
    plan: Plan,
    target: Target,
    place: Place,
    files: Sequence[Compiled],
    progress: Progress,
    *,
    with_layers: bool = True,
) -> list[Costs]:
    """Latency, memory and energy of every file that this place can tell them of, interleaved, and
    how many times faster each is than the teacher's, which comes first if it is there; and the
    times of its operators, unless they are not asked for."""
    device = place.device
    reasons = [place.reason or device.can_run(each.artifact) for each in files]
    runnable = [each for each, why in zip(files, reasons, strict=True) if not why]
    measured: list[Costs] = []
    if runnable:
        artifacts = [each.artifact for each in runnable]
        options = [
            {**options_for(target, artifact), **_ranges(plan, artifact)} for artifact in artifacts
        ]
        what = f"measure {len(runnable)} files on {device.name}"
        progress(what, 0, 1)
        quick = plan.request.quick
        with ExitStack() as stack:
            if device.kind == "measured":
                stack.enter_context(leased(device.name, plan.request.cache or plan.request.out))
            samples, rows = measure(device, artifacts, options, target.sensors, quick=quick)
        teacher = samples[0] if runnable[0].is_baseline else None
        measured = [
            Costs(
                (*row, _times_faster(teacher, taken, place)),
                quality_warnings(taken, after_work=device.name == "host")
                if device.kind == "measured"
                else (),
                _layers(place, artifact, table, row) if with_layers else None,
            )
            for artifact, table, row, taken in zip(artifacts, options, rows, samples, strict=True)
        ]
        progress(what, 1, 1)
    taken = iter(measured)
    return [
        Costs(tuple(unavailable(metric, why, device=device.name) for metric in COSTS))
        if why
        else next(taken)
        for why in reasons
    ]


def _layers(
    place: Place, artifact: Artifact, options: Options, row: Sequence[Measurement]
) -> LayerTimes | None:
    """The times of the file's operators, briefly measured; None where nothing can tell them."""
    device = place.device
    try:
        profiled = device.profile(artifact, options, quick=True)
    except (MissingRuntime, ToolError):
        return None
    whole = next((each.value for each in row if each.metric == "latency_ms_p50"), None)
    reference = reference_of(artifact.path, None)
    return layer_times(profiled, artifact, reference, device.kind, whole)


SEEN = 64
"""The number of test samples that say which integers an input takes."""


def _ranges(plan: Plan, artifact: Artifact) -> dict[str, Any]:
    """The least and the largest value of each input of integers, such as token ids, or of each
    column of a table (N, columns), such as ids of users and items: random ones beyond them may not
    exist."""
    seen = leaves(plan.data.test.first(SEEN).x)
    if len(seen) != len(artifact.inputs):
        return {}
    ranges = {
        info.name: _ends(values)
        for info, values in zip(artifact.inputs, seen, strict=True)
        if not values.is_floating_point() and values.numel()
    }
    return {"ranges": ranges} if ranges else {}


def _ends(values: Tensor) -> tuple[Any, Any]:
    if values.ndim != 2 or values.dtype == torch.bool:
        return int(values.min()), int(values.max())
    return values.amin(0).tolist(), values.amax(0).tolist()


def _times_faster(teacher: Samples | None, each: Samples, place: Place) -> Measurement:
    device = place.device
    if teacher is None:
        reason = "the teacher was not measured beside it"
        return unavailable("latency_ratio", reason, device=device.name)
    return ratio(teacher, each, device.name, device.kind)
