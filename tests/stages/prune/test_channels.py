"""Removing channels gives exactly what silencing their readers gives, in every kind of network."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgekd.errors import InputError
from edgekd.models.mobilenet_v2 import mobilenet_v2
from edgekd.models.resnet import resnet8
from edgekd.models.transformer import transformer
from edgekd.network.cost import parameter_count
from edgekd.stages.prune import channels
from edgekd.stages.prune.channels import Group, channel_groups, remove_channels
from edgekd.stages.prune.choices import proven_groups
from edgekd.stages.prune.scoring import per_channel

torch.set_num_threads(1)


class Dense(nn.Module):
    """Two convolutions whose outputs are concatenated with the input, as in a DenseNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.grow1 = nn.Sequential(nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1))
        self.grow2 = nn.Sequential(nn.BatchNorm2d(10), nn.ReLU(), nn.Conv2d(10, 4, 3, padding=1))
        self.classifier = nn.Linear(14, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.cat([x, self.grow1(x)], 1)
        x = torch.cat([x, self.grow2(x)], 1)
        out: Tensor = self.classifier(x.mean((2, 3)))
        return out


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 12, 3, padding=1, groups=4)
        self.norm = nn.GroupNorm(2, 12)
        self.classifier = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.grouped(torch.relu(self.stem(x))))
        out: Tensor = self.classifier(x.mean((2, 3)))
        return out


class Flattened(nn.Sequential):
    def __init__(self) -> None:
        conv = nn.Conv2d(1, 4, 3, padding=1)
        super().__init__(conv, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 3))


def shaken(module: nn.Module, x: Tensor) -> nn.Module:
    """Norms with scales and statistics that differ from channel to channel, and signals alive."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(part.weight, 0.5, 2.0)
            nn.init.normal_(part.bias)
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1.0
    with torch.no_grad():
        module.train()(x)
    return module.eval()


def silenced(module: nn.Module, group: Group, gone: list[int]) -> nn.Module:
    """The same network with zeros in every kernel that reads the channels."""
    deaf = copy.deepcopy(module)
    for member in group.members:
        if member.axis != "in":
            continue
        layer = deaf.get_submodule(member.layer)
        groups = getattr(layer, "groups", 1)
        weight = layer.weight.data.unflatten(0, (groups, -1))  # (g, out/g, in/g, ...)
        for index, root in zip(member.indices, member.roots, strict=True):
            if root in gone:
                weight[index // weight.shape[2], :, index % weight.shape[2]] = 0
    return deaf


NETWORKS = {
    "resnet": (lambda: resnet8(channels=1), (1, 8, 8)),
    "mobilenet": (lambda: mobilenet_v2(channels=1), (1, 28, 28)),
    "dense": (Dense, (1, 4, 4)),
    "grouped": (Grouped, (1, 4, 4)),
    "flattened": (Flattened, (1, 4, 4)),
    "transformer": (lambda: transformer(size=8, width=16, depth=2, heads=4), (1, 8, 8)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_removing_channels_is_the_same_as_silencing_them(name: str) -> None:
    factory, shape = NETWORKS[name]
    torch.manual_seed(0)
    x = torch.randn(16, *shape)
    module = shaken(factory(), x)
    groups = [group for group in channel_groups(module, x[:1]) if not group.output]
    assert groups
    # A layer norm mixes its channels: without one the others change, and rightly so.
    normed = {n for n, part in module.named_modules() if isinstance(part, nn.LayerNorm)}
    for group in groups[:12]:
        assert not group.reason
        if group.layers & normed:
            continue
        gone = [channel for unit in group.units[1::2] for channel in unit]
        smaller = remove_channels(module, x[:1], {group.name: gone}, groups)
        assert parameter_count(smaller) < parameter_count(module)
        expected = silenced(module, group, gone)(x)
        assert not torch.allclose(expected, module(x), atol=1e-6)
        assert torch.allclose(smaller(x), expected, atol=1e-5), group.name


def test_every_group_can_be_cut_at_once() -> None:
    module = mobilenet_v2(channels=1).eval()
    x = torch.randn(1, 1, 28, 28)
    groups = [group for group in channel_groups(module, x) if not group.output]
    removals = {g.name: [c for unit in g.units[::2] for c in unit] for g in groups}
    smaller = remove_channels(module, x, removals, groups)
    for group in groups:
        assert smaller.get_submodule(group.name).out_channels == group.channels // 2
    assert smaller(x).shape == (1, 10)


def test_the_order_of_a_layer_norms_channels_is_kept() -> None:
    x = torch.randn(1, 1, 8, 8)
    module = shaken(transformer(size=8, width=16, depth=1, heads=4), x)
    norm = module.get_submodule("norm")
    (stream,) = [g for g in channel_groups(module, x) if "norm" in g.layers]
    gone = [0, 1, 2, 3, 4, 5, 6, 9, 10, 11]
    smaller = remove_channels(module, x, {stream.name: gone})
    kept = [7, 8, 12, 13, 14, 15]
    assert torch.equal(smaller.get_submodule("norm").weight, norm.weight[kept])
    assert smaller.get_parameter("position").shape == (1, 4, 6)


def test_the_classifiers_outputs_are_never_offered() -> None:
    groups = channel_groups(resnet8(channels=1).eval(), torch.zeros(1, 1, 8, 8))
    (output,) = [group for group in groups if group.output]
    assert output.name == "classifier"


def test_a_residual_stream_is_one_group_named_after_its_first_layer() -> None:
    groups = channel_groups(resnet8(channels=1).eval(), torch.zeros(1, 1, 8, 8))
    stream = next(group for group in groups if group.name == "stem.0")
    assert {"stem.0", "stages.0.0.conv2"} <= stream.layers


def test_grouped_convolutions_lose_the_same_places_in_each_group() -> None:
    groups = {g.name: g for g in channel_groups(Grouped().eval(), torch.zeros(1, 1, 4, 4))}
    assert groups["stem"].units == ((0, 2, 4, 6), (1, 3, 5, 7))
    assert groups["grouped"].units == ((0, 3, 6, 9), (1, 4, 7, 10), (2, 5, 8, 11))


def test_whole_heads_go_and_their_size_stays() -> None:
    module = transformer(size=8, width=16, depth=1, heads=4).eval()
    smaller = remove_channels(module, torch.zeros(1, 1, 8, 8), {"blocks.0.attention": [4, 5, 6, 7]})
    attention = smaller.get_submodule("blocks.0.attention")
    assert (attention.heads, attention.head_size) == (3, 4)
    assert attention.query.weight.shape == (12, 16)
    assert attention.output.weight.shape == (16, 12)


class Fixed(nn.Module):
    """Reshapes to a size written into the code, so that no channel can go."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 1)
        self.classifier = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.conv(x).reshape(-1, 4, 9).mean(2))
        return out


