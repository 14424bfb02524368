"""Samples per second of copies that run side by side, each counted in the same windows."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from edgekd.backends.onnx.export import to_onnx, write_onnx
from edgekd.benchmark.files import Wanted, bench_files
from edgekd.benchmark.text import bench_lines
from edgekd.benchmark.throughput import Load, throughputs
from edgekd.cli import app
from edgekd.devices import Streamed, agent
from edgekd.devices.opening import open_device
from edgekd.errors import MissingRuntime
from edgekd.measure.meters.throughput import throughput_measurement
from edgekd.quant.export import export_graph
from edgekd.values.artifact import Artifact, TensorInfo


class Clock:
    """A clock that each run moves on by a fixed time."""

    def __init__(self, step: int) -> None:
        self.now, self.step = 0, step

    def run(self) -> None:
        self.now += self.step


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    def start(step: int) -> Clock:
        made = Clock(step)
        monkeypatch.setattr(agent.time, "perf_counter_ns", lambda: made.now)
        return made

    return start


def test_a_run_that_spans_two_windows_counts_in_parts(clock: Any) -> None:
    # Runs of 30 ns: [90, 120] lies with 20/30 behind the start at 100, [180, 210] with 20/30
    # before the end of the first window at 200.
    counts = agent.stream_counts(clock(30).run, start=100, length=100, windows=2)
    assert counts == pytest.approx([20 / 30 + 2 + 20 / 30, 10 / 30 + 3])


def test_a_run_longer_than_a_window_counts_in_all_that_it_spans(clock: Any) -> None:
    counts = agent.stream_counts(clock(250).run, start=100, length=100, windows=4)
    assert counts == pytest.approx([0.4, 0.4, 0.4, 0.4])


def test_counts_before_the_start_are_left_out(clock: Any) -> None:
    assert agent.stream_counts(clock(10).run, start=1000, length=100, windows=1) == [10.0]


def test_a_stream_that_begins_too_late_is_a_fault(clock: Any) -> None:
    with pytest.raises(agent.Fault, match="after the moment"):
        agent.stream_counts(clock(10).run, start=0, length=100, windows=1)


def streamed(**changes: Any) -> Streamed:
    table = {"runs_per_second": (10.0, 12.0, 14.0), "samples_per_run": 2, "window_s": 1.0,
             "conditions": {"governor": "performance"}}  # fmt: skip
    return Streamed(**{**table, **changes})


def test_samples_per_second_are_runs_times_the_batch_with_an_interval_over_windows() -> None:
    found = throughput_measurement(streamed(), 4, "host", "measured", quick=False)
    assert (found.value, found.kind, found.samples) == (24.0, "measured", (20.0, 24.0, 28.0))
    assert found.ci is not None
    assert 20.0 <= found.ci[0] < 24.0 < found.ci[1] <= 28.0
    assert found.protocol == "full: 3 windows of 1 s, batch 2, 4 processes"


def test_a_run_that_throttled_has_no_throughput() -> None:
    found = throughput_measurement(
        streamed(invalid="the board throttled"), 1, "board", "measured", quick=True
    )
    assert (found.value, found.reason) == (None, "the board throttled")


class Board:
    """A device with two processors whose copies get in each other's way."""

    name, kind = "board", "measured"

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails
        self.asked: list[tuple[Any, int]] = []

    def hello(self) -> Any:
        return type("Hello", (), {"cores": 2})()

    def stream(self, artifact: Artifact, options: Any, streams: int, *, quick: bool) -> Streamed:
        if self.fails:
            raise MissingRuntime("it tells no times")
        self.asked.append((options.get("shapes"), streams))
        batch = (options.get("shapes") or {"x": [1]})["x"][0]
        return streamed(runs_per_second=(100.0 * streams**0.5 / batch,), samples_per_run=batch)


def artifact_of(first: int) -> Artifact:
    info = TensorInfo(name="x", shape=(first, 4), dtype="float32")
    return Artifact(path=Path("model.onnx"), format="onnx", runtime="onnxruntime", target="x86",
                    precision="fp32", sha256="", bytes=1, inputs=(info,), outputs=())  # fmt: skip


def test_an_open_batch_and_all_processors_are_measured_by_default_in_turns() -> None:
    board = Board()
    rows, notes = throughputs(board, artifact_of(-1), {}, Load(), quick=False)  # type: ignore[arg-type]
    assert [(row.batch, row.streams) for row in rows] == [(1, 1), (1, 2), (8, 1), (8, 2)]
    assert board.asked[:4] == [({"x": [b, 4]}, s) for b in (1, 8) for s in (1, 2)]
    assert board.asked[:4] * 3 == board.asked, "three rounds, one combination after the other"
    assert notes == ()
    last = rows[-1]
    assert last.samples_per_second.value == pytest.approx(141.42, abs=0.01)
    assert last.batch_ms == pytest.approx(2 * 8 / 141.42 * 1000, rel=1e-4)


def test_a_fixed_batch_is_the_only_one_and_the_note_says_so() -> None:
    board = Board()
    rows, notes = throughputs(board, artifact_of(1), {"threads": 2}, Load(), quick=True)  # type: ignore[arg-type]
    assert [(row.batch, row.streams, row.threads) for row in rows] == [(1, 1, 2)]
    assert notes == ("its batch is fixed at 1: no throughput with 8",)


def test_a_device_without_times_gives_the_reason() -> None:
    load = Load(batches=(1,), streams=(1,))
    ((row,), _) = throughputs(Board(fails=True), artifact_of(-1), {}, load, quick=True)  # type: ignore[arg-type]
    assert (row.samples_per_second.value, row.batch_ms) == (None, None)
    assert row.samples_per_second.reason == "it tells no times"


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    torch.manual_seed(0)
    example = torch.zeros(1, 64)
    network = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64)).eval()
    write_onnx(to_onnx(export_graph(network, example), example), path)
    return path


@pytest.mark.slow
def test_two_streams_of_a_real_file_run_at_once(onnx_file: Path) -> None:
    with_load = Wanted(load=Load(batches=(1, 4), streams=(1, 2)))
    host = open_device("host")
    try:
        (result,) = bench_files([onnx_file], None, host, quick=True, wanted=with_load)
    finally:
        host.close()
    assert [(row.batch, row.streams) for row in result.throughput] == [
        (1, 1), (1, 2), (4, 1), (4, 2),
    ]  # fmt: skip
    for row in result.throughput:
        assert row.samples_per_second.kind == "measured"
        assert row.samples_per_second.value > 1000
        assert f"batch {row.batch}, {row.streams} processes" in row.samples_per_second.protocol
    one, _, four, _ = (row.samples_per_second.value for row in result.throughput)
    assert four > one, "a batch of four saves calls"
    text = "\n".join(bench_lines([result]))
    assert "model.onnx: throughput (measured)" in text
    assert json.loads(result.model_dump_json())["throughput"][3]["streams"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--streams", "2"], "it is for throughput"),
        (["--throughput", "--batches", "0"], "'0' is not a list of numbers"),
        (["--throughput", "--streams", "1,x"], "'1,x' is not a list of numbers"),
    ],
)
def test_wrong_numbers_are_refused(onnx_file: Path, options: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["bench", str(onnx_file), *options])
    assert done.exit_code == 2 or message in str(done.exception)
    assert message in done.output or message in str(done.exception)
