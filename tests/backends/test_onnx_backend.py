"""ONNX files against the graph they were made of, run by ONNX Runtime."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.backends.onnx import Onnx
from edgekd.backends.onnx.export import to_onnx, write_onnx
from edgekd.errors import Faults
from edgekd.quant.inspection import output_scale
from edgekd.values.artifact import Artifact
from edgekd.values.candidate import Candidate
from edgekd.values.target import load_target

NAMES = ["resnet", "ds-cnn", "sensor", "transformer"]
CONVOLUTIONS = {"resnet": 9, "ds-cnn": 3, "sensor": 2}


def samples(example: Tensor) -> Tensor:
    return torch.rand(64, *example.shape[1:], generator=torch.Generator().manual_seed(0))


def session(path: Path, optimized: Path | None = None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(artifact: Artifact, x: Tensor) -> np.ndarray:
    (found,) = session(artifact.path).run(None, {"input": x.numpy()})
    return found


def expected_of(whole: Any) -> tuple[Tensor, np.ndarray]:
    x = samples(whole.example)
    with torch.no_grad():
        return x, whole.module(x).numpy()


def optimized_ops(artifact: Artifact, folder: Path) -> Counter[str]:
    """How often ONNX Runtime runs each kind of operator, once it has fused what it can."""
    import onnx

    session(artifact.path, folder / "optimized.onnx")
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_fp32_file_computes_what_torch_does(name, candidate, compiled):
    artifact = compiled(Onnx(), name, "float")
    x, expected = expected_of(candidate(name, "float"))
    assert artifact.precision == "fp32"
    assert np.abs(run(artifact, x) - expected).max() <= 1e-5


@pytest.mark.slow
def test_an_fp16_file_is_near_and_keeps_float32_at_its_edges(candidate, compiled):
    import onnx

    artifact = compiled(Onnx(), "resnet", "fp16")
    x, expected = expected_of(candidate("resnet", "fp16"))
    assert [one.dtype for one in (*artifact.inputs, *artifact.outputs)] == ["float32", "float32"]
    assert np.abs(run(artifact, x) - expected).max() <= 1e-2
    weights = [t for t in onnx.load(artifact.path).graph.initializer if len(t.dims) == 4]
    assert {t.data_type for t in weights} == {onnx.TensorProto.FLOAT16}
    notes = ("ONNX Runtime computes fp16 in float32 on x86: the file is smaller, not faster",)
    assert artifact.notes == notes


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_int8_file_is_within_2_steps_of_the_graph(name, candidate, compiled):
    artifact = compiled(Onnx(), name)
    x, expected = expected_of(candidate(name))
    (output,) = artifact.outputs
    assert output.scale is not None
    assert np.abs(run(artifact, x) - expected).max() / output.scale <= 2.01


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CONVOLUTIONS))
def test_every_convolution_runs_in_integers(name, compiled, tmp_path):
    found = optimized_ops(compiled(Onnx(), name), tmp_path)
    assert found["QLinearConv"] == CONVOLUTIONS[name]
    floating = {"Conv", "FusedConv", "Gemm", "MatMul", "Add", "Relu", "Clip", "ReduceMean"}
    assert {op: found[op] for op in floating if found[op]} == {}


@pytest.mark.slow
def test_additions_and_the_pool_of_a_residual_network_run_in_integers(compiled, tmp_path):
    found = optimized_ops(compiled(Onnx(), "resnet"), tmp_path)
    assert found["QLinearAdd"] == 3
    assert found["QLinearGlobalAveragePool"] == 1
    assert found["QuantizeLinear"] == found["DequantizeLinear"] == 1


@pytest.mark.slow
def test_a_transformer_names_what_stays_float(compiled):
    notes = compiled(Onnx(), "transformer").notes
    assert any("3 x aten.layer_norm (blocks.0.norm1, " in note for note in notes)
    assert any("ONNX Runtime computes in float: 3 LayerNormalization" in note for note in notes)
    counted = sum(int(count) for note in notes for count in re.findall(r"(\d+) [A-Z]", note))
    assert compiled(Onnx(), "transformer").facts["operators_in_float"] == counted
    assert not any("softmax" in note or "matmul" in note for note in notes)
    assert not any("aten.linear" in note or "aten.conv2d" in note for note in notes)


@pytest.mark.slow
def test_a_transformer_names_the_gelu_between_two_layers(compiled, tmp_path):
    artifact = compiled(Onnx(), "transformer")
    found = optimized_ops(artifact, tmp_path)
    assert found["Gelu"] + found["Erf"] + found["QuickGelu"] + found["BiasGelu"] == 1
    assert "computed in float: aten.gelu (blocks.0.gelu)" in artifact.notes


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_batch_dimension_is_free(name, candidate, compiled):
    artifact = compiled(Onnx(), name)
    assert (artifact.inputs[0].shape[0], artifact.outputs[0].shape[0]) == (-1, -1)
    x, _ = expected_of(candidate(name))
    together = run(artifact, x[:3])
    alone = np.concatenate([run(artifact, x[i : i + 1]) for i in range(3)])
    assert np.abs(together - alone).max() <= 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_weights_are_stored_as_int8_within_seven_bits(name, candidate, compiled):
    import onnx
    from onnx import numpy_helper

    model = onnx.load(compiled(Onnx(), name).path)
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    assert not any(node.op_type == "Constant" for node in model.graph.node)
    module = candidate(name, "float").module
    layers = [p for p in module.parameters() if p.dim() > 1 and p.shape[0] > 1]
    integers = [one for one in stored.values() if one.dtype == np.int8 and one.ndim > 1]
    assert sorted(one.size for one in integers) == sorted(p.numel() for p in layers)
    assert all(np.abs(one.astype(int)).max() <= 63 for one in integers)


@pytest.mark.slow
def test_activations_are_uint8_for_a_processor_that_is_fast_with_them(compiled):
    import onnx
    from onnx import numpy_helper

    model = onnx.load(compiled(Onnx(), "resnet").path)
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    kinds = {stored[n.input[2]].dtype for n in model.graph.node if n.op_type == "QuantizeLinear"}
    assert kinds == {np.dtype(np.uint8)}


@pytest.mark.slow
def test_nothing_of_this_machine_or_of_the_exporter_is_in_the_file(compiled):
    import onnx

    artifact = compiled(Onnx(), "resnet")
    content = artifact.path.read_bytes()
    for trace in (b"/tmp", b"site-packages", b".py", b"nn_module_stack", os.fsencode(Path.cwd())):
        assert trace not in content
    model = onnx.load(artifact.path)
    graph = model.graph
    parts = [model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output]
    assert all(len(part.metadata_props) == 0 for part in parts)
    assert not any(part.doc_string for part in parts)
    assert (model.producer_name, graph.name) == ("edgekd", "main")
    assert [one.name for one in artifact.path.parent.iterdir()] == ["model.onnx"]


@pytest.mark.slow
def test_two_exports_give_the_same_bytes(compiled):
    first, second = compiled(Onnx(), "ds-cnn"), compiled(Onnx(), "ds-cnn", copy=1)
    assert first.path != second.path
    assert first.sha256 == second.sha256


@pytest.mark.slow
def test_the_edges_have_the_grids_of_the_graph(candidate, compiled):
    artifact = compiled(Onnx(), "resnet")
    nodes: list[Any] = list(candidate("resnet").module.graph.nodes)
    quantize = [n for n in nodes if str(n.target).startswith("quantized_decomposed.quantize")]
    for node, info in ((quantize[0], artifact.inputs[0]), (quantize[-1], artifact.outputs[0])):
        assert info.scale == pytest.approx(node.args[1], rel=1e-6)
        assert info.zero_point == node.args[2] + 128


def test_an_operator_that_the_target_lacks_is_refused_by_name(candidate, tmp_path):
    target = load_target("x86").model_copy(update={"unsupported_ops": ("conv2d",)})
    with pytest.raises(Faults, match=r"layer 'stem\.0' needs aten\.conv2d") as caught:
        Onnx().compile(candidate("resnet", "float"), target, {}, tmp_path)
    assert {one.where for one in caught.value.faults} == {"backends.onnx on x86"}
    assert len(caught.value.faults) == 9
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("provider", "unit"), [("cpu", "cpu"), ("cuda", "gpu")])
def test_every_operator_is_placed_on_the_unit_of_the_provider(provider, unit, candidate):
    options = {"provider": provider}
    placed = Onnx().check(candidate("sensor", "float"), load_target("x86"), options)
    assert {one.placement for one in placed} == {unit}
    assert [one.op for one in placed].count("aten.conv1d") == 2


class Fields(nn.Module):
    """Categories numbered through by offsets, in floats or integers, beside a measured number."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.first, self.last = (
            nn.Embedding(30_522, 8),
            nn.Linear(17, 16),
            nn.Linear(16, 4),
        )
        self.register_buffer("offsets", torch.tensor([0.0, 15_001.0]))

    def forward(self, x: Tensor) -> Tensor:
        ids = (x[:, :2] + self.offsets).long()
        known = x[:, 2:].float() * (ids[:, :1] > 4000.0).to(torch.float32)
        joined = torch.cat([self.table(ids).flatten(1), known], 1)
        output: Tensor = self.last(torch.relu(self.first(joined)))
        return output


