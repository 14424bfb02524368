"""A small ONNX model and what describes it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from ssh_server import Server, missing_server, serving

from edgekd.devices.emulated.image import GUEST
from edgekd.devices.opening import open_device
from edgekd.devices.session import AgentDevice
from edgekd.values.artifact import Artifact, TensorInfo, sha256_of

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


COARSE, FINE = (0.5, 3), (0.25, -1)  # scale and zero point


@pytest.fixture(scope="session")
def requantize_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One QUANTIZE from int8 (1, 2, 4, 3) in FINE to int8 in COARSE, written with the schema."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    flatbuffers = pytest.importorskip("flatbuffers")

    def tensor(name: str, scale: float, zero_point: int) -> object:
        found = schema.TensorT()
        found.name, found.shape, found.type = name.encode(), [1, 2, 4, 3], schema.TensorType.INT8
        found.quantization = schema.QuantizationParametersT()
        found.quantization.scale, found.quantization.zeroPoint = [scale], [zero_point]
        found.shapeSignature = found.shape
        return found

    code, operator, graph, model = (
        schema.OperatorCodeT(), schema.OperatorT(), schema.SubGraphT(), schema.ModelT(),
    )  # fmt: skip
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.QUANTIZE
    code.version = 2
    operator.inputs, operator.outputs = [0], [1]
    graph.tensors = [tensor("x", *FINE), tensor("y", *COARSE)]
    graph.inputs, graph.outputs, graph.operators = [0], [1], [operator]
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers = [schema.BufferT()]
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path = tmp_path_factory.mktemp("tflite") / "requantize.tflite"
    path.write_bytes(bytes(builder.Output()))
    return path


@pytest.fixture(scope="session")
def endless_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound TFLite file that crashes LiteRT 2.3 and tflite-runtime 2.14 as they prepare it: an IF
    whose branch is an IF whose branch is itself, so that the stack runs out."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    flatbuffers = pytest.importorskip("flatbuffers")

    def tensor(name: str, kind: int, shape: list[int]) -> object:
        found = schema.TensorT()
        found.name, found.type, found.shape = name.encode(), kind, shape
        return found

    def graph(inputs: list[int]) -> object:
        found, branch, choice = schema.SubGraphT(), schema.OperatorT(), schema.IfOptionsT()
        kinds = schema.TensorType
        found.tensors = [tensor("condition", kinds.BOOL, [1]), tensor("x", kinds.FLOAT32, [1, 4]),
                         tensor("y", kinds.FLOAT32, [1, 4])]  # fmt: skip
        found.inputs, found.outputs, found.operators = inputs, [2], [branch]
        branch.inputs, branch.outputs = [0, 1], [2]
        branch.builtinOptionsType, branch.builtinOptions = schema.BuiltinOptions.IfOptions, choice
        choice.thenSubgraphIndex = choice.elseSubgraphIndex = 1
        return found

    code, model = schema.OperatorCodeT(), schema.ModelT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.IF
    code.version = 1
    model.version, model.operatorCodes, model.buffers = 3, [code], [schema.BufferT()]
    model.subgraphs = [graph([0, 1]), graph([1])]
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path = tmp_path_factory.mktemp("endless") / "endless.tflite"
    path.write_bytes(bytes(builder.Output()))
    return path


@pytest.fixture
def tflite(requantize_file: Path, make_artifact: Callable[..., Artifact]) -> Artifact:
    return make_artifact(
        requantize_file,
        "tflite",
        "litert",
        precision="int8",
        inputs=(),
        facts={"input_layout": "NHWC"},
    )


@pytest.fixture
def fake_emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An emulator in PATH whose guest is a process here, and an empty cache; no package is got."""
    tools = tmp_path / "bin"
    tools.mkdir()
    fake = Path(__file__).with_name("fake_qemu.py")
    for name, line in (("qemu-system-aarch64", f'exec {sys.executable} {fake} "$@"'),
                       ("mmdebstrap", "exit 1")):  # fmt: skip
        (tools / name).write_text(f"#!/bin/sh\n{line}\n")
        (tools / name).chmod(0o755)
    base, kernel = tmp_path / "base", tmp_path / "kernel"
    (base / "usr/bin").mkdir(parents=True)
    (base / "usr/bin/python3").symlink_to("python3.11")
    kernel.mkdir()
    for name in ("vmlinuz", "virtio_mmio.ko", "virtio_console.ko"):
        (kernel / name).write_text(name)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EDGEKD_FAKE_GUEST", str(GUEST))
    monkeypatch.setattr("edgekd.devices.emulated.image.make_base", lambda: base)
    monkeypatch.setattr("edgekd.devices.emulated.image.make_kernel", lambda: kernel)
    monkeypatch.setattr("edgekd.devices.emulated.image.PYTHON_THERE", sys.executable)
    monkeypatch.setattr("edgekd.devices.emulated.image.IMPORTED", ("json",))
    monkeypatch.setattr("edgekd.devices.emulated.image.versions", lambda: {"numpy": "2.0"})
    return tools


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with nothing installed: no numpy, no runtime."""
    folder = tmp_path_factory.mktemp("bare") / "environment"
    command = [sys.executable, "-m", "venv", "--without-pip", "--symlinks", str(folder)]
    subprocess.run(command, check=True)
    return folder / "bin" / "python"
