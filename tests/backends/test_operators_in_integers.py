"""Operators between two convolutions, held against the float module and against what ONNX Runtime
and LiteRT make of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from litert_reference import by_litert
from torch import Tensor, fx, nn
from torch.nn import functional as F

from edgekd.backends.onnx.export import export_artifact
from edgekd.backends.onnx.optimized import float_operators
from edgekd.backends.tflite.convert import convert_artifact
from edgekd.errors import ToolError
from edgekd.formats.graph import float_islands as float_operators_of
from edgekd.formats.tflite import read_tflite
from edgekd.quant.calibration import calibrate
from edgekd.quant.inspection import float_islands, output_scale
from edgekd.quant.layer_noise import signal_to_noise
from edgekd.quant.qat import finish_qat, freeze_ranges, prepare_qat
from edgekd.values.candidate import Candidate
from edgekd.values.target import load_target

SAMPLES = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2
ENOUGH_DB = 30.0

Function = Callable[[Tensor], Tensor]


class Between(nn.Module):
    """A function of 8 channels between two convolutions; the second reads as many as it gives."""

    def __init__(self, function: Function, channels: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.function = nn.Conv2d(3, 8, 3, padding=1), function
        self.last = nn.Conv2d(channels, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.last(self.function(self.first(x)))
        return output


class Squeeze(nn.Module):
    """Squeeze and excite (Hu et al. 2018)."""

    def __init__(self, gate: Function) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.less, self.more, self.gate = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1), gate
        nn.init.constant_(self.less.bias, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.more(F.relu(self.less(x.mean((2, 3), keepdim=True)))))


class Attention(nn.Module):
    """Two heads over the 64 places, and what is added to."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.outer = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        parts = self.inner(tokens).reshape(-1, 64, 3, 2, 4).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*parts.unbind(0))
        tokens = tokens + self.outer(mixed.transpose(1, 2).reshape(-1, 64, 8))
        return tokens.transpose(1, 2).reshape(x.shape)


def _normed(module: nn.Module) -> nn.Module:
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -1, 1)
            nn.init.uniform_(part.running_var, 0.5, 2)
    return module


def _shuffled(x: Tensor) -> Tensor:
    return x.view(-1, 2, 4, 8, 8).transpose(1, 2).reshape(x.shape)


WHOLE: dict[str, tuple[Function, int]] = {
    "silu": (F.silu, 8),
    "silu in place": (lambda x: F.silu(x, inplace=True), 8),
    "hard sigmoid": (F.hardsigmoid, 8),
    "hard swish in place": (lambda x: F.hardswish(x, inplace=True), 8),
    "squeeze and excite": (Squeeze(torch.sigmoid), 8),
    "squeeze and excite, hard": (Squeeze(F.hardsigmoid), 8),
    "a product, clamped": (nn.Sequential(Squeeze(torch.sigmoid), nn.ReLU6()), 8),
    "norm before": (_normed(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(8), nn.ReLU())), 8),
    "transposed": (_normed(nn.Sequential(nn.ConvTranspose2d(8, 8, 3, 2, 1, 1), nn.BatchNorm2d(8),
                                         nn.ReLU())), 8),
    "pixel shuffle": (nn.PixelShuffle(2), 2),
    "channel shuffle": (_shuffled, 8),
    "gather": (lambda x: x[:, torch.tensor([3, 1, 0, 2, 7, 6, 5, 4])], 8),
    "unbind": (lambda x: torch.stack(x.unbind(1)[2:6], 1), 4),
    "nearest": (lambda x: F.interpolate(x, scale_factor=2, mode="nearest"), 8),
    "attention": (Attention(), 8),
    "divided": (lambda x: x / 1.7, 8),
    "padded": (lambda x: F.pad(x, (1, 0, 2, 1)), 8),
    "padded with a number": (lambda x: F.pad(x, (1, 1), value=0.3), 8),
    "padded twice, and read unpadded": (
        lambda x: torch.cat([F.pad(x, (1, 1, 1, 1)), F.pad(F.pad(x, (1, 0)), (0, 1, 1, 1))], 1)
        + F.pad(x, (1, 1, 1, 1)).repeat(1, 2, 1, 1), 16),
    "reflected": (lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"), 8),
    "replicated": (lambda x: F.pad(x, (1, 1, 1, 1), mode="replicate"), 8),
    "pooled to one place in any layout": (
        lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        * F.adaptive_avg_pool2d(x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2), 1), 8),
    "softmax": (lambda x: x.softmax(1), 8),
    "tanh": (torch.tanh, 8),
}  # fmt: skip
"""What both runtimes compute in integers."""

