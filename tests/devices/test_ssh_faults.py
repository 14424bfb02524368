"""Faults of a board over ssh: one clear error, exit code 3, and nothing left on either side."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from ssh_server import Proxy, Server, all_processes, command_of, free_port, kill, new_key
from waiting import until

from edgekd.devices import session
from edgekd.devices.opening import open_device
from edgekd.devices.session import AgentDevice
from edgekd.devices.ssh import open_ssh
from edgekd.errors import EdgekdError, InputError, ToolError
from edgekd.values.artifact import Artifact


@pytest.fixture
def told(edgekd: Callable[..., tuple[int, str, str]]) -> Callable[..., str]:
    """Runs the command line, which has to fail with that exit code, and returns its errors."""

    def run(*arguments: str, code: int = 3) -> str:
        ended, _, said = edgekd(*arguments)
        assert ended == code, said
        assert said.count("error: ") == 1, said
        return said

    return run


@contextmanager
def opened(url: str, **session: object) -> Iterator[AgentDevice]:
    """A device that is closed again."""
    device = open_device(url, **{"limit_s": 60.0, **session})
    assert isinstance(device, AgentDevice)
    try:
        yield device
    finally:
        device.close()


@pytest.fixture
def runtime(bare_python: Path) -> Iterator[Callable[[str], Path]]:
    """A Python whose `onnxruntime` does that when a model is loaded, or when `on_import`."""
    (site,) = bare_python.parent.parent.glob("lib/python3*/site-packages")
    package = site / "onnxruntime"

    def make(body: str, on_import: bool = False) -> Path:
        package.mkdir()
        lines = ["import ctypes, os, signal, sys, time"]
        lines += [body] if on_import else ["def get_available_providers():", f"    {body}"]
        (package / "__init__.py").write_text("\n".join(lines))
        return bare_python

    yield make
    if package.exists():
        shutil.rmtree(package)


@pytest.fixture
def large(tmp_path: Path, make_artifact: Callable[..., Artifact]) -> Artifact:
    """A file of 4 MB that no runtime gets to see."""
    path = tmp_path / "large.tflite"
    path.write_bytes(np.random.default_rng(0).bytes(4 << 20))
    return make_artifact(path, "tflite", "litert")


def test_a_refused_connection(board: Server, onnx_file: Path, told: Callable[..., str]) -> None:
    board.configure(port=free_port())
    said = told("bench", str(onnx_file), "--device", board.url)
    assert "ssh://board: connection refused" in said
    assert "hint: is the board's ssh server running" in said


def test_a_name_that_is_no_host(board: Server, told: Callable[..., str], onnx_file: Path) -> None:
    said = told("bench", str(onnx_file), "--device", "ssh://no-such-board.invalid")
    assert "ssh://no-such-board.invalid: unknown host" in said


def test_an_unknown_host_key_is_shown_and_not_accepted(
    board: Server, onnx_file: Path, told: Callable[..., str]
) -> None:
    (board.home / ".ssh" / "known_hosts").write_text("")
    said = told("bench", str(onnx_file), "--device", board.url)
    shown = subprocess.run(
        ["ssh-keygen", "-lf", str(board.host_key)], capture_output=True, text=True
    )
    assert f"its host key ({shown.stdout.split()[1]}) is not known" in said
    assert f"ssh-keyscan -p {board.port} 127.0.0.1 >> ~/.ssh/known_hosts" in said


def test_a_changed_host_key_is_refused(
    board: Server, onnx_file: Path, told: Callable[..., str], tmp_path: Path
) -> None:
    board.trust(new_key(tmp_path / "another"))
    said = told("bench", str(onnx_file), "--device", board.url)
    assert "differs from the known one" in said
    assert f"ssh-keygen -R '[127.0.0.1]:{board.port}'" in said


@pytest.mark.parametrize("line", ["UserKnownHostsFile none", "StrictHostKeyChecking no"])
def test_no_configuration_switches_the_check_of_host_keys_off(board: Server, line: str) -> None:
    config = board.home / ".ssh" / "config"
    config.write_text(f"{line}\nGlobalKnownHostsFile /dev/null\n{config.read_text()}")
    (board.home / ".ssh" / "known_hosts").write_text("")
    with opened(board.url) as device, pytest.raises(ToolError, match=r"host key .* is not known"):
        device.hello()


def test_a_wrong_user_key(
    board: Server, onnx_file: Path, told: Callable[..., str], tmp_path: Path
) -> None:
    config = board.home / ".ssh" / "config"
    config.write_text(
        config.read_text().replace(str(board.user_key), str(new_key(tmp_path / "other")))
    )
    said = told("bench", str(onnx_file), "--device", board.url)
    assert "the board accepts none of your keys" in said
    assert "ssh-copy-id board" in said


def test_a_board_without_python(board: Server, onnx_file: Path, told: Callable[..., str]) -> None:
    said = told("bench", str(onnx_file), "--device", board.url_with("/nowhere/python3"))
    assert "no Python 3.8 or newer there ('/nowhere/python3')" in said
    assert "apt install python3" in said


def test_a_python_that_is_too_old_is_not_used(board: Server, tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text(f'#!/bin/sh\nexec {sys.executable} -c "raise SystemExit(1)"\n')
    old.chmod(0o755)
    with opened(board.url_with(old)) as device, pytest.raises(ToolError, match=r"no Python 3\.8"):
        device.hello()


def test_a_board_without_the_runtime(
    board: Server, bare_python: Path, onnx_file: Path, artifact: Artifact, told: Callable[..., str]
) -> None:
    said = told("bench", str(onnx_file), "--device", board.url_with(bare_python))
    assert "no onnxruntime" in said
    assert "hint: pip install onnxruntime" in said
    with opened(board.url_with(bare_python)) as device:
        assert (
            device.can_run(artifact) == "ssh://board has no onnxruntime (pip install onnxruntime)"
        )


def test_a_folder_that_an_uninstall_left_behind_is_no_runtime(
    board: Server, runtime: Callable[..., Path], artifact: Artifact
) -> None:
    python = runtime("pass")
    (code,) = python.parent.parent.glob("lib/python3*/site-packages/onnxruntime/__init__.py")
    code.unlink()
    with opened(board.url_with(python)) as device:
        assert device.hello().runtimes["onnxruntime"] == ""
        assert (
            device.can_run(artifact) == "ssh://board has no onnxruntime (pip install onnxruntime)"
        )


@pytest.mark.parametrize("body", ["raise AttributeError('numpy 2')", "import no_such_module"])
def test_a_runtime_that_does_not_import_is_no_fault_of_the_file(
    board: Server,
    runtime: Callable[..., Path],
    onnx_file: Path,
    told: Callable[..., str],
    body: str,
) -> None:
    url = board.url_with(runtime(body, on_import=True))
    said = told("bench", str(onnx_file), "--device", url)
    assert "onnxruntime can't be imported: n" in said.lower()
    assert "hint: pip install onnxruntime" in said


@pytest.mark.parametrize("how", ["small disk", "file size limit"])
def test_a_board_without_space(
    board: Server, large: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A tmpfs of 1 MB where this user may mount one; a limit on file sizes anywhere."""
    from edgekd.devices.ssh import connection

    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if how == "small disk" and subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    if how == "file size limit":
        plain = connection.command_line
        limited = "trap '' XFSZ; ulimit -f 1000; "
        monkeypatch.setattr(connection, "command_line", lambda *x: limited + plain(*x))
    try:
        with opened(f"ssh://board?cache={disk}&python={sys.executable}") as device:
            with pytest.raises(ToolError, match=r"no space left on the board: 4\.2 MB are needed"):
                device.probe(large.path, "litert", {})
            assert not list(disk.rglob("*.part"))
        until(lambda: not list((disk / "sessions").iterdir()), "the session's folder is removed")
        assert [path for path in disk.rglob("*") if path.is_file()] == []
    finally:
        if how == "small disk":
            subprocess.run(["umount", str(disk)], check=True)


