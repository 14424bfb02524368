"""Dead channels go and nothing changes, however channels are re-ordered on their way."""

import copy
from pathlib import Path

import pytest
import torch
from dead_units import with_dead_units
from reordered import CASES, IMAGES, REFUSED, attention, network
from torch import Tensor, nn

from edgekd.errors import InputError
from edgekd.network.cost import parameter_count
from edgekd.network.storage import load_module, save_module
from edgekd.stages._replacing import plain
from edgekd.stages.prune.channels import channel_groups, remove_channels
from edgekd.stages.prune.criteria import Criterion
from edgekd.stages.prune.criteria.activation_energy import ActivationEnergy
from edgekd.stages.prune.criteria.magnitude_l1 import MagnitudeL1
from edgekd.stages.prune.criteria.magnitude_l2 import MagnitudeL2
from edgekd.stages.prune.faults import channel_faults
from edgekd.stages.prune.scoring import unit_scores
from edgekd.stages.prune.spec import PruneSpec
from edgekd.stages.prune.structured import make_pools, removals
from edgekd.values.candidate import Candidate

torch.set_num_threads(1)


@pytest.mark.parametrize("name", CASES)
def test_dead_channels_go_and_the_outputs_stay(name: str) -> None:
    forward, layers, units = CASES[name]
    module = network(forward, layers)
    x = torch.randn(IMAGES, generator=torch.Generator().manual_seed(2))
    groups = channel_groups(module, x[:1])
    assert {group.name: len(group.units) for group in groups if group.can_go} == units
    dead, gone = with_dead_units(module, groups)
    smaller = remove_channels(dead, x[:1], gone, groups)
    assert parameter_count(smaller) < parameter_count(module)
    with torch.no_grad():
        expected = dead(x)
        assert float((smaller(x) - expected).abs().max()) < 1e-5 * max(1, expected.abs().max())
        assert not torch.equal(expected, module(x))


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_followed_is_left_whole_by_name(name: str) -> None:
    forward, layers, group_name, words = REFUSED[name]
    module = network(forward, layers)
    groups = {group.name: group for group in channel_groups(module, torch.randn(IMAGES)[:1])}
    assert words in groups[group_name].reason
    assert not groups[group_name].can_go


def test_heads_go_as_a_whole_where_the_network_counts_them_itself() -> None:
    torch.manual_seed(0)
    layers = {name: nn.Linear(6, 16) for name in "qkv"} | {"o": nn.Linear(16, 5)}
    module = network(attention, {name: lambda layer=layer: layer for name, layer in layers.items()})
    x = torch.randn(2, 12, 6)
    (group, output) = channel_groups(module, x[:1])
    assert output.output
    assert group.layers == {"q", "k", "v"}
    assert [unit[0] for unit in group.units] == [0, 4, 8, 12]
    smaller = remove_channels(module, x[:1], {"q": [4, 5, 6, 7]}, [group])
    module.get_submodule("o").weight.data[:, 4:8] = 0
    assert torch.allclose(smaller(x), module(x), atol=1e-6)


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM, nn.RNN])
@pytest.mark.parametrize("keys", [{}, {"bidirectional": True}, {"num_layers": 2}])
def test_hidden_units_of_recurrent_layers_go(kind: type[nn.RNNBase], keys: dict) -> None:
    width = 2 if keys.get("bidirectional") else 1
    layers = {
        "a": lambda: nn.Linear(6, 8),
        "r": lambda: kind(8, 12, batch_first=True, **keys),
        "o": lambda: nn.Linear(12 * width, 5),
    }
    module = network(lambda net, x: net.o(net.r(net.a(x))[0][:, -1]), layers)
    x = torch.randn(2, 7, 6)
    groups = channel_groups(module, x[:1])
    hidden = next(group for group in groups if group.name == "r")
    assert hidden.can_go
    assert len(hidden.units) == 12
    gates = {"GRU": 3, "LSTM": 4, "RNN": 1}[kind.__name__]
    gone = [channel for unit in hidden.units[:4] for channel in unit]
    smaller = remove_channels(module, x[:1], {"r": gone}, groups)
    recurrent = smaller.get_submodule("r")
    assert recurrent.hidden_size == 8
    assert recurrent.weight_hh_l0.shape == (gates * 8, 8)
    deaf = copy.deepcopy(module)
    for name, value in deaf.get_submodule("r").named_parameters():
        if "weight_hh" in name or ("weight_ih" in name and "l0" not in name):
            value.data.unflatten(1, (-1, 12))[:, :, :4] = 0
    deaf.get_submodule("o").weight.data.unflatten(1, (-1, 12))[:, :, :4] = 0
    assert torch.allclose(smaller(x), deaf(x), atol=1e-5)


def test_two_layers_with_one_weight_lose_the_same_channels() -> None:
    layers = {name: lambda: nn.Conv2d(8, 8, 1) for name in "bd"}
    layers |= {"a": lambda: nn.Conv2d(3, 8, 1), "c": lambda: nn.Conv2d(8, 10, 1)}

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        y = torch.relu(net.a(x))
        return net.c(torch.relu(net.b(y)) + torch.relu(net.d(y)))

    module = network(forward, layers)
    module.d.weight = module.b.weight
    x = torch.randn(1, 3, 4, 4)
    groups = channel_groups(module, x)
    smaller = remove_channels(module, x, {"b": [1, 5]}, groups)
    assert smaller.d.weight is smaller.b.weight
    assert smaller.d.out_channels == 6
    module.c.weight.data[:, [1, 5]] = 0
    assert torch.allclose(smaller(x), module(x), atol=1e-6)