def test_a_layer_that_the_network_depends_on_says_so() -> None:
    (first, _) = channel_groups(Fixed().eval(), torch.zeros(1, 1, 3, 3))
    assert first.name == "conv"
    assert first.reason.startswith("the network does not run without these channels")


def test_removing_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="does not run without these channels"):
        remove_channels(Fixed().eval(), torch.zeros(1, 1, 3, 3), {"conv": [0]})


def test_a_grouped_kernels_input_channels_are_those_of_their_group() -> None:
    # Two groups of two outputs and two inputs each: inputs 0 and 1 feed outputs 0 and 1.
    layer = nn.Conv2d(4, 4, 1, groups=2)
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0], [10.0, 20.0], [30.0, 40.0]])[..., None, None]
    assert per_channel(layer, values, "in").tolist() == [4.0, 6.0, 40.0, 60.0]
    assert per_channel(layer, values, "out").tolist() == [3.0, 7.0, 30.0, 70.0]
    backwards = nn.ConvTranspose2d(4, 4, 1, groups=2)
    assert per_channel(backwards, values, "out").tolist() == [4.0, 6.0, 40.0, 60.0]


def test_a_network_that_has_not_changed_is_traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    traced = []

    def watched(proof: Any, heads: bool) -> list[Group]:
        traced.append(heads)
        return proven_groups(proof, heads)

    monkeypatch.setattr(channels, "proven_groups", watched)
    module, x = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)).eval(), torch.zeros(1, 4)
    first = channel_groups(module, x)
    assert channel_groups(module, x) == first
    assert len(traced) == 1
    channel_groups(module, x, heads=True)
    module[0] = nn.Linear(4, 6)
    module[1] = nn.Linear(6, 2)
    assert len(channel_groups(module, x)[0].units) == 6
    assert traced == [False, True, False]
