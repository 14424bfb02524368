import pytest
from synthetic_report import artifact, coral, latencies, raspberry, synthetic_report, x86

from edgekd.report.numbers import (
    bytes_text,
    count_text,
    gains,
    layer_changes,
    lead,
    metric_text,
    percent,
    points,
    times,
)
from edgekd.report.values import LayerCost
from edgekd.values.measurement import Measurement


def test_numbers_read_as_people_write_them() -> None:
    assert [count_text(n) for n in (0, 1234, 78_666, 1_050_000, 2.3e9, None)] == [
        "0", "1,234", "78.7 k", "1.05 M", "2.3 G", "–",  # noqa: RUF001
    ]  # fmt: skip
    assert [bytes_text(n) for n in (0, 512, 78_400, 1_200_000)] == [
        "0 B", "512 B", "78.4 kB", "1.2 MB",
    ]  # fmt: skip
    assert (percent(0.94131), percent(1.0, 1), percent(None)) == ("94.13 %", "100.0 %", "–")  # noqa: RUF001
    assert (points(0.4), points(-0.25), points(0.0)) == ("−0.40 pt", "+0.25 pt", "0.00 pt")  # noqa: RUF001
    assert (times(14.478), times(0.834), times(140.2)) == ("14.5×", "0.834×", "140×")  # noqa: RUF001


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("latency_ms_p50", 0.0941, "0.0941 ms"),
        ("latency_us_p90", 94.1, "94.1 µs"),
        ("peak_memory_bytes", 5.1e6, "5.1 MB"),
        ("memory_mib", 3.25, "3.25 MiB"),
        ("energy_mj", 1.5, "1.5 mJ"),
        ("accuracy", 0.93, "93.00 %"),
        ("accuracy_drop", 0.61, "0.61 pt"),
        ("cycles", 123_456.0, "123,456"),
        ("energy_mj", 0.0, "0 mJ"),
    ],
)
def test_a_metric_is_shown_in_its_own_unit(metric: str, value: float, text: str) -> None:
    assert metric_text(metric, value) == text


def test_gains_are_against_the_baseline_of_the_same_target() -> None:
    target = x86()
    found = gains(synthetic_report(), target, target.artifacts[0])
    assert found.smaller == pytest.approx(4_350_000 / 128_400)
    assert found.faster == pytest.approx(1.361 / 0.094)


def test_a_file_that_was_measured_without_the_baseline_beside_it_has_no_speed_up() -> None:
    report, target = synthetic_report(), x86()
    alone = artifact("a.onnx", 10, measurements=latencies(0.1))
    assert gains(report, target, alone).faster is None


def test_without_a_baseline_size_is_against_the_teacher_and_speed_is_unknown() -> None:
    target = coral()
    found = gains(synthetic_report(), target, target.artifacts[0])
    assert found.smaller == pytest.approx(4_300_000 / 139_000)
    assert found.faster is None
    assert found.p50 is None


def test_the_leading_artifact_is_the_fastest_that_holds_every_budget() -> None:
    report = synthetic_report()
    leading = [lead(report, target) for target in (x86(), raspberry())]
    assert [one.path for one in leading if one] == [
        "artifacts/x86/model.onnx",
        "artifacts/raspberry-pi-5/model.onnx",
    ]
    assert lead(report, x86().model_copy(update={"artifacts": ()})) is None


def test_where_every_artifact_fails_the_most_accurate_leads() -> None:
    wrong = raspberry().artifacts[1]
    files = (
        wrong.model_copy(update={"path": "fast.onnx", "accuracy": 0.6}),
        wrong.model_copy(update={"path": "good.onnx", "accuracy": 0.8, "measurements": ()}),
    )
    leading = lead(synthetic_report(), x86().model_copy(update={"artifacts": files}))
    assert leading is not None
    assert leading.path == "good.onnx"


def test_a_split_layer_is_one_row_and_a_removed_one_has_no_after() -> None:
    def layer(name: str, macs: int) -> LayerCost:
        return LayerCost(name=name, kind="linear", parameters=macs, macs=macs)

    before = [layer("a", 100), layer("b", 50), layer("b2", 40)]
    after = [layer("a.0", 10), layer("a.1", 20), layer("b2", 30), layer("new", 5)]
    changes = [(c.name, c.kind, c.macs_before, c.macs_after) for c in layer_changes(before, after)]
    assert changes == [
        ("a", "linear, split", 100, 30),
        ("b", "linear", 50, None),
        ("b2", "linear", 40, 30),
        ("new", "linear", None, 5),
    ]


def test_a_measurement_of_zero_is_zero_and_not_missing() -> None:
    zero = Measurement(metric="energy_mj", value=0.0, kind="measured", device="host")
    assert artifact("a.onnx", 1, measurements=(zero,)).measurement("energy_mj") is not None
