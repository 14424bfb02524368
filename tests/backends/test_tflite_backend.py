"""TFLite files against the graph they were made of, run by LiteRT.

Each file takes the converter's process some ten seconds, so all but the first test are slow.
"""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from litert_reference import by_litert, by_micro
from torch import Tensor, nn

from edgekd.backends.tflite import Tflite
from edgekd.errors import Faults, ToolError
from edgekd.formats.graph import float_islands
from edgekd.formats.tflite import read_tflite
from edgekd.values.artifact import Artifact
from edgekd.values.candidate import Candidate
from edgekd.values.target import load_target

WHOLE = ["resnet", "ds-cnn", "sensor"]
LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
"""The converter makes a depthwise convolution of one that has a single input channel."""


def samples(example: Tensor) -> Tensor:
    return torch.rand(64, *example.shape[1:], generator=torch.Generator().manual_seed(0))


def run(artifact: Artifact, x: Tensor, reference_kernels: bool = False) -> np.ndarray:
    """(N, classes) as the file gives them: int8 steps or float32."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    options: dict[str, Any] = {"num_threads": 1}
    if reference_kernels:
        options["experimental_op_resolver_type"] = OpResolverType.BUILTIN_REF
    interpreter = Interpreter(model_path=str(artifact.path), **options)
    interpreter.allocate_tensors()
    entry, exit_ = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    values = x.numpy()
    if values.ndim == 4:
        values = values.transpose(0, 2, 3, 1)
    if entry["dtype"] == np.int8:
        scale, zero_point = entry["quantization"]
        values = np.clip(np.round(values / np.float32(scale)) + zero_point, -128, 127)
        values = values.astype(np.int8)
    rows = []
    for row in np.ascontiguousarray(values):
        interpreter.set_tensor(entry["index"], row[None])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(exit_["index"])[0])
    return np.stack(rows)


def lsb(artifact: Artifact, whole: Candidate, reference_kernels: bool) -> float:
    x = samples(whole.example)
    (output,) = artifact.outputs
    with torch.no_grad():
        expected = whole.module(x).numpy().astype(np.float64)
    found = run(artifact, x, reference_kernels).astype(np.float64)
    assert output.scale is not None
    return float(np.abs((found - output.zero_point) * output.scale - expected).max() / output.scale)


def test_an_operator_that_the_target_lacks_is_refused_by_name(candidate, tmp_path):
    target = load_target("x86").model_copy(update={"unsupported_ops": ("aten.conv2d",)})
    with pytest.raises(Faults, match=r"layer 'stem\.0' needs aten\.conv2d") as caught:
        Tflite().compile(candidate("resnet", "float"), target, {}, tmp_path)
    assert {one.where for one in caught.value.faults} == {"backends.tflite on x86"}
    assert len(caught.value.faults) == 9
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def unprepared(monkeypatch):
    """As if nothing had been converted in this process yet."""
    monkeypatch.setattr("edgekd.processes.forked._servers", {})


@pytest.mark.usefixtures("unprepared")
def test_a_converter_that_fails_is_one_line_and_leaves_no_file(candidate, tmp_path, monkeypatch):
    monkeypatch.setattr("edgekd.processes.forked.sys.executable", "/bin/false")
    with pytest.raises(ToolError, match=r"litert-torch failed \(exit status 1\): no output"):
        Tflite().compile(candidate("sensor", "float"), load_target("x86"), {}, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("unprepared")
def test_a_converter_that_hangs_is_ended(candidate, tmp_path, monkeypatch):
    hangs = tmp_path / "python"
    hangs.write_text("#!/bin/sh\nsleep 60\n")
    hangs.chmod(0o755)
    monkeypatch.setattr("edgekd.processes.forked.sys.executable", str(hangs))
    monkeypatch.setattr("edgekd.backends.tflite.convert.TIME_LIMIT_S", 0.2)
    with pytest.raises(ToolError, match=r"litert-torch did not end within 0\.2 s"):
        Tflite().compile(candidate("sensor", "float"), load_target("x86"), {}, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["reference", "xnnpack"])
@pytest.mark.parametrize("name", [*WHOLE, "transformer"])
def test_an_int8_file_is_within_2_steps_of_the_graph(
    name: str, kernels: str, candidate: Callable[..., Candidate], compiled: Callable[..., Artifact]
) -> None:
    # Products and softmax round once more each, on the way through attention: no layer is off by
    # more than one, and one value of 256 by four.
    most = 4.01 if name == "transformer" else 2.01
    assert lsb(compiled(Tflite(), name), candidate(name), kernels == "reference") <= most


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_a_convolutional_network_takes_gives_and_holds_integers_alone(name, compiled):
    artifact = compiled(Tflite(), name)
    graph = read_tflite(artifact.path)
    assert [one.dtype for one in (*artifact.inputs, *artifact.outputs)] == ["int8", "int8"]
    assert all(one.scale and one.zero_point is not None for one in artifact.inputs)
    floats = [tensor.name for tensor in graph.tensors.values() if "float" in tensor.dtype]
    assert floats == []
    assert not any("float" in note for note in artifact.notes)


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_every_transpose_that_is_left_is_named_and_images_have_none(name, compiled):
    artifact = compiled(Tflite(), name)
    left = [op.name for op in read_tflite(artifact.path).ops if op.op == "TRANSPOSE"]
    counted = [note.split()[0] for note in artifact.notes if "remain" in note]
    assert counted == ([str(len(left))] if left else [])
    if name != "sensor":
        assert left == []


@pytest.mark.slow
def test_weights_keep_to_seven_bits(compiled):
    graph = read_tflite(compiled(Tflite(), "resnet").path)
    weights = [
        tensor.values
        for op in graph.ops
        if op.op in LAYERS
        for tensor in [graph.tensors[op.inputs[1]]]
    ]
    assert len(weights) == 10
    assert all(one is not None and one.dtype == np.int8 for one in weights)
    assert all(np.abs(one.astype(int)).max() <= 63 for one in weights)


@pytest.mark.slow
def test_the_file_has_the_scales_of_the_graph(candidate, compiled):
    artifact = compiled(Tflite(), "resnet")
    nodes: list[Any] = list(candidate("resnet").module.graph.nodes)
    quantize = [n for n in nodes if str(n.target).startswith("quantized_decomposed.quantize")]
    for node, info in ((quantize[0], artifact.inputs[0]), (quantize[-1], artifact.outputs[0])):
        assert info.scale == pytest.approx(node.args[1], rel=1e-6)
        assert info.zero_point == node.args[2]


@pytest.mark.slow
def test_a_transformer_computes_its_layers_in_int8_and_names_the_rest(compiled):
    artifact = compiled(Tflite(), "transformer")
    graph = read_tflite(artifact.path)
    layers = [op for op in graph.ops if op.op in LAYERS]
    assert len(layers) == 8
    for op in layers:
        assert {graph.tensors[key].dtype for key in (*op.inputs[:2], *op.outputs)} == {"int8"}
    assert {"RSQRT", "SQUARED_DIFFERENCE"} <= {op.op for op in float_islands(graph)}
    assert any(note.startswith("computed in float: ") for note in artifact.notes)
    assert artifact.facts["operators_in_float"] == len(float_islands(graph))
    assert not any(kind in note for note in artifact.notes for kind in ("BATCH_MATMUL", "GELU"))


@pytest.mark.slow
def test_a_float_file_computes_what_torch_does(candidate, compiled):
    whole, artifact = candidate("resnet", "float"), compiled(Tflite(), "resnet", "float")
    x = samples(whole.example)
    with torch.no_grad():
        expected = whole.module(x).numpy()
    assert artifact.precision == "fp32"
    assert [one.dtype for one in (*artifact.inputs, *artifact.outputs)] == ["float32", "float32"]
    assert np.abs(run(artifact, x) - expected).max() <= 1e-5


@pytest.mark.slow
def test_an_fp16_file_is_near_smaller_and_says_how_it_is_computed(candidate, compiled):
    whole, artifact = candidate("resnet", "fp16"), compiled(Tflite(), "resnet", "fp16")
    x = samples(whole.example)
    with torch.no_grad():
        expected = whole.module(x).numpy()
    assert [one.dtype for one in (*artifact.inputs, *artifact.outputs)] == ["float32", "float32"]
    assert np.abs(run(artifact, x) - expected).max() <= 1e-2
    assert artifact.bytes < compiled(Tflite(), "resnet", "float").bytes
    kinds = {
        tensor.dtype
        for tensor in read_tflite(artifact.path).tensors.values()
        if (tensor.constant_bytes or 0) > 1000
    }
    assert kinds == {"float16"}
    assert "weights are stored in fp16; LiteRT on a CPU computes in float32" in artifact.notes


@pytest.mark.slow
def test_two_conversions_give_the_same_bytes(compiled):
    first, second = compiled(Tflite(), "ds-cnn"), compiled(Tflite(), "ds-cnn", copy=1)
    assert first.path != second.path
    assert first.sha256 == second.sha256


@pytest.mark.slow
def test_nothing_of_this_machine_is_in_the_file_or_beside_it(compiled):
    artifact = compiled(Tflite(), "resnet")
    content = artifact.path.read_bytes()
    for trace in (b"/tmp", b"site-packages", b".py", str(artifact.path.parent).encode()):
        assert trace not in content
    assert [one.name for one in artifact.path.parent.iterdir()] == ["model.tflite"]


class BoxesAndScores(nn.Module):
    """Boxes in pixels and scores from 0 to 1 in one output, as detectors give them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.box, self.score = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        boxes, scores = self.box(x).flatten(2) * 32 + 160, self.score(x).flatten(2).sigmoid()
        return torch.cat([boxes, scores], 1)