IN_ONE_RUNTIME: dict[str, tuple[Function, str]] = {
    "gelu": (F.gelu, "Gelu"),
    "gelu by tanh": (lambda x: F.gelu(x, approximate="tanh"), "Gelu"),
    "elu": (F.elu, "Elu"),
    "exp": (lambda x: (0.3 * x).exp(), "Exp"),
    "square root": (lambda x: x.relu().add(0.1).sqrt(), "Sqrt"),
    "prelu": (nn.PReLU(8), "PRelu"),
    "mish": (F.mish, "Softplus"),
    "logarithm": (lambda x: (x.relu() + 0.1).log(), "Log"),
    "inverse root": (lambda x: (x.relu() + 0.1).rsqrt(), "Sqrt"),
    "softsign": (F.softsign, "Abs"),
    "gelu written out": (lambda x: 0.5 * x * (1 + (0.7978846 * (x + 0.044715 * x**3)).tanh()),
                         "Pow"),
}  # fmt: skip
"""What ONNX Runtime computes in float between two grids, and says so."""

NORMS: dict[str, Function] = {
    "group norm": nn.GroupNorm(2, 8),
    "instance norm": nn.InstanceNorm2d(8, affine=True),
    "layer norm": lambda x: F.layer_norm(x.movedim(1, -1), (8,)).movedim(-1, 1),
    "RMS norm": lambda x: F.rms_norm(x.movedim(1, -1), (8,)).movedim(-1, 1),
    "log-softmax": lambda x: F.log_softmax(x.movedim(1, -1), -1).movedim(-1, 1),
    "division": lambda x: x / (x.abs().mean(1, keepdim=True) + 1),
}
"""What stays in float unless the recipe is strict."""


def network(name: str) -> nn.Module:
    if name in IN_ONE_RUNTIME:
        return Between(IN_ONE_RUNTIME[name][0]).eval()
    if name in NORMS:
        return Between(NORMS[name]).eval()
    return Between(*WHOLE[name]).eval()


def from_module(module: nn.Module, graph: fx.GraphModule) -> float:
    with torch.no_grad():
        return signal_to_noise(module(SAMPLES.clone()), graph(SAMPLES.clone()))


