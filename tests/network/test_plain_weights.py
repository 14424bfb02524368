"""Computed weights become plain parameters, and what older hooks compute can be copied."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from edgekd.network.plain_weights import (
    has_computed_weights,
    hooks_to_parametrizations,
    with_plain_weights,
)


def masked() -> nn.Linear:
    layer = nn.Linear(4, 4)
    prune.custom_from_mask(layer, "weight", torch.eye(4))
    return layer


HOOKED = {
    "mask": masked,
    "weight_norm": lambda: nn.utils.weight_norm(nn.Linear(4, 4)),
    "spectral_norm": lambda: nn.utils.spectral_norm(nn.Linear(4, 4)),
}
LAYERS = {
    **HOOKED,
    "weight_norm-parametrization": lambda: parametrizations.weight_norm(nn.Linear(4, 4)),
    "orthogonal": lambda: parametrizations.orthogonal(nn.Linear(4, 4)),
}
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def test_a_plain_module_is_given_back_itself():
    module = nn.Sequential(nn.Linear(2, 2))
    assert not has_computed_weights(module)
    assert with_plain_weights(module) is module


@pytest.mark.parametrize("kind", LAYERS)
def test_the_copy_is_plain_and_computes_the_same(kind):
    torch.manual_seed(0)
    module, x = nn.Sequential(LAYERS[kind](), nn.ReLU()).eval(), torch.randn(5, 4)
    expected = module(x).detach()
    plain = with_plain_weights(module)
    assert not has_computed_weights(plain)
    assert sorted(plain.state_dict()) == ["0.bias", "0.weight"]
    assert isinstance(plain[0].weight, nn.Parameter)
    assert type(plain[0]) is nn.Linear
    assert torch.allclose(plain(x), expected, atol=1e-6)
    assert has_computed_weights(module)  # the module itself is as it was
    assert torch.allclose(module(x), expected, atol=1e-6)


def test_each_part_keeps_its_mode():
    module = nn.Sequential(masked(), nn.Dropout()).train()
    module[1].eval()
    plain = with_plain_weights(module)
    assert [plain.training, plain[0].training, plain[1].training] == [True, True, False]
    assert plain[0].weight.requires_grad


@pytest.mark.parametrize("kind", HOOKED)
def test_hooks_become_parametrizations_that_can_be_copied_and_trained(kind):
    torch.manual_seed(0)
    module, x = nn.Sequential(HOOKED[kind]()).eval(), torch.randn(5, 4)
    expected = module(x)  # leaves a weight with a history
    hooks_to_parametrizations(module)
    assert parametrize.is_parametrized(module[0])
    twin = copy.deepcopy(module)
    assert torch.allclose(twin(x), expected, atol=1e-6)
    twin(x).sum().backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in twin.parameters())


def test_masked_weights_stay_zero_while_they_are_trained():
    layer = nn.Sequential(masked())
    hooks_to_parametrizations(layer)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    layer(torch.randn(3, 4)).square().sum().backward()
    optimizer.step()
    weight = with_plain_weights(layer)[0].weight
    assert torch.equal(weight != 0, torch.eye(4) != 0)
