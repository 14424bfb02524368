"""The TVM backend: libraries compiled for real, run on this machine or inspected."""

import os
import platform
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.backends.tvm import Tvm, cuda
from edgekd.backends.tvm.job import Job, run_worker
from edgekd.devices.emulated.root import missing_tools
from edgekd.devices.emulated.user_mode import open_user_mode
from edgekd.devices.opening import open_device
from edgekd.errors import InputError, ToolError
from edgekd.models.resnet import resnet8
from edgekd.quant.inspection import output_scale
from edgekd.values.artifact import Artifact, TensorInfo, sha256_of
from edgekd.values.candidate import Candidate
from edgekd.values.target import Target, load_target

pytest.importorskip("tvm")

RUN = """
import sys, numpy, tvm
from tvm import relax
machine = relax.VirtualMachine(tvm.runtime.load_module(sys.argv[1]), tvm.cpu())
output = machine["main"](tvm.runtime.tensor(numpy.load(sys.argv[2]))).numpy()
numpy.save(sys.argv[3], output)
"""
X86 = {"architecture": "x86_64", "cpu": "x86-64-v3", "isa": ("avx2", "fma", "f16c")}
ARM = {"architecture": "aarch64", "cpu": "cortex-a72", "isa": ("neon",)}


def target(hardware: dict[str, Any], **others: Any) -> Target:
    return Target(
        name="board",
        title="A board",
        summary="for tests",
        hardware={"cores": 2, "memory_bytes": 1 << 30, **hardware},
        quantization={"activations": "int8-affine"},
        backends={"tvm": {}},
        **others,
    )


def small(form: str = "float") -> Candidate:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = resnet8(1, 10, widths=(8, 16, 24)).eval()
    return Candidate(model, torch.rand(1, 1, 12, 12), form)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def compiled(
    board: Target, folder: Path, cache: Path, form: str = "float", **options: Any
) -> Artifact:
    table = {"cache": str(cache), "grid_seconds": 0.0, **options}
    return Tvm().compile(small(form), board, table, folder)[0]


on_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="runs what it compiles")


@on_x86
@pytest.mark.slow
@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_library_runs_with_numpy_and_the_runtime_alone(
    tmp_path: Path, shared: Path, threads: str
) -> None:
    artifact = compiled(target(X86), tmp_path, shared)
    model = small()
    np.save(tmp_path / "x.npy", model.example.numpy())
    command = [sys.executable, "-c", RUN, str(artifact.path), "x.npy", "y.npy"]
    environment = os.environ | {"TVM_NUM_THREADS": threads}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    with torch.no_grad():
        expected = model.module(model.example).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, atol=1e-5)
    assert artifact.inputs[0].shape == (1, 1, 12, 12)
    assert artifact.outputs[0].shape == (1, 10)
    assert (artifact.format, artifact.runtime, artifact.precision) == ("tvm-so", "tvm", "fp32")
    assert artifact.notes == ()


@on_x86
@pytest.mark.slow
def test_half_precision_stays_near_the_float_model_and_says_what_it_costs(
    tmp_path: Path, shared: Path
) -> None:
    import tvm
    from tvm import relax

    artifact = compiled(target(X86), tmp_path, shared, "fp16")
    model = small()
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(artifact.path)), tvm.cpu())
    output = machine["main"](tvm.runtime.tensor(model.example.numpy())).numpy()
    with torch.no_grad():
        expected = model.module(model.example).numpy()
    difference = np.abs(output - expected).max()
    assert 0 < difference < 5e-3
    assert artifact.precision == "fp16"
    assert "no half-precision arithmetic" in artifact.notes[0]


@pytest.mark.slow
def test_the_same_program_gives_the_same_bytes_and_is_compiled_once(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compiled(target(X86), tmp_path, shared)
    again = compiled(target(X86), tmp_path, tmp_path / "other")
    assert first.sha256 == again.sha256
    monkeypatch.setattr("edgekd.backends.tvm.cache.run_worker", lambda *_: pytest.fail("compiled"))
    assert compiled(target(X86), tmp_path, shared).sha256 == first.sha256


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("aarch64-linux-gnu-g++"), reason="no cross compiler")
def test_a_library_for_arm_is_an_arm_library(tmp_path: Path, shared: Path) -> None:
    artifact = compiled(target(ARM), tmp_path, shared, mcpu="cortex-a72")
    header = artifact.path.read_bytes()[:20]
    assert header[:4] == b"\x7fELF"
    assert struct.unpack_from("<H", header, 18)[0] == 183  # EM_AARCH64
    assert str(tmp_path).encode() not in artifact.path.read_bytes()