@pytest.mark.slow
def test_scores_beside_boxes_keep_their_levels_in_the_file(quantized):
    torch.manual_seed(0)
    module, x = BoxesAndScores().eval(), torch.randn(16, 3, 8, 8)
    artifact, _ = quantized(Tflite(), module, "x86", x)
    with torch.no_grad():
        expected = module(x).numpy()
    assert np.abs(run(artifact, x) - expected)[:, 4:].max() < 0.03
    assert any("CONCATENATION" in note for note in artifact.notes)


class Operands(nn.Module):
    """A learned map, numbers, a part of a split and a global maximum among int8 activations."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.map, self.last = nn.Parameter(torch.rand(1, 8, 8, 8) * 3 - 0.7), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = (torch.relu(self.first((x - 0.4) / 0.3)) + self.map) * 0.5
        left, right = x.chunk(2, 1)
        x = torch.cat([torch.relu(self.second(left)), right], 1)
        output: Tensor = self.last(torch.nn.functional.adaptive_max_pool2d(x, 1).flatten(1))
        return output


@pytest.mark.slow
def test_constants_among_the_activations_compute_in_integers_as_the_graph_does(quantized):
    torch.manual_seed(0)
    module, x = Operands().eval(), torch.rand(1, 3, 8, 8)
    artifact, whole = quantized(Tflite(), module, "x86", samples(x))
    assert lsb(artifact, whole, reference_kernels=False) <= 2.01
    assert not any("float" in note for note in artifact.notes)


class Squashed(nn.Module):
    """Sigmoid, tanh and softmax, joined, padded, pooled, multiplied and read by layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)
        self.third, self.last = nn.Conv2d(12, 4, 1), nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = self.second(torch.sigmoid(x) * torch.tanh(x))
        x = torch.cat([torch.sigmoid(x), torch.tanh(x), x], 1)
        x = nn.functional.pad(torch.sigmoid(self.third(x)), (1, 1, 1, 1), value=1.5)
        output: Tensor = torch.tanh(self.last(torch.softmax(nn.functional.max_pool2d(x, 2), 1)))
        return output


