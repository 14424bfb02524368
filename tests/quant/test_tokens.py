"""Class tokens are joined and picked by operators with integer kernels."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgekd.backends.onnx.export import export_artifact
from edgekd.backends.onnx.optimized import float_operators
from edgekd.quant.calibration import calibrate
from edgekd.quant.decomposing import decompose
from edgekd.quant.export import export_graph
from edgekd.quant.inspection import float_islands
from edgekd.values.candidate import Candidate
from edgekd.values.target import load_target

X = torch.randn(16, 4, 6, generator=torch.Generator().manual_seed(0))


class Tokens(nn.Module):
    """Two tokens before and one behind four of the input's, a position embedding, and a norm."""

    def __init__(self, positions: bool = True, picks: tuple[int, ...] = (0, 1)) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.norm, self.head = nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 3)
        self.first, self.last = (nn.Parameter(torch.randn(1, size, 6)) for size in (2, 1))
        self.positions = nn.Parameter(torch.randn(1, 7, 6)) if positions else None
        self.picks = picks

    def forward(self, x: Tensor) -> Tensor:
        first, last = (token.expand(x.shape[0], -1, -1) for token in (self.first, self.last))
        x = torch.cat([first, self.embed(x), last], 1)
        x = x if self.positions is None else self.positions + x
        x = self.norm(x)
        return sum((self.head(x[:, place]) for place in self.picks), torch.zeros(()))


def kinds_of(module: nn.Module) -> list[str]:
    graph = export_graph(module.eval(), X[:1])
    decompose(graph)
    with torch.no_grad():
        assert torch.allclose(graph(X), module(X), atol=1e-5)
    assert not isinstance(
        next(n for n in graph.graph.nodes if n.name == "x").meta["val"].size(0), int
    )
    called = [node for node in graph.graph.nodes if node.op == "call_function"]
    return [str(node.target).split(".")[1] for node in called]


def test_tokens_and_positions_are_one_constant_that_is_added():
    kinds = kinds_of(Tokens())
    assert kinds[:5] == ["reshape", "linear", "reshape", "constant_pad_nd", "add"]
    assert not {"cat", "expand"} & set(kinds)


def test_tokens_without_positions_are_added_alone():
    assert kinds_of(Tokens(positions=False))[3:5] == ["constant_pad_nd", "add"]


def test_tokens_are_picked_before_the_norm_unless_it_is_read_whole():
    assert kinds_of(Tokens(picks=(0, 1))).count("layer_norm") == 2
    module = Tokens()
    module.forward = lambda x: module.head(module.norm(module.embed(x)))  # type: ignore[method-assign]
    assert "select" not in kinds_of(module)


@pytest.mark.parametrize("strict", [False, True])
def test_onnx_runtime_has_only_norms_in_float(strict, tmp_path: Path):
    target = load_target("x86")
    module = Tokens().eval()
    graph = calibrate(module, X[:1], X, target.quantization, strict=strict)
    assert {name.split(" ")[0] for name in float_islands(graph)} <= {"aten.layer_norm"}
    candidate = Candidate(graph, X[:1], "int8", integers_only=strict)
    path = tmp_path / "model.onnx"
    export_artifact(candidate, target, (), path)
    assert {kind for kind, _ in float_operators(path)} == (
        set() if strict else {"LayerNormalization"}
    )
    with torch.no_grad():
        expected, output = module(X), graph(X)
    noise = (expected - output).square().sum() / expected.square().sum()
    assert float(noise) < (0.02 if strict else 0.002)