@pytest.mark.parametrize("name", [*WHOLE, *IN_ONE_RUNTIME])
def test_onnx_runtime_computes_in_integers_what_the_graph_gives(name, tmp_path: Path):
    module, target = network(name), load_target("x86")
    graph = calibrate(module, SAMPLES[:1], SAMPLES, target.quantization)
    assert float_islands(graph) == []
    assert from_module(module, graph) > ENOUGH_DB - 1
    candidate = Candidate(graph, SAMPLES[:1], "int8")
    artifact = export_artifact(candidate, target, (), tmp_path / "model.onnx")
    floats = [op for op, _ in float_operators(artifact.path)]
    if name in WHOLE:
        assert floats == []
    else:
        assert IN_ONE_RUNTIME[name][1] in floats
        assert any("ONNX Runtime computes in float" in note for note in artifact.notes)
    session = onnxruntime.InferenceSession(str(artifact.path), None, ["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: SAMPLES.numpy()})
    with torch.no_grad():
        expected = graph(SAMPLES).numpy()
    scale = output_scale(graph)
    assert scale is not None
    assert np.abs(found - expected).max() / scale < 1.5


@pytest.mark.parametrize("name", [*IN_ONE_RUNTIME, *NORMS])
def test_strict_leaves_no_operator_of_onnx_runtime_in_float(name, tmp_path: Path):
    module, target = network(name), load_target("x86")
    graph = calibrate(module, SAMPLES[:1], SAMPLES, target.quantization, strict=True)
    assert from_module(module, graph) > ENOUGH_DB - (5 if name in NORMS else 1)
    candidate = Candidate(graph, SAMPLES[:1], "int8", integers_only=True)
    artifact = export_artifact(candidate, target, (), tmp_path / "model.onnx")
    assert float_operators(artifact.path) == []
    session = onnxruntime.InferenceSession(str(artifact.path), None, ["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: SAMPLES.numpy()})
    scale = output_scale(graph)
    assert scale is not None
    with torch.no_grad():
        assert np.abs(found - graph(SAMPLES).numpy()).max() / scale < 1.5


def test_a_strict_file_with_an_operator_in_float_is_refused_by_name(tmp_path: Path):
    module, target = network("layer norm"), load_target("x86")
    graph = calibrate(module, SAMPLES[:1], SAMPLES, target.quantization)
    candidate = Candidate(graph, SAMPLES[:1], "int8", integers_only=True)
    with pytest.raises(ToolError, match="LayerNormalization") as caught:
        export_artifact(candidate, target, (), tmp_path / "model.onnx")
    assert "remove 'strict'" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["silu", "norm before", "transposed", "attention", "gelu", "mish"])
def test_training_with_fake_quantization_reaches_the_operator_too(name):
    module, scheme = network(name), load_target("raspberry-pi-4").quantization
    graph = prepare_qat(module, SAMPLES[:1], SAMPLES, scheme)
    optimizer = torch.optim.SGD(graph.parameters(), lr=1e-6)
    graph.train()
    graph(SAMPLES).square().mean().backward()
    assert all(
        bool(each.grad.isfinite().all()) for each in graph.parameters() if each.grad is not None
    )
    optimizer.step()
    freeze_ranges(graph)
    finished = finish_qat(graph, SAMPLES[:1])
    assert float_islands(finished) == []
    assert from_module(module, finished) > ENOUGH_DB


CHAIN = ["silu", "squeeze and excite, hard", "norm before", "gather", "hard sigmoid", "gelu"]
TABLES = ["mish", "prelu", "softsign", "elu"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "names", [CHAIN, ["attention"], ["transposed"], ["a product, clamped"], TABLES], ids=str
)
def test_litert_computes_in_integers_what_the_graph_gives(names, tmp_path: Path):
    functions = {key: each for key, (each, _) in {**WHOLE, **IN_ONE_RUNTIME}.items()}

    def chained(x: Tensor) -> Tensor:
        for name in names:
            x = functions[name](x)
        return x

    layers = [functions[name] for name in names]
    module = Between(chained)
    module.inner = nn.ModuleList([each for each in layers if isinstance(each, nn.Module)])
    target = load_target("raspberry-pi-4")
    graph = calibrate(module.eval(), SAMPLES[:1], SAMPLES, target.quantization)
    candidate = Candidate(graph, SAMPLES[:1], "int8")
    artifact = convert_artifact(candidate, target, (), tmp_path / "model.tflite")
    floats = {op.op for op in float_operators_of(read_tflite(artifact.path))}
    # On 64 places the softmax has a grid of its own, which no integer kernel computes for.
    assert floats == ({"SUB", "EXP", "SUM", "DIV"} if names == ["attention"] else set())
    entry, exit_ = artifact.inputs[0], artifact.outputs[0]
    x = SAMPLES.permute(0, 2, 3, 1).flatten(1).numpy() / np.float32(entry.scale)
    given = np.clip(np.round(x) + entry.zero_point, -128, 127).astype(np.int8)
    for reference in (True, False):
        steps = by_litert(artifact.path.read_bytes(), given, reference).astype(np.float64)
        found = (steps - exit_.zero_point) * exit_.scale
        with torch.no_grad():
            expected = graph(SAMPLES).flatten(1).numpy()
        assert np.abs(found - expected).max() / exit_.scale < 2.5
