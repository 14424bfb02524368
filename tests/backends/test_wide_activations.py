"""int8 weights with int16 activations: more accurate than int8, and the same in every runtime."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from litert_reference import by_litert
from torch import Tensor, fx, nn
from torch.nn import functional as F

from edgekd.backends.onnx.export import export_artifact
from edgekd.backends.tflite.convert import convert_artifact
from edgekd.backends.vela import Vela
from edgekd.formats.graph import float_islands
from edgekd.formats.tflite import read_tflite
from edgekd.quant.calibration import calibrate
from edgekd.quant.inspection import output_scale
from edgekd.quant.layer_noise import signal_to_noise
from edgekd.quant.post_training import PostTraining
from edgekd.quant.qat import finish_qat, prepare_qat
from edgekd.quant.wide_faults import wide_faults
from edgekd.quant.wide_layers import EVERY_LAYER
from edgekd.values.artifact import Artifact
from edgekd.values.candidate import Candidate
from edgekd.values.target import Scheme, load_target

SAMPLES = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
SCHEME = Scheme(activations="int8-affine")


class Gated(nn.Module):
    """Plain, depthwise and pointwise convolutions, a sigmoid, a residual sum and a mean."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.deep = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.point, self.last = nn.Conv2d(8, 8, 1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        x = x + self.point(F.relu(self.deep(x))) * torch.sigmoid(x)
        output: Tensor = self.last(x.mean([2, 3]))
        return output


@pytest.fixture(scope="module")
def module() -> nn.Module:
    return Gated().eval()


@pytest.fixture(scope="module")
def wide(module: nn.Module) -> fx.GraphModule:
    return calibrate(module, SAMPLES[:1], SAMPLES, SCHEME, PostTraining(wide=EVERY_LAYER))


def noise_of(module: nn.Module, graph: nn.Module) -> float:
    with torch.no_grad():
        return signal_to_noise(module(SAMPLES), graph(SAMPLES))


def test_it_is_at_least_12_db_closer_to_the_float_network_than_int8(module, wide):
    narrow = calibrate(module, SAMPLES[:1], SAMPLES, SCHEME)
    assert noise_of(module, wide) > 55
    assert noise_of(module, wide) > noise_of(module, narrow) + 12


def test_fake_quantization_in_training_has_16_bits_too(module):
    graph = prepare_qat(
        module, SAMPLES[:1], SAMPLES, SCHEME, choices=PostTraining(wide=EVERY_LAYER)
    )
    assert noise_of(module, graph) > 50
    assert noise_of(module, finish_qat(graph, SAMPLES[:1])) > 50


