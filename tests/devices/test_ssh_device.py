"""A board over ssh: a real OpenSSH server on this machine, with real runtimes."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from ssh_server import Proxy, Server, missing_server, serving
from waiting import until

from edgekd.devices import session
from edgekd.devices.opening import open_device
from edgekd.devices.session import AgentDevice
from edgekd.errors import InputError, ToolError
from edgekd.values.artifact import Artifact

SHORT = {"protocol": {"seconds": 0.1, "runs": 20, "warmup_s": 0.02, "window_s": 0.02}}


@pytest.fixture
def device(board: Server) -> Iterator[AgentDevice]:
    device = open_device(board.url, limit_s=60.0)
    assert isinstance(device, AgentDevice)
    yield device
    device.close()


def test_a_board_gives_the_hosts_outputs(
    device: AgentDevice, host: AgentDevice, artifact: Artifact, inputs: np.ndarray
) -> None:
    np.testing.assert_array_equal(
        device.infer(artifact, [inputs], {})[0], host.infer(artifact, [inputs], {})[0]
    )
    assert device.name == "ssh://board"
    assert device.kind == "measured"
    assert device.can_run(artifact) == ""


def test_a_test_set_is_streamed_in_batches(
    device: AgentDevice, artifact: Artifact, inputs: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = device.infer(artifact, [inputs], {})[0]
    sent = []
    write = device._transport.write
    monkeypatch.setattr(
        device._transport, "write", lambda there, x: (sent.append(len(x)), write(there, x))
    )
    monkeypatch.setattr(session, "CHUNK_BYTES", 2 * inputs[0].nbytes)
    np.testing.assert_array_equal(device.infer(artifact, [inputs], {})[0], whole)
    assert len(sent) == 3, "two, two and one sample"
    assert max(sent) < 3 * inputs[0].nbytes


def test_a_file_is_uploaded_once_and_again_when_it_was_changed_there(
    board: Server, device: AgentDevice, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Path(device._transport.put(artifact.path))
    assert there.parent.name == artifact.sha256
    assert there.read_bytes() == artifact.path.read_bytes()
    device.close()
    uploads = []
    put = device._transport._put  # type: ignore[attr-defined]
    monkeypatch.setattr(
        device._transport, "_put", lambda *given: (uploads.append(given[2]), put(*given))
    )
    device._transport.put(artifact.path)
    assert uploads == [], "it was there from the session before"
    device.close()
    there.write_bytes(b"rotten")
    device._transport.put(artifact.path)
    assert uploads == [str(there)]
    assert there.read_bytes() == artifact.path.read_bytes()


def test_external_data_keeps_its_name_beside_the_model(
    device: AgentDevice, host: AgentDevice, onnx_file: Path, inputs: np.ndarray, tmp_path: Path,
    make_artifact: Callable[..., Artifact],
) -> None:  # fmt: skip
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(onnx_file))
    split = tmp_path / "a model.onnx"
    onnx.save(
        model, str(split), save_as_external_data=True, location="the weights; $(touch pwned)",
        size_threshold=0,
    )  # fmt: skip
    artifact = make_artifact(split, "onnx", "onnxruntime")
    np.testing.assert_array_equal(
        device.infer(artifact, [inputs], {})[0], host.infer(artifact, [inputs], {})[0]
    )


def test_a_benchmark_on_a_board_says_how_it_was_taken(
    device: AgentDevice, artifact: Artifact
) -> None:
    first, second = device.benchmark([artifact, artifact], SHORT, quick=True)
    assert len(first.windows_ms) == len(second.windows_ms) >= 5
    assert "," not in first.conditions["affinity"]
    assert first.peak_memory_bytes is not None
    assert first.cold_ms is not None
    assert not first.invalid


def test_a_command_runs_there_within_its_limit(board: Server, device: AgentDevice) -> None:
    code, out, err = device.execute(
        ["sh", "-c", "echo $1; echo bad >&2; exit 3", "x", "a b;$c"], 20
    )
    assert (code, out, err) == (3, "a b;$c\n", "bad")
    assert device.execute(["no-such-builder"], 20)[0] == 127
    assert device.execute(["sh", "-c", "kill -SEGV $$"], 20)[0] == 128 + 11
    code, _, _ = device.execute(["sh", "-c", "sleep 300 & sleep 300"], 1)
    assert code == 124
    until(lambda: not [one for one in board.running() if "sleep 300" in one], "it is killed")


def test_a_builder_gets_a_copy_and_its_file_comes_back(device: AgentDevice, tmp_path: Path) -> None:
    source = tmp_path / "a model's name.onnx"
    source.write_bytes(b"weights")
    there = device.send(source)
    assert Path(there).read_bytes() == b"weights"
    assert device.execute(["cp", there, f"{there}.engine"], 20) == (0, "", "")
    device.fetch(f"{there}.engine", tmp_path / "model.engine")
    assert (tmp_path / "model.engine").read_bytes() == b"weights"
    with pytest.raises(ToolError, match="No such file"):
        device.fetch(f"{there}.gone", tmp_path / "gone")
    assert not (tmp_path / "gone").exists()


def test_a_lost_connection_is_made_again_where_that_is_safe(
    board: Server, artifact: Artifact, inputs: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Proxy(board.port)
    board.configure(port=proxy.port)
    board.trust(board.host_key, proxy.port)
    monkeypatch.setattr(session, "PAUSES_S", (0.05, 0.2))
    device = open_device(board.url, limit_s=60.0)
    before = device.infer(artifact, [inputs], {})[0]
    proxy.cut()
    np.testing.assert_array_equal(device.infer(artifact, [inputs], {})[0], before)
    assert proxy.connections == 2
    device.close()
    proxy.close()


def test_what_a_login_shell_prints_is_passed_over(
    sshd: Server, board: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekd.devices.ssh import connection

    plain = connection.command_line
    monkeypatch.setattr(connection, "command_line", lambda *given: f"echo Welcome; {plain(*given)}")
    device = open_device(board.url, limit_s=60.0)
    assert isinstance(device, AgentDevice)
    assert device.hello().machine == os.uname().machine
    device.close()


def test_what_dead_sessions_left_is_removed(board: Server) -> None:
    dead = board.cache / "sessions" / "0123"
    dead.mkdir(parents=True)
    (dead / "upload-1.part").write_bytes(b"half")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (dead / ".keeper").write_text(f"{gone.pid}\n")
    device = open_device(board.url, limit_s=60.0)
    assert isinstance(device, AgentDevice)
    device.hello()
    assert not dead.exists()
    assert len(list((board.cache / "sessions").iterdir())) == 1, "its own"
    device.close()


def test_an_agent_in_ssh_agent_is_used(board: Server, tmp_path: Path) -> None:
    """A key that no file here has: only ssh-agent does."""
    socket = tmp_path / "agent.sock"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    try:
        until(socket.exists, "ssh-agent is there")
        environment = {**os.environ, "SSH_AUTH_SOCK": str(socket)}
        subprocess.run(["ssh-add", "-q", str(board.user_key)], env=environment, check=True)
        config = board.home / ".ssh" / "config"
        lines = config.read_text().splitlines()
        config.write_text("\n".join(line for line in lines if "IdentityFile" not in line) + "\n")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SSH_AUTH_SOCK", str(socket))
            device = open_device(board.url, limit_s=60.0)
            assert isinstance(device, AgentDevice)
            assert device.hello().cores == os.cpu_count()
            device.close()
    finally:
        agent.terminate()
        agent.wait()


def test_external_data_outside_of_the_models_folder_is_refused(
    device: AgentDevice, onnx_file: Path, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    (tmp_path / "inside").mkdir()
    split = tmp_path / "inside" / "model.onnx"
    model = onnx.load(str(onnx_file))
    onnx.save(model, str(split), save_as_external_data=True, location="weights", size_threshold=0)
    model = onnx.load(str(split), load_external_data=False)
    model.graph.initializer[0].external_data[0].value = "../../../etc/passwd"
    split.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="external data is outside its folder"):
        device.probe(split, "onnxruntime", {})


APPLETS = ("cat", "find", "mkdir", "mv", "rm", "sh", "sha256sum", "sleep", "tail", "timeout",
           "touch", "uname", "wc", "df")  # fmt: skip


def test_a_board_with_nothing_but_busybox_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, artifact: Artifact, inputs: np.ndarray
) -> None:
    busybox = shutil.which("busybox")
    if missing_server() or not busybox:
        pytest.skip(missing_server() or "no busybox here: apt install busybox-static")
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in APPLETS:
        (tools / name).symlink_to(busybox)
    with serving(tmp_path / "sshd", f"SetEnv SHLVL=1 PATH={tools}") as server:
        monkeypatch.setenv("HOME", str(server.home))
        device = open_device(server.url, limit_s=60.0)
        assert device.infer(artifact, [inputs], {})[0].shape == (5, 4, 8, 8)
        assert device.execute(["sleep", "60"], 1)[0] == 124
        device.close()
        assert server.left() == []
