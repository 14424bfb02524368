"""Energy from fake sensors and from traces worked out by hand."""

import time
from pathlib import Path

import numpy as np
import pytest
from device_files import write

from edgekd.devices import Samples
from edgekd.measure.meters.energy import (
    Ina3221,
    Rapl,
    Recorder,
    Trace,
    energy_measurement,
    estimated_energy,
    open_source,
)
from edgekd.values.target import Sensors


@pytest.fixture
def rapl(tmp_path: Path) -> Path:
    """Two packages, one with cores (part of it) and DRAM (beside it)."""
    zones = {"intel-rapl:0": "package-0", "intel-rapl:0:0": "core", "intel-rapl:0:1": "dram",
             "intel-rapl:1": "package-1", "intel-rapl:2": "psys"}  # fmt: skip
    for zone, name in zones.items():
        write(
            tmp_path / "sys/class/powercap" / zone,
            {"name": name, "energy_uj": 900_000, "max_energy_range_uj": 1_000_000},
        )
    return tmp_path


@pytest.fixture
def ina(tmp_path: Path) -> Path:
    """A Jetson's monitor: two rails, and a sum of shunt voltages with a label but no current."""
    hwmon = tmp_path / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
    write(
        hwmon,
        {
            "in1_label": "VDD_GPU_SOC", "in1_input": 20_000, "curr1_input": 500,
            "in2_label": "VDD_CPU_CV", "in2_input": 20_000, "curr2_input": 250,
            "in7_label": "sum of shunt voltages", "in7_input": 3,
        },
    )  # fmt: skip
    return tmp_path


def counter(root: Path, zone: str, value: int) -> None:
    write(root / "sys/class/powercap" / zone, {"energy_uj": value})


def test_rapl_sums_packages_and_dram_and_wraps_around(rapl: Path) -> None:
    source, reason = open_source(Sensors(energy="rapl"), rapl)
    assert isinstance(source, Rapl)
    assert reason == ""
    assert source.name == "RAPL package-0, dram, package-1"
    counter(rapl, "intel-rapl:0", 950_000)  # 50 mJ
    counter(rapl, "intel-rapl:0:1", 900_001)  # 1 uJ
    counter(rapl, "intel-rapl:1", 100_000)  # wrapped: 200 mJ
    counter(rapl, "intel-rapl:0:0", 999_999)  # within the package: not counted again
    assert source.joules(0.0) == pytest.approx(0.250001)
    counter(rapl, "intel-rapl:1", 150_000)
    assert source.joules(1.0) == pytest.approx(0.300001)


