"""Channels that are hidden while a network trains, and cut out afterwards."""

import pytest
import torch
from torch import nn

from edgekd.models.mobilenet_v2 import mobilenet_v2
from edgekd.models.resnet import resnet8
from edgekd.models.transformer import transformer
from edgekd.registry import CRITERIA
from edgekd.stages.prune.channels import remove_channels
from edgekd.stages.prune.moving import _names, _silence, _worst, hide_inputs
from edgekd.stages.prune.spec import PruneSpec
from edgekd.stages.prune.structured import selected_groups
from edgekd.stages.prune.weights import moving_masks
from edgekd.values.tables import build

torch.set_num_threads(1)


def mask_of(layer: nn.Module, inputs: list[int]) -> torch.Tensor:
    mask = torch.ones_like(layer.weight, dtype=torch.bool)
    hide_inputs(layer, mask, inputs)
    return mask


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(4, 3),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.Conv2d(4, 6, 3, padding=1, groups=2),
        nn.ConvTranspose2d(4, 6, 3, padding=1),
    ],
)
def test_a_layer_with_hidden_inputs_gives_what_it_gives_for_zeros(layer: nn.Module) -> None:
    torch.manual_seed(0)
    x = torch.rand((2, 4) if isinstance(layer, nn.Linear) else (2, 4, 5, 5))
    silent = x.clone()
    silent[:, [1, 2]] = 0
    expected = layer(silent)
    with torch.no_grad():
        layer.weight.mul_(mask_of(layer, [1, 2]))
    assert torch.allclose(layer(x), expected, atol=1e-6)


MODELS = {
    "resnet": (lambda: resnet8(channels=1), "channels", (1, 1, 8, 8)),
    "mobilenet": (lambda: mobilenet_v2(channels=1, width=0.25), "channels", (1, 1, 32, 32)),
    "neurons": (lambda: transformer(8, patch=2, width=16, depth=2), "neurons", (1, 1, 8, 8)),
    "heads": (lambda: transformer(8, patch=2, width=16, depth=2), "heads", (1, 1, 8, 8)),
}


@pytest.mark.parametrize("name", MODELS)
def test_what_is_hidden_can_be_cut_out_with_the_same_outputs(name: str) -> None:
    make, kind, shape = MODELS[name]
    torch.manual_seed(0)
    module, x = make(), torch.rand(4, *shape[1:])
    for _ in range(3):
        module(x)  # the batch norms' statistics
    module.eval()
    wish = PruneSpec("uniform", 1, (), kind)
    criterion = build(CRITERIA.get("movement"), {}, "")
    groups = selected_groups(module, x[:1], wish, criterion).chosen
    names = _names(module, groups)
    scores = {name: torch.randn_like(module.get_parameter(name)) for name in names}
    gone = _worst(module, groups, wish, criterion, scores, 0.5)
    smaller = remove_channels(module, x[:1], gone)
    with moving_masks(module, names, criterion) as masks, torch.no_grad():
        _silence(module, groups, masks, gone)
        hidden = module(x)
    with torch.no_grad():
        assert torch.allclose(smaller(x), hidden, atol=1e-5)
        assert not torch.allclose(smaller(x), module(x) + 1e-3, atol=1e-5)


def test_a_hidden_channel_goes_on_learning_and_can_come_back() -> None:
    module = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[1.0], [1.0]]))
        module[1].weight.copy_(torch.tensor([[1.0, 1.0]]))
    x = torch.ones(1, 1)
    criterion = build(CRITERIA.get("movement"), {}, "")
    groups = selected_groups(module, x, PruneSpec(), criterion).chosen
    with moving_masks(module, _names(module, groups), criterion) as masks:
        _silence(module, groups, masks, {"0": [1]})
        module.train()
        out = module(x)
        assert out.item() == 1.0
        (-out).sum().backward()
        # dL/dw = -1 behind the mask too, so that S = -w dL/dw = 1 for the hidden column as well.
        assert masks["1.weight"].scores.tolist() == [[1.0, 1.0]]
        # The layer before gets no gradient through a column that is hidden.
        assert masks["0.weight"].scores.tolist() == [[1.0], [0.0]]
        original = module[1].parametrizations["weight"].original
        assert original.grad.tolist() == [[-1.0, 0.0]]
