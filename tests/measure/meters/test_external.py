"""External meters: the lines that they print, and a real process that prints them."""

import signal
import sys
import time
from datetime import datetime

import numpy as np
import pytest
from waiting import until

from edgekd.devices.opening import open_device
from edgekd.errors import InputError, ToolError
from edgekd.measure.meters import external
from edgekd.measure.meters.energy import Trace
from edgekd.measure.meters.external import (
    check_meter,
    open_meter,
    read_nvidia_smi,
    read_watts,
    reader_of,
)

STREAM = "import time\nwhile 1: print({line}, flush=True); time.sleep(0.01)"


def command(body: str) -> str:
    return f'{sys.executable} -c "{body}"'


def test_lines_of_the_interface() -> None:
    assert read_watts("1700000000.5 3.25") == (1700000000.5, 3.25)
    assert read_watts("- , 3.25") == (None, 3.25)
    assert read_watts("# seconds watts") is None
    with pytest.raises(ValueError):
        read_watts("3.25 W now")


def test_lines_of_nvidia_smi() -> None:
    found = read_nvidia_smi("2026/11/21 06:26:33.125, 71.42")
    moment = datetime(2026, 11, 21, 6, 26, 33, 125000).timestamp()
    assert found == (moment, 71.42)
    assert read_nvidia_smi("2026/11/21 06:26:33.125, 71.42 W") == found
    assert read_nvidia_smi("timestamp, power.draw [W]") is None


def test_lines_of_tegrastats() -> None:
    line = (
        "11-21-2026 06:26:33 RAM 3136/7620MB (lfb 5x4MB) SWAP 0/3810MB CPU [3%@1510,off,off] "
        "GR3D_FREQ 0% cpu@46.5C VDD_IN 4912mW/4890mW VDD_CPU_GPU_CV 600mW/590mW "
        "VDD_SOC 1400mW/1401mW"
    )
    assert reader_of("tegrastats:VDD_IN")(line) == (None, 4.912)
    assert reader_of("tegrastats:VDD_CPU_GPU_CV+VDD_SOC")(line) == (None, 2.0)
    assert reader_of("tegrastats")(line) == (None, 6.912)
    with pytest.raises(ValueError, match="no rail VDD_CPU"):
        reader_of("tegrastats:VDD_CPU")(line)


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(InputError, match="unknown format 'joules'"):
        open_meter("true", "joules", open_device("host"))
    with pytest.raises(InputError, match="no command"):
        open_meter(" ", "watts", open_device("host"))
    with pytest.raises(InputError, match="No closing quotation: read 'it"):
        open_meter("read 'it", "watts", open_device("host"))


def test_a_format_without_a_meter_is_refused() -> None:
    check_meter(None, "watts")
    with pytest.raises(InputError, match="there is no meter for the format 'tegrastats:VDD_IN'"):
        check_meter(None, "tegrastats:VDD_IN")


@pytest.mark.parametrize("stamp", ["time.time()", "'-'"])
def test_a_steady_meter_gives_its_watts_in_the_devices_time(stamp: str) -> None:
    meter = open_meter(command(STREAM.format(line=f"{stamp}, 2.5")), "watts", open_device("host"))
    with meter:
        begun = meter.now()
        time.sleep(0.3)
        ended = meter.now()
    trace = meter.trace()
    assert isinstance(trace, Trace)
    assert trace.between(begun, ended) == pytest.approx(2.5 * (ended - begun), rel=1e-3)
    assert np.all(np.diff(trace.seconds) >= 0)
    assert meter._process.returncode is not None, "it ends with the measurement"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("print('3 W')", "printed an unknown line: '3 W'"),
        ("print('- nan')", "printed an unknown line: '- nan'"),
        ("print('inf 2.5')", "printed an unknown line: 'inf 2.5'"),
        ("pass", "ended without a reading"),
    ],
)
def test_a_meter_that_does_not_read_is_a_tools_error(body: str, message: str) -> None:
    with (
        pytest.raises(ToolError, match=message),
        open_meter(command(body), "watts", open_device("host")),
    ):
        pass


def test_a_meter_that_does_not_start_is_a_tools_error() -> None:
    with (
        pytest.raises(ToolError, match="could not be started"),
        open_meter("no-such-meter", "watts", open_device("host")),
    ):
        pass


def test_a_silent_meter_that_is_interrupted_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> bool:
        raise KeyboardInterrupt

    meter = open_meter(command("import time; time.sleep(60)"), "watts", open_device("host"))
    monkeypatch.setattr(meter._first, "wait", interrupt)
    with pytest.raises(KeyboardInterrupt), meter:
        pass
    assert meter._process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("pause", [0.5, 60.0], ids=["late", "never"])
def test_a_reading_behind_the_last_window_is_waited_for_a_while(
    pause: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(external, "LAST_SECONDS", 20.0 if pause < 1 else 0.1)
    body = f"import time; [(print('- 2', flush=True), time.sleep(t)) for t in (0, {pause}, 60)]"
    with open_meter(command(body), "watts", open_device("host")) as meter:
        until(lambda: len(meter._points) == 2, "both readings that come at once")
        ended = meter.now()
    trace = meter.trace()
    assert isinstance(trace, Trace)
    assert (trace.seconds[-1] > ended) == (pause < 1)


def test_a_line_that_is_broken_off_when_the_meter_is_ended_is_passed_over() -> None:
    body = "import sys, time; sys.stdout.write('- 2\\n- 2\\n-'); sys.stdout.flush(); time.sleep(60)"
    with open_meter(command(body), "watts", open_device("host")) as meter:
        until(lambda: len(meter._points) == 2, "both whole lines")
        meter._read_once_more = lambda: None  # type: ignore[method-assign]
    assert isinstance(meter.trace(), Trace)


def test_a_meter_that_goes_wrong_on_the_way_gives_no_energy() -> None:
    body = "print('- 1\\n- 1', flush=True); import time; time.sleep(0.05); print('??', flush=True)"
    meter = open_meter(command(body), "watts", open_device("host"))
    with meter:
        until(lambda: meter._process.poll() is not None, "it has said all")
    assert str(meter.trace()).startswith("the meter printed an unknown line: '??'")