def test_ina3221_integrates_the_named_rails(ina: Path) -> None:
    sensors = Sensors(energy="ina3221", rails=("VDD_GPU_SOC", "VDD_CPU_CV"))
    source, _ = open_source(sensors, ina)
    assert isinstance(source, Ina3221)
    assert source.watts() == 15.0  # 20 V times 0.5 A and 0.25 A
    assert source.joules(10.0) == 0.0
    write(ina / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3", {"curr2_input": 750})
    assert source.joules(12.0) == 40.0  # two seconds from 15 to 25 W


def test_rails_that_the_board_does_not_have_are_named(ina: Path) -> None:
    sensors = Sensors(energy="ina3221", rails=("VDD_IN",))
    source, reason = open_source(sensors, ina)
    assert source is None
    assert reason == "no rail VDD_IN; the board has VDD_GPU_SOC, VDD_CPU_CV"


@pytest.mark.parametrize(
    ("sensors", "message"),
    [
        (Sensors(), "the target has no energy sensor"),
        (Sensors(energy="rapl"), "no RAPL counter below"),
        (Sensors(energy="ina3221", rails=("VDD_IN",)), "no INA3221 rail below"),
    ],
)
def test_no_sensor_is_a_reason(tmp_path: Path, sensors: Sensors, message: str) -> None:
    source, reason = open_source(sensors, tmp_path)
    assert source is None
    assert message in reason


def test_a_counter_with_nonsense_is_a_reason(rapl: Path) -> None:
    write(rapl / "sys/class/powercap/intel-rapl:0", {"energy_uj": "n/a"})
    source, reason = open_source(Sensors(energy="rapl"), rapl)
    assert source is None
    assert "intel-rapl:0/energy_uj: not a number: 'n/a'" in reason


def run(seconds: float, **more: object) -> Samples:
    """Two windows of `seconds`, a gap between them, 9 timed runs each."""
    spans = ((0.0, seconds), (seconds + 5, 2 * seconds + 5))
    values = {"cold_ms": 1.0, "peak_memory_bytes": None, "conditions": {}, **more}
    return Samples(windows_ms=((1.0,) * 9,) * 2, spans_s=spans, **values)  # type: ignore[arg-type]


# 3 W for 10 s, 100 W in the gap (another model), then 5 W.
STEPS = Trace(np.array([0.0, 10.0, 15.0, 25.0]), np.array([0.0, 30.0, 530.0, 580.0]), "RAPL")


def test_only_the_models_own_windows_are_charged() -> None:
    found = energy_measurement(run(10.0), STEPS, "host")
    assert found.value == pytest.approx(1000 * (30 + 50) / 20)  # ten runs each, one not timed
    assert found.ci == pytest.approx((3000.0, 5000.0))
    assert found.kind == "measured"
    assert "idle power included" in found.protocol


def test_runs_that_are_counted_and_not_told_are_charged() -> None:
    found = energy_measurement(run(10.0, counts=(99, 99)), STEPS, "host")
    assert found.value == pytest.approx(1000 * (30 + 50) / 200)


@pytest.mark.parametrize("seconds", [2.0, 10.0])
def test_energy_end_to_end_never_passes_for_the_models(seconds: float) -> None:
    found = energy_measurement(run(seconds, scope="end-to-end"), STEPS, "host")
    assert found.metric == "end_to_end_energy_mj"


def test_idle_power_is_subtracted_and_said() -> None:
    found = energy_measurement(run(10.0), STEPS, "host", idle_watts=2.0)
    assert found.value == pytest.approx(1000 * (80 - 40) / 20)
    assert "2.000 W idle subtracted" in found.protocol


def test_a_run_that_takes_no_more_than_rest_has_no_energy() -> None:
    found = energy_measurement(run(10.0), STEPS, "host", idle_watts=4.5)
    assert (found.value, found.kind) == (None, "unavailable")
    assert found.reason == "no more power than the 4.500 W measured when idle"


def test_short_runs_and_missing_sensors_give_no_energy() -> None:
    short = energy_measurement(run(2.0), STEPS, "host")
    assert (short.value, short.kind) == (None, "unavailable")
    assert short.reason == "needs 10 s of runs, got 4.0 s"
    without = energy_measurement(run(10.0), "no RAPL counter", "host")
    assert (without.value, without.reason) == (None, "no RAPL counter")
    throttled = energy_measurement(run(10.0, invalid="it throttled"), STEPS, "host")
    assert throttled.reason == "it throttled"


def test_windows_outside_of_the_trace_give_no_energy() -> None:
    found = energy_measurement(run(30.0), STEPS, "host")
    assert found.reason == "outside the recording"


def test_a_recorder_reads_from_its_start_to_its_end(rapl: Path) -> None:
    source, _ = open_source(Sensors(energy="rapl"), rapl)
    assert source is not None
    start = time.monotonic()
    with Recorder(source, period_s=0.001) as recorder:
        counter(rapl, "intel-rapl:0", 950_000)
    trace = recorder.trace()
    assert isinstance(trace, Trace)
    assert trace.seconds[0] >= start
    assert trace.joules[-1] - trace.joules[0] == pytest.approx(0.05)


def test_a_sensor_that_goes_away_makes_the_trace_a_reason(rapl: Path) -> None:
    source, _ = open_source(Sensors(energy="rapl"), rapl)
    assert source is not None
    with Recorder(source, period_s=10.0) as recorder:
        (rapl / "sys/class/powercap/intel-rapl:0/energy_uj").unlink()
    reason = recorder.trace()
    assert isinstance(reason, str)
    assert "No such file" in reason


def test_an_estimate_is_labelled_so_and_worked_out_from_published_energies() -> None:
    found = estimated_energy(1_000_000, 8_000, "int8")
    assert found.kind == "estimated"
    assert found.value == pytest.approx((1e6 * 0.3 + 8000 * 162.5) / 1e9)
    assert "Horowitz" in found.protocol
