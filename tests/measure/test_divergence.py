"""A real QDQ graph through real exporters, with one weight in the file spoilt on purpose."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, fx, nn

from edgekd.measure.divergence import _op
from edgekd.measure.matching import matched, reference_points, unseen
from edgekd.measure.parity import compare, first_difference
from edgekd.models.resnet import resnet8
from edgekd.quant.export import export_graph
from edgekd.quant.quantizer import TargetQuantizer
from edgekd.quant.rewrite import as_uint8, finish
from edgekd.quant.unfolding import unfolded
from edgekd.values.artifact import Artifact, TensorInfo
from edgekd.values.inner_tensor import InnerTensor
from edgekd.values.target import Scheme


def quantized(model: nn.Module, samples: Tensor, scheme: Scheme) -> fx.GraphModule:
    from torchao.quantization.pt2e import move_exported_model_to_eval
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_qat_pt2e

    graph = prepare_qat_pt2e(export_graph(model, samples[:1]), TargetQuantizer(scheme))
    for sample in samples.split(8):
        graph(sample)
    move_exported_model_to_eval(graph)
    return finish(convert_pt2e(graph, fold_quantize=True))


@pytest.fixture(scope="module")
def case() -> tuple[fx.GraphModule, Tensor]:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    samples = torch.randn(32, 1, 16, 16)
    model = resnet8(channels=1, widths=(8, 12, 16)).eval()
    # Seven bits: without VNNI, ONNX Runtime saturates 16-bit sums of eight-bit weights, which is a
    # real difference of up to 65 LSB in the stem.
    return quantized(model, samples, Scheme(activations="int8-affine", weight_bits=7)), samples[:1]


@pytest.fixture(scope="module")
def onnx_file(case: tuple[fx.GraphModule, Tensor], tmp_path_factory: Any) -> Path:
    graph, x = case
    path = Path(tmp_path_factory.mktemp("onnx")) / "model.onnx"
    program = torch.export.export(as_uint8(graph), (x,))
    torch.onnx.export(program, (), path, dynamo=True, opset_version=21, verbose=False)
    return path


def artifact(path: Path, form: str) -> Artifact:
    info = (TensorInfo(name="x", shape=(1, 1, 16, 16), dtype="float32"),)
    return Artifact(
        path=path, format=form, runtime="onnxruntime", precision="int8", target="x86",
        sha256="0", bytes=1, inputs=info, outputs=info,
    )  # fmt: skip


def spoil(path: Path, layer: int, to: Path) -> str:
    """Negate the weights of one convolution in an ONNX file; the name of its initializer."""
    model = onnx.load(path)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    producers = {name: node for node in model.graph.node for name in node.output}
    weight = producers[convolutions[layer].input[1]].input[0]
    (stored,) = (one for one in model.graph.initializer if one.name == weight)
    values = numpy_helper.to_array(stored)
    stored.CopyFrom(numpy_helper.from_array((-values).astype(values.dtype), weight))
    onnx.save(model, to)
    return weight


def test_a_faithful_file_has_no_differing_layer(
    case: tuple[fx.GraphModule, Tensor], onnx_file: Path
) -> None:
    sentence = first_difference(case[0], artifact(onnx_file, "onnx"), case[1])
    assert sentence.startswith("no single layer: each of 16 is within 2 LSB"), sentence


@pytest.mark.parametrize(
    ("layer", "name"),
    [(0, "stem.0"), (2, "stages.0.0.conv2"), (4, "stages.1.0.conv2"), (8, "stages.2.0.shortcut")],
)
def test_the_spoilt_layer_is_named_and_none_before_it(
    case: tuple[fx.GraphModule, Tensor], onnx_file: Path, tmp_path: Path, layer: int, name: str
) -> None:
    spoil(onnx_file, layer, tmp_path / "spoilt.onnx")
    sentence = first_difference(case[0], artifact(tmp_path / "spoilt.onnx", "onnx"), case[1])
    assert sentence.startswith(f"{name} (conv2d): "), sentence
    assert sentence.endswith("LSB from the reference on the same input")


def test_the_spoilt_file_fails_the_comparison_and_the_faithful_one_passes(
    case: tuple[fx.GraphModule, Tensor], onnx_file: Path, tmp_path: Path
) -> None:
    import onnxruntime

    spoil(onnx_file, 4, tmp_path / "spoilt.onnx")
    graph, x = case
    last = [n for n in graph.graph.nodes if "dequantize_per_tensor" in str(n.target)][-1]
    reference = graph(x).detach()
    for path, verdict in ((onnx_file, "pass"), (tmp_path / "spoilt.onnx", "fail")):
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (outputs,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        parity = compare(reference, outputs, float(last.args[1]))
        assert parity.verdict == verdict, parity
        assert parity.max_lsb == round(parity.max_lsb or 0.0)


def test_a_format_that_shows_nothing_is_said_to_be_unknown(
    case: tuple[fx.GraphModule, Tensor], tmp_path: Path
) -> None:
    sentence = first_difference(case[0], artifact(tmp_path / "model.so", "tvm"), case[1])
    assert sentence == "unknown: a tvm artifact does not expose its intermediate tensors"


def test_a_file_of_another_model_has_no_counterparts(
    case: tuple[fx.GraphModule, Tensor], onnx_file: Path
) -> None:
    torch.manual_seed(1)
    other = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU()).eval()
    graph = quantized(other, torch.randn(8, 1, 16, 16) * 9, Scheme(activations="int8-affine"))
    sentence = first_difference(graph, artifact(onnx_file, "onnx"), case[1])
    assert sentence.startswith("unknown: none of the artifact's 1"), sentence


@pytest.mark.slow
@pytest.mark.backend("tflite")
def test_a_spoilt_layer_of_a_tflite_file_is_named(
    case: tuple[fx.GraphModule, Tensor], tmp_path: Path
) -> None:
    graph, x = case
    path = tmp_path / "model.tflite"
    _convert(graph, x, path)
    sentence = first_difference(graph, artifact(path, "tflite"), x)
    assert sentence.startswith("no single layer: each of "), sentence

    content = bytearray(path.read_bytes())
    weights = _weights(graph, 4)
    start = bytes(content).find(weights.tobytes())
    assert start > 0
    content[start : start + weights.size] = (-weights).tobytes()
    path.write_bytes(bytes(content))
    sentence = first_difference(graph, artifact(path, "tflite"), x)
    assert sentence.startswith("stages.1.0.conv2 (conv2d): "), sentence


@pytest.mark.slow
@pytest.mark.backend("tflite")
def test_a_leaky_relu_that_litert_rounds_twice_is_not_called_biased(tmp_path: Path) -> None:
    x = torch.linspace(-4, 4, 2048).expand(8, -1)  # steps of 0.2 x 5 / 3 = 1 / 3 below zero
    graph = quantized(nn.LeakyReLU(0.2), x, Scheme(activations="int8-affine"))
    path = tmp_path / "model.tflite"
    _convert(graph, x[:1], path)
    sentence = first_difference(graph, artifact(path, "tflite"), x[:1])
    assert sentence.startswith("no single layer: each of "), sentence


class Gated(nn.Module):
    """Squeeze and excitation on maps of one pixel, whose mean changes nothing, and a clamp that
    leaves a small part of a wide range: a step of the convolution is many of the output."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(4, 256, 3)
        self.gate = nn.Conv2d(256, 256, 1)
        nn.init.normal_(self.convolution.weight, std=0.5)
        nn.init.constant_(self.convolution.bias, -8.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolution(x)
        gate = torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        return nn.functional.relu6(x * gate)


@pytest.mark.slow
@pytest.mark.backend("tflite")
def test_a_tensor_that_a_tflite_file_has_for_two_values_stands_for_both(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(16, 4, 3, 3)
    graph = quantized(Gated().eval(), x, Scheme(activations="int8-affine"))
    path = tmp_path / "model.tflite"
    _convert(graph, x[:1], path)
    sentences = [first_difference(graph, artifact(path, "tflite"), row) for row in x.split(1)]
    for sentence in sentences:
        assert sentence.startswith("no single layer: each of 6 is within 2 LSB"), sentence


def test_values_that_only_move_round_nowhere() -> None:
    torch.manual_seed(0)
    x = torch.randn(16, 4, 3, 3)
    graph = quantized(Gated().eval(), x, Scheme(activations="int8-affine"))
    points = reference_points(graph, x[:1])
    assert len(points) == 6
    (mean,) = (each for each in points if each not in unseen(points, {}))
    (convolution,) = (each for each in points if each.scale == mean.scale and each is not mean)
    # A file with one tensor for both: without the convolution's.
    shown = [each for each in points if each is not convolution]
    values = [(each.steps.double() - each.node.args[2]) * each.scale for each in shown]
    seen = [InnerTensor("", v.numpy(), p.scale) for v, p in zip(values, shown, strict=True)]
    matches = matched(points, seen)
    assert set(matches) == {each.node for each in points}
    assert matches[convolution.node] is matches[mean.node]
    assert unseen(points, {mean.node: seen[:1]}) == [each for each in points if each is not mean]


class Scores(nn.Module):
    """The weights of an attention; the file's product reads the keys as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(3, 6, 3, padding=1)
        self.query, self.key = nn.Linear(16, 4), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolution(x)
        return torch.softmax(self.query(x) @ self.key(x).transpose(1, 2) / 2.0, -1)


@pytest.mark.slow
@pytest.mark.backend("tflite")
def test_a_matrix_that_a_product_transposes_by_itself_is_read_as_it_is(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(16, 3, 16)
    graph = quantized(Scores().eval(), x, Scheme(activations="int8-affine"))
    path = tmp_path / "model.tflite"
    _convert(graph, x[:1], path)
    sentence = first_difference(graph, artifact(path, "tflite"), x[:1])
    assert sentence.startswith("no single layer: each of "), sentence


def _convert(graph: fx.GraphModule, x: Tensor, path: Path) -> None:
    import litert_torch
    from litert_torch.quantize.quant_config import QuantConfig

    config = QuantConfig(pt2e_quantizer=TargetQuantizer(Scheme(activations="int8-affine")))
    litert_torch.convert(unfolded(graph), (x,), quant_config=config).export(str(path))


def _weights(graph: fx.GraphModule, layer: int) -> np.ndarray:
    """One convolution's integers in TFLite's order: output, height, width, input."""
    convolutions = [n for n in graph.graph.nodes if str(n.target).startswith("aten.conv2d")]
    stored = convolutions[layer].args[1].args[0]
    integers: Tensor = getattr(graph, str(stored.target))
    return np.ascontiguousarray(integers.permute(0, 2, 3, 1).numpy())


def test_a_constant_that_is_named_like_an_operator_is_none():
    """A class token that is joined to others is stored as "cat_tokens"."""
    graph = fx.Graph()
    constant = graph.get_attr("cat_tokens_int8")
    assert _op(constant) == ""
    assert _op(graph.call_function(torch.ops.aten.cat.default, ([constant], 1))) == "cat.default"
