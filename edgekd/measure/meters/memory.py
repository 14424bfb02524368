"""Memory: the peak while a model runs, and what its compiler planned."""

from edgekd.devices import Samples
from edgekd.values.artifact import Artifact
from edgekd.values.measurement import Kind, Measurement


def memory_measurements(
    samples: Samples, device: str, kind: Kind = "measured", artifact: Artifact | None = None
) -> list[Measurement]:
    """`peak_memory_bytes`, and `planned_memory_bytes` if the artifact's compiler reported it.

    The peak is resident memory above the process's own baseline, from before the model is loaded
    until after its first inferences (VmHWM, reset through clear_refs).
    """
    peak = samples.peak_memory_bytes
    reason = ""
    if peak is None:
        reason = samples.memory_reason or samples.invalid or "the device did not report it"
    measured = Measurement(
        metric="peak_memory_bytes",
        value=None if peak is None else float(peak),
        kind="unavailable" if peak is None else kind,
        device=device,
        reason=reason,
        protocol="VmHWM above the baseline, in a separate process",
    )
    planned = artifact.facts.get("planned_memory_bytes") if artifact else None
    if planned is None:
        return [measured]
    plan = Measurement(
        metric="planned_memory_bytes",
        value=float(planned),
        kind="estimated",
        device=device,
        protocol="the compiler's memory plan for activations",
    )
    return [measured, plan]