def test_ids_are_whole_numbers_in_half_precision_too(tmp_path):
    import onnx

    torch.manual_seed(0)
    ids = torch.randint(0, 15_000, (64, 2)).float()
    module, x = Fields().eval(), torch.cat([ids, torch.rand(64, 1)], 1)
    (artifact,) = Onnx().compile(Candidate(module, x[:1], "fp16"), load_target("x86"), {}, tmp_path)
    with torch.no_grad():
        assert np.abs(run(artifact, x) - module(x).numpy()).max() <= 5e-3
    weights = [t for t in onnx.load(artifact.path).graph.initializer if len(t.dims) == 2]
    assert {t.data_type for t in weights} == {onnx.TensorProto.FLOAT16}


@pytest.mark.slow
def test_a_transformer_in_half_precision_loads_with_every_optimization(tmp_path):
    """ONNX Runtime 1.31 died of a segmentation fault; a process of its own shows that it lives."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    module, x = nn.TransformerEncoder(layer, 2).eval(), torch.randn(4, 10, 16)
    (artifact,) = Onnx().compile(Candidate(module, x[:1], "fp16"), load_target("x86"), {}, tmp_path)
    load = f"import onnxruntime; onnxruntime.InferenceSession({str(artifact.path)!r})"
    assert subprocess.run([sys.executable, "-c", load], check=False).returncode == 0
    with torch.no_grad():
        assert np.abs(run(artifact, x) - module(x).numpy()).max() <= 2e-2


class MeanOfASequence(nn.Module):
    """Scales values by their mean over two dimensions."""

    def __init__(self, dims: tuple[int, ...]) -> None:
        super().__init__()
        self.first, self.dims = nn.Linear(8, 8), dims

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        return x * x.mean(self.dims, keepdim=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "dims"),
    [((6, 8), (-2, -1)), ((6, 8), (1, 2)), ((4, 6, 8), (2, 3)), ((3, 4, 6, 8), (2, 3))],
)
def test_a_mean_over_two_dimensions_is_exact_whatever_the_rank(shape, dims, tmp_path):
    torch.manual_seed(0)
    module, x = MeanOfASequence(dims).eval(), torch.randn(4, *shape)
    write_onnx(to_onnx(module, x[:1]), tmp_path / "model.onnx")
    (found,) = session(tmp_path / "model.onnx").run(None, {"input": x.numpy()})
    with torch.no_grad():
        assert np.abs(found - module(x).numpy()).max() <= 1e-5


class Operands(nn.Module):
    """A learned map, a number, a part of a split and a global maximum among int8 activations."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.map, self.last = nn.Parameter(torch.rand(1, 8, 8, 8) * 3 - 0.7), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = (torch.relu(self.first((x - 0.4) / 0.3)) + self.map) * 0.5
        left, right = x.chunk(2, 1)
        x = torch.cat([torch.relu(self.second(left)), right], 1)
        output: Tensor = self.last(F.adaptive_max_pool2d(x, 1).flatten(1))
        return output


