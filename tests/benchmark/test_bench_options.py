"""The words of bench's command line, and files that leave their shapes open."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from waiting import until

from edgekd.benchmark.files import Wanted, bench_files
from edgekd.benchmark.options import (
    check_overrides,
    chosen_shapes,
    open_faults,
    options_for,
    parse_affinity,
    parse_pairs,
    parse_shape,
)
from edgekd.cli.bench import _teller
from edgekd.devices.opening import open_device
from edgekd.errors import InputError
from edgekd.values.artifact import TensorInfo
from edgekd.values.target import load_target


def info(name: str, *sizes: int) -> TensorInfo:
    return TensorInfo(name=name, shape=sizes, dtype="float32")


def test_shapes_are_read_with_and_without_names_and_types() -> None:
    assert parse_shape("1x3x224x224").sizes == (1, 3, 224, 224)
    named = parse_shape("ids=1,128:int64")
    assert (named.name, named.sizes, named.dtype) == ("ids", (1, 128), "int64")


@pytest.mark.parametrize(
    ("text", "message"),
    [("1,three", "'1,three' is not a shape"), ("1,0", "has a size of 0"), ("", "is not a shape"),
     ("1,2:int9", "unknown type 'int9'")],
)  # fmt: skip
def test_text_that_is_not_a_shape_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_shape(text)


def test_processors_are_listed_or_ranged() -> None:
    assert parse_affinity("2, 0-1") == [0, 1, 2]
    for text in ("all", "3-1", "²", "0-99999999", ""):
        with pytest.raises(InputError, match=f"'{text}' is not a list of processors"):
            parse_affinity(text)


def test_pairs_are_a_table() -> None:
    assert parse_pairs(["a=1", "b=x=y"], "--o") == {"a": "1", "b": "x=y"}
    with pytest.raises(InputError, match="is not KEY=VALUE"):
        parse_pairs(["a"], "--o")


def test_an_option_goes_to_the_runtimes_that_follow_it() -> None:
    wanted = {"threads": 2, "provider": "cuda", "kernels": "reference"}
    assert options_for("onnxruntime", wanted) == {"threads": 2, "provider": "cuda"}
    assert options_for("litert", wanted) == {"threads": 2, "kernels": "reference"}
    (fault,) = check_overrides(wanted, ["onnxruntime", "tvm"])
    assert str(fault) == "--kernels: no file here runs in litert"


def test_open_sizes_are_asked_for_and_a_batch_is_not() -> None:
    assert open_faults([info("x", -1, 3, 8, 8)], "m") == []
    (fault,) = open_faults([info("x", -1, 3, -1, -1)], "m")
    assert fault.message == "the sizes of input 'x' are open: ?,3,?,?"
    assert fault.hint.startswith("--shape x=1,3,1,1")


def test_a_shape_without_a_name_is_for_the_only_input() -> None:
    one, two = info("a", -1, 4), info("b", -1, 4)
    assert chosen_shapes([one], [parse_shape("2,4")]) == {"a": (2, 4)}
    assert chosen_shapes([one, two], [parse_shape("b=2,4")]) == {"b": (2, 4)}
    closed = TensorInfo(name="c", shape=(1, 32, 32, 3), dtype="float32")
    with pytest.raises(InputError, match=r"'c' is 1,32,32,3, which can't be 1,3,32,32") as caught:
        chosen_shapes([closed], [parse_shape("1,3,32,32")])
    assert "--shape INPUT=1,3,32,32 applies only to the file" in caught.value.hint
    with pytest.raises(InputError, match=r"'a' is \?,4, which can't be 2,4,1"):
        chosen_shapes([one], [parse_shape("a=2,4,1")])
    with pytest.raises(InputError, match="the model has 2 inputs, so --shape has to name one"):
        chosen_shapes([one, two], [parse_shape("2,4")])


def test_an_open_shape_is_refused_and_a_given_one_is_measured(open_onnx: Path) -> None:
    device, target = open_device("host", limit_s=60.0), load_target("x86")
    try:
        with pytest.raises(InputError, match=r"sizes of input 'x' are open: \?,\?"):
            bench_files([open_onnx], target, device, quick=True)
        wanted = Wanted(shapes=(parse_shape("x=1,4"), parse_shape("z=1")))
        with pytest.raises(InputError, match="none of the files has an input 'z'"):
            bench_files([open_onnx], target, device, quick=True, wanted=wanted)
    finally:
        device.close()


def test_the_command_measures_judges_and_draws(open_onnx: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgekd", "bench", str(open_onnx), "--quick"]
    command += ["--shape", "4,250", "--threads", "1", "--affinity", "0"]
    command += ["--budget", "latency_us=0.001", "--plot", "out.svg"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "limit 0.001: fail: above the limit" in done.stdout
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    (table,) = json.loads(done.stdout)
    assert table["inputs"][0]["shape"] == [4, 250]
    assert table["budgets"][0]["verdict"] == "fail"
    rows = {row["metric"]: row for row in table["measurements"]}
    assert rows["latency_ms_p50"]["conditions"]["affinity"] == "0"
    assert len(table["window_medians_ms"]) == len(table["window_starts_s"]) >= 5
    picture = (tmp_path / "out.svg").read_text()
    assert "open.onnx" in picture
    assert "median of a window (ms)" in picture


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "killed"])
def test_nothing_is_left_of_a_measurement_that_was_ended(
    open_onnx: Path, tmp_path: Path, how: signal.Signals
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-m", "edgekd", "bench", str(open_onnx), "--shape", "4,250"]
    command += ["--json"]
    client = subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, "TMPDIR": str(scratch)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        # Ctrl-C counts also where the tests run in the background, which ignores it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    until(lambda: len(agents(scratch)) == 2, "the agent and its watcher run")
    os.killpg(client.pid, how)  # as a terminal does: the agent is in a group of its own
    out, err = client.communicate(timeout=20)
    assert client.returncode == (130 if how == signal.SIGINT else -how)
    assert out == ""
    said = "error: interrupted: the results are discarded\nhint: run it again\n"
    assert err == (said if how == signal.SIGINT else "")
    until(lambda: not agents(scratch) and not list(scratch.iterdir()), "nothing is left")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["open.onnx", "scratch"]


def agents(scratch: Path) -> list[Path]:
    """Processes whose temporary files are in there: the agent and its watcher."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            told = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
            if b"agent.py" in told[0] and f"TMPDIR={scratch}\0".encode() in told[1]:
                found.append(folder)
    return found


def test_progress_is_one_line_on_a_terminal_and_nothing_elsewhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _teller(62.0)(5.2)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    _teller(62.0)(5.2)
    assert capsys.readouterr().err == "\r\033[Kmeasuring: 5 s of about 62 s"
    _teller(0.0)(0.0)
    assert capsys.readouterr().err == "\r\033[K"


def test_all_wrong_options_are_reported_before_anything_runs(
    open_onnx: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "edgekd", "bench", str(open_onnx), "--affinity", "x"]
    command += ["--shape", "0", "--budget", "latency=1", "--accept", "measured"]
    command += ["--plot", "x.png", "--target", "x87", "--meter", "read 'it"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("error:") == 7
    assert "'.png' is not a supported plot format" in done.stderr
    assert "did you mean 'x86'?" in done.stderr
