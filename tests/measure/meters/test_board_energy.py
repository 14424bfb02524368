"""A board's own sensors: read by an agent there, from files that a test writes."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from device_files import write

from edgekd.devices.session import AgentDevice
from edgekd.devices.transport import AGENT, Channel, LocalTransport
from edgekd.errors import InputError, ToolError
from edgekd.measure.meters.board_energy import BoardRecorder, _below
from edgekd.measure.meters.energy import Trace
from edgekd.values.target import Sensors

MONITOR = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
RAILS = Sensors(energy="ina3221", rails=("VDD_GPU_SOC", "VDD_CPU_CV"))


class Rooted(LocalTransport):
    """This machine, but /sys and /proc are read below a folder."""

    def __init__(self, root: Path) -> None:
        import sys

        super().__init__([sys.executable, "-u"], AGENT)
        self._root = root

    def open_channel(self, pin: int) -> Channel:
        return self._open("--root", str(self._root))


@pytest.fixture
def jetson(tmp_path: Path) -> Iterator[AgentDevice]:
    """A board of 20 V: rails of 0.5 A and 0.25 A, and a sum of shunt voltages without current."""
    write(
        tmp_path / MONITOR,
        {
            "in1_label": "VDD_GPU_SOC", "in1_input": 20_000, "curr1_input": 500,
            "in2_label": "VDD_CPU_CV", "in2_input": 20_000, "curr2_input": 250,
            "in7_label": "sum of shunt voltages", "in7_input": 3,
        },
    )  # fmt: skip
    device = AgentDevice("ssh://jetson", "measured", Rooted(tmp_path), limit_s=60.0)
    yield device
    device.close()


def test_the_named_rails_of_a_board_are_summed_over_its_own_clock(jetson: AgentDevice) -> None:
    recorder = BoardRecorder(jetson, RAILS)
    assert recorder.reason == ""
    with recorder:
        begun = recorder.now()
        threading.Event().wait(0.4)
        ended = recorder.now()
    trace = recorder.trace()
    assert isinstance(trace, Trace)
    assert trace.source == "INA3221 VDD_GPU_SOC, VDD_CPU_CV"
    assert ended - begun >= 0.4
    # 20 V times 0.75 A
    assert trace.between(begun, ended) == pytest.approx(15.0 * (ended - begun))


def test_a_counter_of_a_board_wraps_around(tmp_path: Path) -> None:
    zone = tmp_path / "sys/class/powercap/intel-rapl:0"
    write(zone, {"name": "package-0", "energy_uj": 900_000, "max_energy_range_uj": 1_000_000})
    device = AgentDevice("ssh://pc", "measured", Rooted(tmp_path), limit_s=60.0)
    recorder = BoardRecorder(device, Sensors(energy="rapl"))
    with recorder:
        recorder.now()
        write(zone, {"energy_uj": 100_000})  # 200 mJ on
        threading.Event().wait(0.2)
    trace = recorder.trace()
    assert isinstance(trace, Trace)
    assert trace.joules[-1] == pytest.approx(0.2)
    device.close()


def test_a_board_without_the_rail_says_which_it_has(jetson: AgentDevice) -> None:
    recorder = BoardRecorder(jetson, Sensors(energy="ina3221", rails=("VDD_IN",)))
    assert recorder.reason == "no rail VDD_IN; the board has VDD_GPU_SOC, VDD_CPU_CV"
    assert BoardRecorder(jetson, Sensors(energy="rapl")).reason == (
        "no RAPL counter below ssh://jetson/sys/class/powercap"
    )
    assert BoardRecorder(jetson, Sensors()).reason == "the target has no energy sensor"


def test_a_sensor_that_fails_on_the_way_is_no_number(jetson: AgentDevice, tmp_path: Path) -> None:
    recorder = BoardRecorder(jetson, RAILS)
    with recorder:
        recorder.now()
        (tmp_path / MONITOR / "curr2_input").write_text("error\n")
        threading.Event().wait(0.2)
    assert recorder.trace() == f"ssh://jetson could not always read /{MONITOR}/curr2_input"


def test_a_board_tells_its_sensors_and_only_system_files(jetson: AgentDevice) -> None:
    assert jetson.hello().sensors == {"ina3221": "VDD_GPU_SOC, VDD_CPU_CV"}
    for path in ("/etc/passwd", "/sys/../etc/passwd"):
        with pytest.raises(InputError, match="only files below /sys and /proc can be read"):
            jetson.look([path])


@pytest.mark.parametrize("name", ["/etc/x", "/sys/../../x", "/sys/a b", "/sys/" + "x" * 300])
def test_a_board_can_not_say_where_files_are_written_here(tmp_path: Path, name: str) -> None:
    with pytest.raises(ToolError, match="invalid path of a sensor's file:"):
        _below(tmp_path, name)
