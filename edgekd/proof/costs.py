"""What compiled files cost where they run: latency, memory and energy, beside the teacher's."""

from collections.abc import Sequence
from dataclasses import dataclass

from edgekd.artifact import Artifact
from edgekd.measurement import Measurement, unavailable
from edgekd.measuring import measure
from edgekd.meters.doubts import doubts
from edgekd.meters.latency import ratio
from edgekd.plan import Plan
from edgekd.proof.place import Place, options_for
from edgekd.stages import Progress
from edgekd.target import Target

COSTS = ("latency_ms_p50", "latency_ms_p90", "latency_ms_p99", "peak_memory_bytes", "energy_mj")


@dataclass(frozen=True)
class Costs:
    """What was measured of one file, and what speaks against how it was."""

    measurements: tuple[Measurement, ...]
    notes: tuple[str, ...] = ()


def costs_of(
    plan: Plan, target: Target, place: Place, artifacts: Sequence[Artifact], progress: Progress
) -> list[Costs]:
    """Latency, memory and energy of every file that this place can tell them of, interleaved, and
    how many times faster than the first one, the teacher's, each is."""
    device = place.device
    reasons = [place.reason or device.can_run(artifact) for artifact in artifacts]
    runnable = [artifact for artifact, why in zip(artifacts, reasons, strict=True) if not why]
    measured: list[Costs] = []
    if runnable:
        options = [options_for(target, artifact) for artifact in runnable]
        what = f"measure {len(runnable)} files on {device.name}"
        progress(what, 0, 1)
        quick = plan.request.quick
        samples, rows = measure(device, runnable, options, target.sensors, quick=quick)
        measured = [
            Costs(
                (*row, ratio(samples[0], each, device.name, device.kind)),
                doubts(each, after_work=device.name == "host") if device.kind == "measured" else (),
            )
            for row, each in zip(rows, samples, strict=True)
        ]
        progress(what, 1, 1)
    taken = iter(measured)
    return [
        Costs(tuple(unavailable(metric, why, device=device.name) for metric in COSTS))
        if why
        else next(taken)
        for why in reasons
    ]