def test_a_cache_that_can_not_be_written(board: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        opened(f"ssh://board?cache={tmp_path}/file/in") as device,
        pytest.raises(
            ToolError, match=r"no writable folder for files there: .*Not a directory"
        ) as caught,
    ):
        device.hello()
    assert "?cache=" in caught.value.hint


@pytest.mark.parametrize("times", [1, 1000])
def test_a_cut_in_the_middle_of_an_upload(
    board: Server, large: Artifact, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Cut once, it is made good; cut each time, it is an error."""
    large.path.write_bytes(np.random.default_rng(times).bytes(4 << 20))
    proxy = Proxy(board.port, after=1 << 20, times=times)
    board.configure(port=proxy.port)
    board.trust(board.host_key, proxy.port)
    monkeypatch.setattr(session, "PAUSES_S", (0.05, 0.05))
    error = InputError if times == 1 else ToolError
    words = "litert can't load it" if times == 1 else "the connection was lost"
    with opened(board.url) as device, pytest.raises(error, match=words):
        device.probe(large.path, "litert", {})
    assert proxy.connections == (2 if times == 1 else 3)
    proxy.close()


def test_a_cut_in_the_middle_of_a_benchmark_is_final(board: Server, artifact: Artifact) -> None:
    ticks = []

    def cut(seconds: float) -> None:
        ticks.append(seconds)
        board.cut()

    long = {"protocol": {"seconds": 60, "warmup_s": 0.0, "window_s": 0.1, "limit_s": 0}}
    with (
        opened(board.url, progress=cut) as device,
        pytest.raises(
            ToolError, match="lost during a benchmark, whose results are discarded"
        ) as caught,
    ):
        device.benchmark([artifact], long, quick=True)
    assert ticks
    assert caught.value.hint == "run it again"
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    "body",
    ["time.sleep(600)", "ctypes.PyDLL(None).sleep(600)"],
    ids=["hangs", "hangs and holds the interpreter's lock"],
)
def test_a_hanging_agent_is_ended(
    board: Server, runtime: Callable[[str], Path], onnx_file: Path, body: str
) -> None:
    with (
        opened(board.url_with(runtime(body)), limit_s=4.0) as device,
        pytest.raises(ToolError, match=r"no reply to 'load' within 4 s on ssh://board"),
    ):
        device.probe(onnx_file, "onnxruntime", {})
    assert board.left() == []


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("print('garbage')", "sent an invalid reply: 'garbage'"),
        ('print(\'{"ok": {"cores": NaN}}\')', "reply is malformed"),
        ("print('[' * 100000)", "sent an invalid reply"),
        ("os.write(1, b'x' * (1 << 22))", "a line of more than 1048576 bytes"),
    ],
)
def test_an_agent_that_prints_garbage(
    board: Server, tmp_path: Path, said: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekd.devices.transport.LONGEST_LINE", 1 << 20)
    fake = tmp_path / "agent.py"
    fake.write_text(f"import os, sys\nfor line in sys.stdin:\n    {said}\n    sys.stdout.flush()\n")
    device = open_ssh(board.url.removeprefix("ssh://"), agent=fake, limit_s=20.0)
    with pytest.raises(ToolError, match=message):
        device.hello()
    device.close()


def test_words_of_a_board_hold_no_control_characters(board: Server, tmp_path: Path) -> None:
    fake = tmp_path / "agent.py"
    answer = {"error": {"kind": "failed", "message": "\x1b]0;owned\x07 no\n", "hint": 3}}
    fake.write_text(
        f"import sys\nfor line in sys.stdin:\n    print({json.dumps(answer)!r}, flush=True)\n"
    )
    device = open_ssh(board.url.removeprefix("ssh://"), agent=fake, limit_s=20.0)
    with pytest.raises(EdgekdError) as caught:
        device.hello()
    assert caught.value.message == "]0;owned  no"
    assert caught.value.hint == "3"
    device.close()


def test_a_model_that_crashes_the_runtime(
    board: Server, runtime: Callable[[str], Path], onnx_file: Path, told: Callable[..., str]
) -> None:
    body = "os.write(2, b'kernel panic in conv\\n'); os.kill(os.getpid(), signal.SIGSEGV)"
    said = told("bench", str(onnx_file), "--device", board.url_with(runtime(body)))
    assert f"error: {onnx_file}: the runtime crashed (signal 11, SIGSEGV) on ssh://board" in said
    assert "hint: its last output: kernel panic in conv" in said


def test_a_real_model_that_crashes_a_real_runtime(
    board: Server, endless_file: Path, told: Callable[..., str]
) -> None:
    said = told("bench", str(endless_file), "--device", board.url)
    assert f"error: {endless_file}: the runtime crashed (signal 11, SIGSEGV) on ssh://board" in said


CLIENT = """
import sys, time
from edgekd.devices.opening import open_device
from edgekd.errors import EdgekdError
device = open_device(sys.argv[1], limit_s=60.0, progress=lambda s: print("running", flush=True))
print("open", flush=True)
if sys.argv[2] == "idle":
    device.hello()
    print("running", flush=True)
    time.sleep(600)
device.probe(__import__("pathlib").Path(sys.argv[3]), "onnxruntime", {})
"""


@pytest.mark.parametrize("body", ["", "time.sleep(600)", "ctypes.PyDLL(None).sleep(600)"])
def test_nothing_stays_on_the_board_when_the_client_is_killed(
    board: Server, runtime: Callable[[str], Path], onnx_file: Path, body: str
) -> None:
    url = board.url_with(runtime(body)) if body else board.url
    what = "busy" if body else "idle"
    command = [sys.executable, "-c", CLIENT, url, what, str(onnx_file)]
    client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    until(lambda: any("agent.py --pin" in one for one in board.running()), "the agent runs", 60)
    client.send_signal(signal.SIGKILL)
    client.wait()
    client.stdout.close()
    assert board.left() == []


def test_a_killed_agent_is_an_error_that_says_so(
    board: Server, artifact: Artifact, inputs: np.ndarray
) -> None:
    with opened(board.url) as device:
        device.infer(artifact, [inputs], {})
        for pid in all_processes():
            command = command_of(pid)
            if "--pin" in command and any(str(board.cache) in word for word in command):
                kill(pid)
        with pytest.raises(ToolError, match=r"\(signal 9, SIGKILL\)|closed its output"):
            device.infer(artifact, [inputs], {})
        assert len(device.infer(artifact, [inputs], {})[0]) == len(inputs), "a new agent is started"


def test_nothing_listens_on_a_network_port(board: Server, artifact: Artifact) -> None:
    """While an agent runs: the only sockets that listen are those that did before."""

    def listening() -> set[str]:
        rows = [
            row.split()
            for name in ("tcp", "tcp6", "udp", "udp6")
            for row in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
        ]
        own = {
            str(link.readlink()).removeprefix("socket:[").removesuffix("]")
            for pid in all_processes()
            if any(str(board.cache) in word for word in command_of(pid))
            for link in Path(f"/proc/{pid}/fd").iterdir()
            if link.is_symlink() and str(link.readlink()).startswith("socket:")
        }
        return {row[9] for row in rows if row[3] in ("0A", "07") and row[9] in own}

    with opened(board.url) as device:
        device.probe(artifact.path, "onnxruntime", {})
        assert board.running()
        assert listening() == set()
