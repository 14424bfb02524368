"""What a board may say that its schema alone does not refuse."""

from typing import Any

import pytest

from edgekd.devices.replies import Benchmarked, Cold, Loaded, Looked, Recorded, checked
from edgekd.devices.samples import samples_of
from edgekd.errors import ToolError
from edgekd.measure.meters.board_energy import BoardRecorder
from edgekd.values.target import Sensors

ZONE = "/sys/class/powercap/intel-rapl:0"
RAPL = {f"{ZONE}/name": "package-0", f"{ZONE}/energy_uj": "5", f"{ZONE}/max_energy_range_uj": "9"}
COLD = Cold(load_ns=1, first_ns=1, peak_bytes=1, baseline_bytes=1)


class Board:
    """A device of which only the sensors' files are asked for."""

    name = "ssh://board"

    def __init__(self, files: dict[str, str]) -> None:
        self.files = files

    def look(self, patterns: object) -> dict[str, str]:
        return checked(Looked, {"files": self.files}, self.name).files


def benchmarked(windows: list[list[int]], spans: int) -> Benchmarked:
    counts = [[1 for _ in windows]]
    told = {
        "windows_ns": [windows],
        "spans_ns": [[(0, 1)] * spans],
        "counts": counts,
        "settled": [1],
    }
    return checked(Benchmarked, {**told, "before": {}, "after": {}}, "ssh://board")


@pytest.mark.parametrize(
    ("windows", "spans", "message"),
    [
        ([[5], []], 2, "an empty window"),
        ([[5], [5, 0]], 2, "a run that took no time"),
        ([[5], [5]], 3, "2 windows but the times of 3"),
        ([[5], [5, 6]], 2, "more runs than it counted"),
    ],
)
def test_windows_that_can_not_be_are_refused(
    windows: list[list[int]], spans: int, message: str
) -> None:
    loaded = Loaded(model=0, inputs=(), outputs=())
    with pytest.raises(ToolError, match=message):
        samples_of(benchmarked(windows, spans), 0, loaded, COLD, {}, True, "model")


@pytest.mark.parametrize("name", [ZONE, "/sys/class/powercap/"])
def test_a_sensors_file_that_is_a_folder_too_is_refused(name: str) -> None:
    board: Any = Board({name: "1", **RAPL})
    with pytest.raises(ToolError, match="the board: the path of a sensor's file can't be"):
        BoardRecorder(board, Sensors(energy="rapl"))


@pytest.mark.parametrize("number", ["²", "", "-"])
def test_a_reading_that_is_not_a_number_becomes_a_reason(number: str) -> None:
    board: Any = Board({**RAPL, f"{ZONE}/energy_uj": number})
    assert "energy_uj: not a number" in BoardRecorder(board, Sensors(energy="rapl")).reason


def test_a_rails_name_has_no_control_characters() -> None:
    monitor = "/sys/bus/i2c/drivers/ina3221/1/hwmon/hwmon1"
    board: Any = Board({f"{monitor}/in1_label": "\x1b[31mVDD", f"{monitor}/curr1_input": "1"})
    reason = BoardRecorder(board, Sensors(energy="ina3221", rails=("VDD_IN",))).reason
    assert reason == "no rail VDD_IN; the board has [31mVDD"


def test_a_malformed_answer_is_named_without_control_characters() -> None:
    with pytest.raises(ToolError) as caught:
        checked(Looked, {"files": {"\x1b]0;owned": 5}}, "ssh://board")
    assert "malformed: files. ]0;owned: Input should be" in caught.value.message


def test_a_number_that_no_counter_holds_is_malformed() -> None:
    with pytest.raises(ToolError, match=r"malformed: points\.0\.1\.0: Input should be less than"):
        checked(Recorded, {"points": [(0, [10**400])]}, "ssh://board")