@pytest.mark.slow
def test_constants_among_the_activations_compute_in_integers_as_the_graph_does(quantized, tmp_path):
    torch.manual_seed(0)
    module, x = Operands().eval(), torch.rand(64, 3, 8, 8)
    artifact, whole = quantized(Onnx(), module, "x86", x)
    graph = whole.module
    found, scale = run(artifact, x), output_scale(graph)
    with torch.no_grad():
        # A step of one of the 12 maxima is up to a step of the output.
        assert np.abs(found - graph(x).numpy()).max() <= 3.01 * scale
        assert np.abs(found - graph(x).numpy()).mean() <= scale
        assert np.abs(found - module(x).numpy()).max() <= 6 * scale
    optimized = optimized_ops(artifact, tmp_path)
    assert optimized["Conv"] + optimized["FusedConv"] == 0
    assert optimized["QLinearConv"] == 2


class Rolled(nn.Module):
    """Rows and columns that are rolled between two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.roll(self.first(x), (1, -2), (2, 3))).mean((2, 3))


@pytest.mark.slow
def test_a_rolled_image_in_signed_integers_opens_and_is_right(quantized):
    torch.manual_seed(0)
    module, x = Rolled().eval(), torch.rand(32, 3, 8, 8)
    artifact, whole = quantized(Onnx(), module, "raspberry-pi-4", x)
    graph = whole.module
    found, scale = run(artifact, x), output_scale(graph)
    with torch.no_grad():
        assert np.abs(found - module(x).numpy()).max() <= 3 * scale