@pytest.mark.slow
def test_every_kernel_agrees_on_sigmoid_tanh_and_softmax(quantized):
    """LiteRT's reference kernels refuse other grids, and the micro runtime is off on them."""
    torch.manual_seed(0)
    module, x = Squashed().eval(), torch.randn(16, 3, 10, 10)
    artifact, whole = quantized(Tflite(), module, "raspberry-pi-5", x)
    graph = whole.module
    (entry,), (output,) = artifact.inputs, artifact.outputs
    assert (output.scale, output.zero_point) == (1 / 128, 0)
    codes = torch.round(x.permute(0, 2, 3, 1) / entry.scale) + entry.zero_point
    given = codes.clamp(-128, 127).flatten(1).numpy().astype(np.int8)
    expected = (graph(x) * 128).flatten(1).detach().numpy()
    content = artifact.path.read_bytes()
    kernels = [partial(by_litert, reference=True), partial(by_litert, reference=False)]
    if find_spec("tflite_micro"):
        kernels.append(by_micro)
    for run_kernels in kernels:
        difference = np.abs(run_kernels(content, given) - expected)
        assert difference.max() <= 4  # tanh is steep: a step before it is several behind
        assert (difference > 0.5).mean() < 0.1


class Picked(nn.Module):
    """Values that are repeated, chosen, read several times and joined in float."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(torch.relu(self.first(x)).repeat(1, 2, 1, 1))
        x = torch.where(x > 0, torch.sigmoid(x), x) + nn.functional.logsigmoid(x)
        return torch.cat([torch.softmax(x, 1), x * 20], 1)


@pytest.mark.slow
def test_what_is_picked_in_float_is_put_on_no_grid(quantized):
    torch.manual_seed(0)
    module, x = Picked().eval(), torch.randn(16, 3, 10, 10)
    artifact, whole = quantized(Tflite(), module, "raspberry-pi-5", x)
    graph = whole.module
    with torch.no_grad():
        difference = np.abs(run(artifact, x) - graph(x).numpy())
    assert difference.max() < 0.3  # one step of what is multiplied by 20
    assert (difference > 1e-4).mean() < 0.1  # a step in one channel moves all of a softmax


class ReadTwice(nn.Module):
    """A sum with a token that is very small: a norm reads it in float, a layer some of it in
    integers."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
        self.norm, self.layer, self.last = nn.LayerNorm(8), nn.Linear(4, 8), nn.Linear(80, 4)

    def forward(self, x: Tensor) -> Tensor:
        both = self.one(x) + self.other(x)
        return self.last((self.norm(both) + torch.relu(self.layer(both[..., :4]))).flatten(1))


@pytest.mark.slow
def test_a_sum_in_float_is_not_put_on_the_grid_of_one_of_its_readers(quantized) -> None:
    torch.manual_seed(0)
    module, x = ReadTwice().eval(), torch.randn(32, 10, 8)
    x[:, 0] *= 0.004
    artifact, whole = quantized(Tflite(), module, "raspberry-pi-4", x)
    graph = whole.module
    (output,) = artifact.outputs
    found = (run(artifact, x, True).astype(np.float64) - output.zero_point) * output.scale
    with torch.no_grad():
        assert np.abs(found - graph(x).numpy()).max() < 1.01 * output.scale