@on_x86
@pytest.mark.slow
def test_given_time_the_search_schedules_what_ours_leaves_general(
    tmp_path: Path, shared: Path
) -> None:
    import tvm
    from tvm import relax

    torch.manual_seed(0)
    layers = [nn.ConvTranspose2d(4, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    model = Candidate(nn.Sequential(*layers).eval(), torch.rand(1, 4, 6, 6))
    table = {"cache": str(shared), "grid_seconds": 0.0, "time_limit_seconds": 800.0}
    general = Tvm().compile(model, target(X86), table, tmp_path)[0]
    tuned = Tvm().compile(model, target(X86), table | {"tune_seconds": 1.0}, tmp_path)[0]
    assert "has only the general schedule" in general.notes[0]
    assert tuned.notes == ()
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(tuned.path)), tvm.cpu())
    output = machine["main"](tvm.runtime.tensor(model.example.numpy())).numpy()
    with torch.no_grad():
        expected = model.module(model.example).numpy()
    np.testing.assert_allclose(output, expected, atol=1e-5)


JETSON = {"kind": "cuda", "name": "Orin", "compute": "sm_87"}


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("nvcc") and shutil.which("aarch64-linux-gnu-g++")), reason="no nvcc"
)
def test_a_cuda_library_holds_machine_code_for_the_orin(tmp_path: Path, shared: Path) -> None:
    board = target(ARM, accelerators=(JETSON,))
    artifact = compiled(board, tmp_path, shared, kind="cuda", arch="sm_87")
    cuda.check_machine_code(artifact.path, "sm_87")
    with pytest.raises(ToolError, match="no machine code for sm_90"):
        cuda.check_machine_code(artifact.path, "sm_90")
    assert all(place.placement == "gpu" for place in artifact.placements)
    assert artifact.notes == ("GPU kernels use TVM's default schedules without tuning",)


def test_source_where_machine_code_should_be_is_refused(tmp_path: Path) -> None:
    library = tmp_path / "model.so"
    library.write_bytes(b"\x7fELF" + bytes(60) + b'extern "C" __global__ void kernel() {}')
    with pytest.raises(ToolError, match="no machine code for sm_87; found: none"):
        cuda.check_machine_code(library, "sm_87")


def test_a_missing_cross_compiler_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError) as caught:
        Tvm().check(small(), target(ARM), {})
    assert "aarch64-linux-gnu-g++ is not installed" in str(caught.value)
    assert caught.value.hint == "apt install g++-aarch64-linux-gnu"


def test_a_missing_nvcc_is_refused_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"nvcc": None}
    monkeypatch.setattr(shutil, "which", lambda name: found.get(name, name))
    board = target(ARM, accelerators=(JETSON,))
    with pytest.raises(InputError, match="nvcc is not installed") as caught:
        Tvm().check(small(), board, {"kind": "cuda", "arch": "sm_87"})
    assert "CUDA toolkit" in caught.value.hint


@on_x86
@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet", "ds-cnn", "sensor", "transformer"])
def test_a_quantized_network_is_within_a_step_of_its_graph(
    tmp_path: Path, shared: Path, name: str, candidate: Callable[..., Candidate]
) -> None:
    quantized, options = candidate(name), {"cache": str(shared), "grid_seconds": 0.0}
    artifact = Tvm().compile(quantized, load_target("x86"), options, tmp_path)[0]
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(16, *quantized.example.shape[1:], generator=generator)
    with closing(open_device("host")) as host:
        (outputs,) = host.infer(artifact, [x.numpy()], {"threads": 1})
    with torch.no_grad():
        expected = quantized.module(x).numpy()
    scale = output_scale(quantized.module)
    assert scale is not None
    assert np.abs(outputs - expected).max() <= 1.01 * scale
    assert artifact.precision == "int8"
    assert artifact.bytes < 100_000 + sum(
        each.numel() for each in quantized.module.state_dict().values()
    )
    in_float = [note for note in artifact.notes if note.startswith("computed in float")]
    left = {each.op for each in artifact.placements if each.reason}
    if name == "transformer":
        assert left == {"aten.layer_norm", "aten.softmax"}
        assert "3 x aten.layer_norm (blocks.0.norm1, blocks.0.norm2, norm)" in in_float[0]
    else:
        assert not left
        assert in_float == []


@pytest.mark.emulator
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("board", ["raspberry-pi-4", "raspberry-pi-5", "cortex-a53"])
def test_a_quantized_network_for_arm_is_within_a_step_of_its_graph(
    tmp_path: Path, shared: Path, board: str, candidate: Callable[..., Candidate]
) -> None:
    if missing_tools() or not shutil.which("aarch64-linux-gnu-g++"):
        pytest.skip("no emulator or no cross compiler")
    quantized, profile = candidate("resnet"), load_target(board)
    options = profile.backends["tvm"] | {"cache": str(shared)}
    artifact = Tvm().compile(quantized, profile, options, tmp_path)[0]
    x = torch.rand(4, *quantized.example.shape[1:], generator=torch.Generator().manual_seed(0))
    with closing(open_user_mode(board)) as device:
        (outputs,) = device.infer(artifact, [x.numpy()], {"threads": 1})
    with torch.no_grad():
        expected = quantized.module(x).numpy()
    scale = output_scale(quantized.module)
    assert scale is not None
    assert np.abs(outputs - expected).max() <= 1.01 * scale