@pytest.mark.parametrize("criterion", [MagnitudeL1(), MagnitudeL2()])
def test_channels_that_nothing_makes_score_lowest(criterion: Criterion) -> None:
    """Whatever the weights of the layer that reads them; a shift of the norm keeps one alive."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv1d(4, 8, 3), nn.BatchNorm1d(8), nn.Flatten(), nn.Linear(64, 2))
    module.eval()
    with torch.no_grad():
        module[0].weight[::2] = 0
        module[0].bias[::2] = 0
        module[1].bias[2] = 1.0
        module[3].weight.mul_(100)
    (group, _) = channel_groups(module, torch.randn(1, 4, 10))
    names = {"0.weight": module[0].weight, "3.weight": module[3].weight}
    scores = {name: criterion.finish(w, w, w.detach(), 1) for name, w in names.items()}
    found = unit_scores(module, group, scores, criterion)
    assert (found == 0).nonzero().flatten().tolist() == [0, 4, 6]


def test_a_weight_norm_is_made_plain_and_pruned(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weight_norm = nn.utils.parametrizations.weight_norm
    module = nn.Sequential(
        weight_norm(nn.Conv1d(3, 8, 3)), nn.ReLU(), weight_norm(nn.Conv1d(8, 8, 3)), nn.ReLU(),
        nn.Flatten(), nn.Linear(48, 2),
    ).eval()  # fmt: skip
    x = torch.randn(2, 3, 10)
    candidate = plain(Candidate(module, x[:1]))
    assert torch.allclose(candidate.module(x), module(x), atol=1e-6)
    groups = channel_groups(candidate.module, x[:1])
    assert [(g.name, len(g.units)) for g in groups if g.can_go] == [("0", 8), ("2", 8)]


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_a_pruned_recurrent_layer_and_tied_weights_come_back_from_disk(
    kind: type[nn.RNNBase], tmp_path: Path
) -> None:
    def make() -> nn.Module:
        layers = {"a": lambda: nn.Linear(6, 8), "t": lambda: nn.Linear(6, 8)}
        layers |= {"r": lambda: kind(8, 12, batch_first=True), "o": lambda: nn.Linear(12, 5)}
        module = network(lambda net, x: net.o(net.r(net.a(x) + net.t(x))[0][:, -1]), layers)
        module.t.weight = module.a.weight
        return module

    module, x = make(), torch.randn(2, 7, 6)
    groups = channel_groups(module, x[:1])
    hidden = next(group for group in groups if group.name == "r")
    smaller = remove_channels(module, x[:1], {"r": hidden.units[3], "a": [1]}, groups)
    save_module(smaller, tmp_path)
    loaded = load_module(make(), tmp_path)
    assert torch.equal(loaded(x), smaller(x))
    assert loaded.t.weight is loaded.a.weight


def test_a_multiple_of_channels_stays_in_every_layer_of_a_decoder() -> None:
    """16 outputs of the linear layer are one channel of the map: 16 channels of it stay."""
    forward, _, _ = CASES["a decoder"]
    layers = {"a": lambda: nn.Linear(3, 512), "b": lambda: nn.ConvTranspose2d(32, 10, 4, 2, 1)}
    module = network(forward, layers)
    (group, _) = channel_groups(module, torch.randn(IMAGES)[:1])
    assert group.step(16) == 16
    (pool,) = make_pools([group], {"a": torch.arange(32.0)}, {}, 16)
    gone = removals([group], [pool], {"a": pool.floor})
    smaller = remove_channels(module, torch.randn(IMAGES)[:1], gone, [group])
    assert (smaller.b.in_channels, smaller.a.out_features) == (16, 256)


def test_a_network_that_takes_too_long_is_refused_by_name() -> None:
    forward, layers, _ = CASES["chunks"]
    with pytest.raises(InputError, match="can't be traced within 0 s") as caught:
        channel_groups(network(forward, layers), torch.randn(IMAGES)[:1], seconds=0.0)
    assert "granularity = 'weights'" in caught.value.hint


def test_the_most_that_may_go_leaves_no_layer_empty() -> None:
    """Ten channels of one layer are six of another and four of a third: two groups."""
    layers = {"a": lambda: nn.Conv2d(3, 6, 1), "b": lambda: nn.Conv2d(3, 4, 1)}
    layers |= {"c": lambda: nn.Conv2d(3, 10, 1), "d": lambda: nn.Conv2d(10, 2, 1)}

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        return net.d(torch.relu(torch.cat([net.a(x), net.b(x)], 1) + net.c(x)))

    module, x = network(forward, layers), torch.randn(1, 3, 4, 4)
    groups = [group for group in channel_groups(module, x) if group.can_go]
    assert {group.name: len(group.units) for group in groups} == {"a": 6, "b": 4}
    gone = {group.name: [c for unit in group.units[1:] for c in unit] for group in groups}
    smaller = remove_channels(module, x, gone, groups)
    counts = [smaller.get_submodule(name).out_channels for name in "abc"]
    assert counts == [1, 1, 2]


def test_a_criterion_that_sees_nothing_of_any_group_is_refused_by_name() -> None:
    """The outputs of recurrent layers are not watched; their weights are."""
    layers = {"r": lambda: nn.GRU(6, 12, batch_first=True), "o": lambda: nn.Linear(12, 5)}
    module = network(lambda net, x: net.o(net.r(x)[0][:, -1]), layers)
    facts = (module, torch.randn(1, 7, 6), PruneSpec())
    assert channel_faults(*facts, MagnitudeL1(), 0.5, None, "stages.1") == []
    (fault,) = channel_faults(*facts, ActivationEnergy(), 0.5, None, "stages.1")
    assert "'r': it has no weights or outputs that this criterion can read" in str(fault)
    assert fault.hint == "'edgekd methods criterion' lists other criteria"
