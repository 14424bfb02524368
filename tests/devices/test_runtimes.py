"""LiteRT, TVM and the emulated board on small files, against numbers worked out in NumPy."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekd.artifact import Artifact, TensorInfo
from edgekd.devices._session import AgentDevice
from edgekd.devices.emulated import NO_TIMES, create_root, missing_tools
from edgekd.devices.opening import open_device
from edgekd.errors import InputError
from edgekd.meters.latency import latency_measurements

COARSE, FINE = (0.5, 3), (0.25, -1)  # scale and zero point


@pytest.fixture(scope="session")
def tflite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
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


@pytest.fixture
def tflite(tflite_file: Path, make_artifact: Callable[..., Artifact]) -> Artifact:
    return make_artifact(
        tflite_file, "tflite", "litert", precision="int8", inputs=(), facts={"input_layout": "NHWC"}
    )


def steps(x: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    return np.clip(np.rint(x / scale) + zero_point, -128, 127)


@pytest.mark.parametrize("kernels", ["optimized", "reference"])
def test_int8_inputs_and_outputs_are_converted_with_the_files_own_scales(
    host: AgentDevice, tflite: Artifact, kernels: str
) -> None:
    # Inputs on FINE's grid but off the ties of COARSE's, in NCHW: three samples, batch of one.
    grid = np.random.default_rng(0).integers(-50, 50, (3, 3, 2, 4)) * 2
    x = (grid * 0.25).astype(np.float32) + np.float32(0.05)
    x[0, 0, 0, 0] = 1e6  # beyond the range: saturates
    found = host.infer(tflite, x, {"kernels": kernels})
    fine = (steps(x, *FINE) - FINE[1]) * FINE[0]
    expected = (steps(fine, *COARSE) - COARSE[1]) * COARSE[0]
    np.testing.assert_array_equal(found, expected.transpose(0, 2, 3, 1))


def test_a_given_scale_wins_over_the_files_own(host: AgentDevice, tflite: Artifact) -> None:
    mine = TensorInfo(name="x", shape=(1, 2, 4, 3), dtype="int8", scale=0.5, zero_point=-1)
    x = np.full((1, 3, 2, 4), 4.0, np.float32)  # 8 steps of 0.5, read as 8 of 0.25
    found = host.infer(tflite.model_copy(update={"inputs": (mine,)}), x, {})
    assert set(found.ravel()) == {2.0}


def test_litert_is_timed_and_tells_its_kernels(host: AgentDevice, tflite: Artifact) -> None:
    short = {"protocol": {"seconds": 0.05, "warmup_s": 0.0, "window_s": 0.01}}
    (samples,) = host.benchmark([tflite], {"kernels": "reference", **short}, quick=True)
    assert samples.conditions["kernels"] == "reference"
    assert samples.conditions["runtime"].startswith(("ai-edge-litert", "tflite-runtime"))


def test_a_missing_delegate_is_named(host: AgentDevice, tflite: Artifact) -> None:
    with pytest.raises(InputError, match=r"the delegate libnowhere\.so did not load"):
        host.probe(tflite.path, "litert", {"delegate": "libnowhere.so"})


BUILD_TVM = """
import sys, tvm
from tvm import relax
builder = relax.BlockBuilder()
x = relax.Var("x", relax.TensorType((2, 5), "float32"))
with builder.function("main", [x]):
    with builder.dataflow():
        y = builder.emit_output(builder.emit(relax.op.add(x, x)))
    builder.emit_func_output(y)
tvm.compile(builder.get(), target="llvm").export_library(sys.argv[1])
"""


@pytest.mark.slow
def test_a_tvm_library_runs_with_the_shapes_that_its_artifact_tells(
    host: AgentDevice, make_artifact: Callable[..., Artifact], tmp_path: Path
) -> None:
    if not host.hello().runtimes["tvm"]:
        pytest.skip("TVM is not here")
    library = tmp_path / "twice.so"
    built = subprocess.run(
        [sys.executable, "-c", BUILD_TVM, str(library)], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    info = TensorInfo(name="x", shape=(2, 5), dtype="float32")
    twice = make_artifact(library, "tvm-so", "tvm", inputs=(info,), outputs=(info,))
    assert host.can_run(twice) == ""
    x = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    np.testing.assert_array_equal(host.infer(twice, x, {"kind": "llvm", "threads": 1}), 2 * x)
    with pytest.raises(InputError, match="does not tell its inputs"):
        host.probe(library, "tvm", {})


def test_what_can_not_be_emulated_is_refused() -> None:
    with pytest.raises(InputError, match="can't be emulated") as caught:
        open_device("emulated://x86")
    assert "cortex-a76" in caught.value.allowed
    with pytest.raises(InputError, match=r"no board is called '\.\./x'"):
        open_device("emulated://../x")


def test_missing_tools_of_an_emulated_board_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda tool: None)
    hints = [fault.hint for fault in missing_tools()]
    assert hints == ["apt install qemu-user-static", "apt install mmdebstrap"]


def test_a_board_that_could_not_be_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing_tools():
        pytest.skip("no emulator")
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path))
    monkeypatch.setattr("edgekd.devices.emulated._run", fail_half_way)
    with pytest.raises(RuntimeError, match="half way"):
        create_root("raspberry-pi-5")
    assert [path.name for path in (tmp_path / "boards").iterdir()] == [".lock"]


def fail_half_way(command: list[str]) -> None:
    (Path(command[-1]) / "usr").mkdir(parents=True)
    raise RuntimeError("half way")


@pytest.mark.emulator
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_emulated_board_gives_the_hosts_outputs_and_no_times(
    host: AgentDevice, artifact: Artifact, inputs: np.ndarray, tflite: Artifact
) -> None:
    if missing_tools():
        pytest.skip("no emulator")
    board = open_device("emulated://raspberry-pi-5")
    assert isinstance(board, AgentDevice)
    assert board.hello().machine == "aarch64"
    expected = host.infer(artifact, inputs, {})
    np.testing.assert_allclose(board.infer(artifact, inputs, {}), expected, atol=1e-5)
    x = np.random.default_rng(0).normal(size=(4, 3, 2, 4)).astype(np.float32)
    np.testing.assert_array_equal(board.infer(tflite, x, {}), host.infer(tflite, x, {}))
    (samples,) = board.benchmark([artifact], {}, quick=True)
    assert samples.invalid == NO_TIMES
    rows = latency_measurements(samples, board.name, board.kind)
    assert {row.kind for row in rows} == {"unavailable"}
    assert {row.value for row in rows} == {None}
    board.close()