def test_a_strict_target_refuses_what_would_compute_in_float(
    candidate: Callable[..., Candidate],
) -> None:
    with pytest.raises(InputError) as caught:
        Tvm().check(candidate("transformer"), load_target("x86"), {"strict": True})
    assert "without an integer kernel: 3 x aten.layer_norm (blocks.0.norm1" in str(caught.value)
    assert caught.value.hint.startswith("strict = false computes these in float")
    Tvm().check(candidate("ds-cnn"), load_target("x86"), {"strict": True})


def test_a_gpu_takes_the_float_small() -> None:
    assert Tvm().forms({"kind": "cuda"}) == {"float", "fp16"}
    assert Tvm().forms({}) == {"float", "fp16", "int8"}
    with pytest.raises(InputError, match="compute in float alone"):
        Tvm().check(small("int8"), target(ARM), {"kind": "cuda", "arch": "sm_87"})


@on_x86
def test_a_library_for_another_processor_is_refused_by_the_features_name(tmp_path: Path) -> None:
    """Before the code runs: an illegal instruction would end the agent."""
    library = tmp_path / "model.so"
    facts = b'edgekd-facts:{"features":["avx2","avx1024_vnni"],"kernels":[]}'
    library.write_bytes(b"\x7fELF" + bytes(60) + facts + b"\0")
    with closing(open_device("host")) as host, pytest.raises(InputError) as caught:
        host.infer(make_artifact(library), [np.zeros((1, 4), np.float32)], {"threads": 1})
    assert "compiled for processors with avx1024_vnni, which this one lacks" in str(caught.value)


def make_artifact(path: Path) -> Artifact:
    info = TensorInfo(name="input", shape=(1, 4), dtype="float32")
    return Artifact(
        path=path, format="tvm-so", runtime="tvm", precision="int8", target="x86",
        sha256=sha256_of(path), bytes=path.stat().st_size, inputs=(info,), outputs=(info,),
    )  # fmt: skip


def test_a_microcontroller_is_refused() -> None:
    hardware = {"architecture": "thumb", "cpu": "cortex-m4"}
    with pytest.raises(InputError, match="does not fit a thumb core"):
        Tvm().check(small(), target(hardware), {})


def test_an_unknown_option_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown key 'grid_secnds'") as caught:
        Tvm().check(small(), target(X86), {"grid_secnds": 1})
    assert caught.value.hint == "did you mean 'grid_seconds'?"


def job(**changes: Any) -> Job:
    table = {"kind": "llvm", "mcpu": "x86-64-v3", "num-cores": 1}
    values = {"target": table, "isa": {"lanes": 8, "registers": 16}, "precision": "float"}
    return Job(**{"architecture": platform.machine(), **values, **changes})


def program() -> torch.export.ExportedProgram:
    return torch.export.export(nn.Linear(4, 2), (torch.rand(1, 4),))


def test_a_compiler_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"TVM did not end within 0\.1 s") as caught:
        run_worker(program(), job(), 0.1, tmp_path)
    assert "time_limit_seconds" in caught.value.hint


@pytest.mark.slow
def test_a_compiler_that_fails_is_one_error_with_its_last_line(tmp_path: Path) -> None:
    broken = job(target={"kind": "no-such-kind"})
    with pytest.raises(ToolError, match=r"TVM's compiler failed .*no-such-kind"):
        run_worker(program(), broken, 120, tmp_path)
    assert list(tmp_path.iterdir()) == []


@on_x86
@pytest.mark.slow
def test_the_grid_is_measured_once_for_a_layer(tmp_path: Path) -> None:
    from edgekd.backends.tvm import cache

    measured, reused = cache.library(program(), job(grid_seconds=20), 300, tmp_path)
    assert not reused
    tiles = measured.result["tiles"]
    assert len(tiles) == 1
    assert measured.result["grid_seconds"] > 0
    other = torch.export.export(nn.Sequential(nn.Linear(4, 2), nn.ReLU()), (torch.rand(1, 4),))
    later, reused = cache.library(other, job(grid_seconds=20), 300, tmp_path)
    assert not reused
    assert later.result["tiles"] == tiles
    assert later.result["grid_seconds"] == 0


@on_x86
@pytest.mark.slow
def test_the_grid_measures_integer_layers_too(
    tmp_path: Path, candidate: Callable[..., Candidate]
) -> None:
    from edgekd.backends.tvm import cache
    from edgekd.quant.rewrite import as_uint8

    quantized = candidate("ds-cnn")
    graph = as_uint8(quantized.module)  # type: ignore[arg-type]
    network = torch.export.export(graph, (quantized.example,))
    measured = job(grid_seconds=60, precision="int8", dot="pmaddubsw")
    built, _ = cache.library(network, measured, 300, tmp_path)
    assert built.result["grid_seconds"] > 0
    layers = " ".join(built.result["tiles"])
    assert all(f"kind={kind}" in layers for kind in ("convolution", "depthwise", "linear"))
    assert all(key.startswith("int8 ") for key in built.result["tiles"])