def test_onnx_runtime_gives_the_graph_s_values(wide, tmp_path: Path):
    candidate, target = Candidate(wide, SAMPLES[:1], "int8"), load_target("x86")
    artifact = export_artifact(candidate, target, (), tmp_path / "model.onnx")
    assert artifact.precision == "int16x8"
    assert any("computes in float" in note for note in artifact.notes)
    session = onnxruntime.InferenceSession(str(artifact.path), None, ["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: SAMPLES.numpy()})
    with torch.no_grad():
        assert np.abs(found - wide(SAMPLES).numpy()).max() <= 2.1 * (output_scale(wide) or 0)


@pytest.mark.slow
def test_litert_computes_it_in_integers_with_biases_of_64_bits(wide, tmp_path: Path):
    candidate, target = Candidate(wide, SAMPLES[:1], "int8"), load_target("raspberry-pi-4")
    artifact = convert_artifact(candidate, target, (), tmp_path / "model.tflite")
    assert artifact.precision == "int16x8"
    file = read_tflite(artifact.path)
    assert float_islands(file) == ()
    biases = {
        (op.op, file.tensors[op.inputs[2]].dtype)
        for op in file.ops
        if "CONV" in op.op or op.op == "FULLY_CONNECTED"
    }
    # Their sums fit 32 bits, for which LiteRT has fast kernels, but not depthwise ones.
    assert biases == {
        ("CONV_2D", "int32"),
        ("DEPTHWISE_CONV_2D", "int64"),
        ("FULLY_CONNECTED", "int32"),
    }
    entry, exit_ = artifact.inputs[0], artifact.outputs[0]
    assert (entry.dtype, exit_.dtype, entry.zero_point) == ("int16", "int16", 0)
    given = np.round(SAMPLES.permute(0, 2, 3, 1).flatten(1).numpy() / np.float32(entry.scale))
    given = np.clip(given, -32768, 32767).astype(np.int16)
    found = by_litert(artifact.path.read_bytes(), given).astype(np.float64) * exit_.scale
    with torch.no_grad():
        assert np.abs(found - wide(SAMPLES).numpy()).max() <= 4.1 * (exit_.scale or 0)


class Many(nn.Module):
    """Operators that the converter has no 16 bits for: sums with numbers, joins, functions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.deep = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.join, self.last = nn.Conv2d(16, 8, 1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = F.hardswish(self.deep(x))
        z = F.elu(self.join(torch.cat([x.roll(1, 3), y], 1)))
        output: Tensor = self.last((1 - z).mean([2, 3]))
        return output


@pytest.fixture(scope="module")
def many() -> nn.Module:
    return Many().eval()


def run_tflite(artifact: Artifact, images: Tensor) -> np.ndarray:
    entry, exit_ = artifact.inputs[0], artifact.outputs[0]
    rows = images.permute(0, 2, 3, 1).flatten(1).numpy()
    limits = np.iinfo(np.dtype(entry.dtype))
    given = np.round(rows / np.float32(entry.scale)) + entry.zero_point
    given = np.clip(given, limits.min, limits.max).astype(entry.dtype)
    found = by_litert(artifact.path.read_bytes(), given).astype(np.float64)
    return (found - exit_.zero_point) * exit_.scale


@pytest.mark.slow
def test_sums_that_could_exceed_32_bits_have_64(tmp_path: Path):
    torch.manual_seed(0)
    module, samples = nn.Linear(1024, 4).eval(), torch.randn(16, 1024)
    with torch.no_grad():
        module.weight.copy_(module.weight.sign())  # 1024 x 127 x 2^15 = 4.3e9 is beyond 2^31
    graph = calibrate(module, samples[:1], samples, SCHEME, PostTraining(wide=EVERY_LAYER))
    candidate = Candidate(graph, samples[:1], "int8")
    artifact = convert_artifact(candidate, load_target("raspberry-pi-4"), (), tmp_path / "m.tflite")
    file = read_tflite(artifact.path)
    (layer,) = [op for op in file.ops if op.op == "FULLY_CONNECTED"]
    assert file.tensors[layer.inputs[2]].dtype == "int64"
    step = artifact.outputs[0].scale or 0
    given = np.clip(np.round(samples.numpy() / np.float32(artifact.inputs[0].scale)), -32768, 32767)
    found = by_litert(artifact.path.read_bytes(), given.astype(np.int16)).astype(np.float64) * step
    with torch.no_grad():
        assert np.abs(found - graph(samples).numpy()).max() <= 2.1 * step


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layers", "requantized", "floats"),
    [
        (("stem",), 2, {"TRANSPOSE"}),
        (("join",), 4, {"TRANSPOSE", "EXP", "SUB", "GREATER_EQUAL", "SELECT", "SLICE"}),
        (EVERY_LAYER, 0, {"TRANSPOSE", "EXP", "SUB", "GREATER_EQUAL", "SELECT", "SLICE"}),
    ],
)
def test_files_of_both_widths_give_the_graph_s_values(many, layers, requantized, floats, tmp_path):
    graph = calibrate(many, SAMPLES[:1], SAMPLES, SCHEME, PostTraining(wide=layers))
    candidate = Candidate(graph, SAMPLES[:1], "int8")
    with torch.no_grad():
        expected = graph(SAMPLES).numpy()
    step = 2.1 * (output_scale(graph) or 0)

    artifact = convert_artifact(
        candidate, load_target("raspberry-pi-4"), (), tmp_path / "model.tflite"
    )
    assert artifact.precision == ("int16x8" if layers == EVERY_LAYER else "int8+int16")
    file = read_tflite(artifact.path)
    integers = {"int8", "int16"}
    changes = [
        op
        for op in file.ops
        if op.op == "QUANTIZE" and file.tensors[op.inputs[0]].dtype in integers
    ]
    assert len(changes) == requantized
    assert {op.op for op in float_islands(file)} <= floats | {"CONCATENATION"}
    assert np.abs(run_tflite(artifact, SAMPLES) - expected).max() <= step

    exported = export_artifact(candidate, load_target("x86-vnni"), (), tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(exported.path), None, ["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: SAMPLES.numpy()})
    assert np.abs(found - expected).max() <= step


@pytest.mark.slow
def test_the_ethos_u_computes_both_widths(module, tmp_path: Path):
    pytest.importorskip("ethosu.vela", reason="ethos-u-vela is not installed (edgekd[ethos])")
    target = load_target("ethos-u55")
    graph = calibrate(module, SAMPLES[:1], SAMPLES, SCHEME, PostTraining(wide=("last",)))
    candidate = Candidate(graph, SAMPLES[:1], "int8")
    artifact = convert_artifact(candidate, target, (), tmp_path / "model.tflite")
    (made,) = Vela().follow(artifact, target, target.backends["vela"], tmp_path)
    assert {each.placement for each in made.placements} == {"npu"}
    assert made.precision == "int8+int16"


def test_the_plan_refuses_backends_without_kernels_for_it():
    (fault,) = wide_faults(
        "int8", "calibrate", False, load_target("cortex-m4"), "stages.0.activations"
    )
    assert "has no kernels for 16-bit activations" in fault.message
    assert fault.allowed == "tflite"
    assert "activations = 8" in fault.hint
    assert wide_faults("int8", "qat", False, load_target("ethos-u55"), "stages.0.activations") == []


def test_the_plan_refuses_types_and_methods_of_eight_bits():
    whole = load_target("x86-vnni")
    target = whole.model_copy(update={"backends": {"onnx": whole.backends["onnx"]}})
    assert wide_faults("int8", "qat", False, target, "stages.0.activations") == []
    (fault,) = wide_faults("int8", "lsq", False, target, "stages.0.activations")
    assert "eight bits" in fault.message
    (fault,) = wide_faults("int4", "calibrate", False, target, "stages.0.activations")
    assert "leaves activations in float" in fault.message
    (fault,) = wide_faults("int8", "calibrate", True, target, "stages.0.activations")
    assert "in float" in fault.message
    assert "strict" in fault.hint
