"""Layers paired by depth, on networks of several builds and on exported graphs."""

import pytest
import torch
from torch import Tensor, nn

from edgekd.errors import InputError
from edgekd.models.resnet import resnet8
from edgekd.models.transformer import transformer
from edgekd.network.taps import Taps
from edgekd.training.layer_pairs import (
    Pairing,
    attention_in,
    blocks_of,
    embedding_of,
    pairs_of,
    values_in,
)

torch.set_num_threads(1)


def encoder(depth: int = 2) -> nn.Module:
    return transformer(size=8, patch=4, width=8, depth=depth, heads=2, classes=3).eval()


def test_blocks_are_the_outermost_layers_of_a_kind_that_repeats():
    assert blocks_of(resnet8(channels=1)) == ["stages.0.0", "stages.1.0", "stages.2.0"]
    assert blocks_of(encoder(3)) == ["blocks.0", "blocks.1", "blocks.2"]
    library = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2, enable_nested_tensor=False
    )
    assert blocks_of(library) == ["layers.0", "layers.1"]


def test_a_plain_stack_has_its_convolutions_or_its_linear_layers():
    plain = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.Linear(4, 2))
    assert blocks_of(plain) == ["0", "2"]
    assert blocks_of(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))) == ["0", "2"]
    assert blocks_of(nn.Sequential(nn.Linear(2, 2))) == []


def test_an_exported_graph_has_the_same_blocks():
    x = torch.randn(2, 1, 8, 8)
    for network in (resnet8(channels=1).eval(), encoder()):
        graph = torch.export.export(network, (x,)).module()
        assert blocks_of(graph) == blocks_of(network)
    assert attention_in(graph, "blocks.1", "") == attention_in(network, "blocks.1", "")
    assert values_in(graph, "blocks.1", "") == "blocks.1.attention.value"
    assert embedding_of(graph, "") == embedding_of(network, "") == "embed"


@pytest.mark.parametrize(
    ("by", "count", "expected"),
    [
        ("uniform", None, ["1", "4", "6"]),  # 7/3 and 14/3 rounded, and the last
        ("front", None, ["0", "1", "2"]),
        ("back", None, ["4", "5", "6"]),
        ("uniform", 1, ["6"]),
        ("front", 1, ["0"]),
    ],
)
def test_the_maps_of_three_blocks_onto_seven_are_the_hand_counted_ones(by, count, expected):
    found = pairs_of(encoder(3), encoder(7), Pairing(by, count), "")
    assert [teacher for _, teacher in found] == [f"blocks.{number}" for number in expected]
    own = {"uniform": ["2"], "front": ["0"]}[by] if count else ["0", "1", "2"]
    assert [student for student, _ in found] == [f"blocks.{number}" for number in own]


def test_a_deeper_student_gives_up_blocks_of_its_own():
    found = pairs_of(encoder(4), encoder(2), Pairing(), "")
    assert found == [("blocks.1", "blocks.0"), ("blocks.3", "blocks.1")]


def test_a_network_without_blocks_or_attention_is_refused():
    with pytest.raises(InputError, match="the student has no repeated blocks"):
        pairs_of(nn.Sequential(nn.Linear(2, 2)), encoder(), Pairing(), "losses.1")
    with pytest.raises(InputError, match=r"no attention weights within 'stages\.0\.0'"):
        attention_in(resnet8(channels=1), "stages.0.0", "losses.1")
    with pytest.raises(InputError, match=r"no attention value layer within 'stages"):
        values_in(resnet8(channels=1), "stages.0.0", "losses.1")


@pytest.mark.parametrize("grad", [True, False])
def test_the_weights_of_torchs_own_attention_can_be_tapped(grad):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    network = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    x = torch.randn(3, 5, 8)
    with torch.set_grad_enabled(grad):
        before = network(x)
        with Taps(network, ["layers.0.self_attn.weights", "layers.0"]) as taps:
            assert torch.allclose(network(x), before, atol=1e-5)
            found = taps.outputs["layers.0.self_attn.weights"]
        attention = network.layers[0].self_attn
        expected = attention(x, x, x, need_weights=True, average_attn_weights=False)[1]
    assert found.shape == (3, 2, 5, 5)
    assert torch.allclose(found, expected, atol=1e-6)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_a_network_of_recurrent_layers_alone_has_those():
    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(3, 4)
            self.head = nn.Linear(4, 2)

    assert blocks_of(Classifier()) == ["gru"]


def test_an_encoder_and_a_decoder_of_one_class_are_not_the_blocks_but_what_they_list():
    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(Layer() for _ in range(2))

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

    module = nn.ModuleDict({"both": nn.Module()})
    module["both"].encoder, module["both"].decoder = Stack(), Stack()
    names = [f"both.{side}.layers.{n}" for side in ("encoder", "decoder") for n in range(2)]
    assert blocks_of(module) == names


class Weighing(nn.Module):
    """Attention as transformers writes it: its output, then its weights if it has them."""

    def __init__(self, tells: bool) -> None:
        super().__init__()
        self.tells = tells
        self.value = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        heads = x.unflatten(2, (2, 2)).transpose(1, 2)
        weights = torch.softmax(heads @ heads.mT, dim=3)
        mixed = (weights @ self.value(x).unflatten(2, (2, 2)).transpose(1, 2)).transpose(1, 2)
        return mixed.flatten(2), weights if self.tells else None


class SelfAttention(Weighing):
    pass


class Layers(nn.Module):
    def __init__(self, tells: bool) -> None:
        super().__init__()
        self.layer = nn.ModuleList(nn.ModuleDict({"self": SelfAttention(tells)}) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.layer:
            x = x + block["self"](x)[0]
        return x


def test_weights_that_attention_returns_after_its_output_can_be_tapped():
    network, x = Layers(tells=True), torch.randn(3, 5, 4)
    name = attention_in(network, "layer.0", "losses.1")
    assert name == "layer.0.self.weights"
    with Taps(network, [name, "layer.0.self"]) as taps:
        network(x)
        output, weights = network.layer[0]["self"](x)
        assert torch.equal(taps.outputs[name], weights)
        assert torch.equal(taps.outputs["layer.0.self"], output)


def test_attention_that_keeps_its_weights_to_itself_is_refused_by_name():
    network, x = Layers(tells=False), torch.randn(3, 5, 4)
    with Taps(network, ["layer.1.self.weights"]), pytest.raises(InputError) as caught:
        network(x)
    assert "'layer.1.self' returns no attention weights (B, heads, L, L)" in str(caught.value)
    assert "attn_implementation = 'eager'" in str(caught.value.hint)
