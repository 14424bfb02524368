"""Memory measurements."""

from pathlib import Path

from edgekd.devices import Samples
from edgekd.measure.meters.memory import memory_measurements
from edgekd.values.artifact import Artifact


def samples(peak: int | None, **more: str) -> Samples:
    return Samples((), None, peak, {}, **more)  # type: ignore[arg-type]


def test_a_peak_is_measured_bytes() -> None:
    (found,) = memory_measurements(samples(4096), "host")
    assert (found.metric, found.value, found.kind) == ("peak_memory_bytes", 4096.0, "measured")


def test_a_missing_peak_is_none_with_its_reason() -> None:
    (found,) = memory_measurements(samples(None, memory_reason="can't be reset"), "host")
    assert (found.value, found.kind, found.reason) == (None, "unavailable", "can't be reset")
    (silent,) = memory_measurements(samples(None), "host")
    assert silent.reason == "the device did not report it"


def test_what_the_compiler_planned_is_an_estimate() -> None:
    artifact = Artifact(
        path=Path("m.so"), format="tvm-so", runtime="tvm", precision="fp32", target="x86",
        sha256="", bytes=1, inputs=(), outputs=(), facts={"planned_memory_bytes": 1000},
    )  # fmt: skip
    planned = memory_measurements(samples(1), "host", artifact=artifact)[1]
    assert (planned.metric, planned.value, planned.kind) == (
        "planned_memory_bytes", 1000.0, "estimated",
    )  # fmt: skip
