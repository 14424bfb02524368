"""A small ONNX model and what describes it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from ssh_server import Server, missing_server, serving

from edgekd.artifact import Artifact, TensorInfo, sha256_of
from edgekd.devices._session import AgentDevice
from edgekd.devices.opening import open_device

SHAPE = (2, 3, 8, 8)


@pytest.fixture(scope="session")
def weights() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)


@pytest.fixture(scope="session")
def onnx_file(tmp_path_factory: pytest.TempPathFactory, weights: np.ndarray) -> Path:
    """A convolution with a batch of two."""
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])],
        "one_convolution",
        [helper.make_tensor_value_info("x", kinds.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", kinds.FLOAT, (2, 4, 8, 8))],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    path = tmp_path_factory.mktemp("onnx") / "convolution.onnx"
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path


@pytest.fixture(scope="session")
def make_artifact() -> Callable[..., Artifact]:
    """An `Artifact` of a file, its input float32 of `SHAPE` unless told otherwise."""

    def make(path: Path, form: str, runtime: str, **more: object) -> Artifact:
        infos = TensorInfo(name="x", shape=SHAPE, dtype="float32")
        values = {
            "path": path, "format": form, "runtime": runtime, "precision": "fp32",
            "target": "x86", "sha256": sha256_of(path), "bytes": path.stat().st_size,
            "inputs": (infos,), "outputs": (), **more,
        }  # fmt: skip
        return Artifact.model_validate(values)

    return make


@pytest.fixture
def artifact(onnx_file: Path, make_artifact: Callable[..., Artifact]) -> Artifact:
    return make_artifact(onnx_file, "onnx", "onnxruntime")


@pytest.fixture
def host() -> Iterator[AgentDevice]:
    device = open_device("host", limit_s=60.0)
    assert isinstance(device, AgentDevice)
    yield device
    device.close()


@pytest.fixture
def inputs() -> np.ndarray:
    """Five samples: two whole batches of two and a half one."""
    return np.random.default_rng(1).normal(size=(5, *SHAPE[1:])).astype(np.float32)


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real OpenSSH server; tests skip without one."""
    pytest.importorskip("asyncssh")
    if missing_server():
        pytest.skip(missing_server())
    with serving(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def board(sshd: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The server as the user's ssh configuration knows it; nothing may stay behind on it."""
    monkeypatch.setenv("HOME", str(sshd.home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    sshd.configure()
    sshd.trust(sshd.host_key)
    yield sshd
    assert sshd.left() == []
