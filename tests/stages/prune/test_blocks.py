"""Residual blocks: found by what they do, removed down to their shortcut."""

import pytest
import torch
from contexts import context
from torch import Tensor, nn

from edgekd.data.samples import Data, Samples
from edgekd.models.ds_cnn import ds_cnn
from edgekd.models.mobilenet_v2 import mobilenet_v2
from edgekd.models.resnet import resnet8, resnet20
from edgekd.models.transformer import transformer
from edgekd.network.cost import totals
from edgekd.registry import CRITERIA
from edgekd.stages.prune.blocks import (
    Block,
    block_scores_of,
    branch_energy,
    cut_blocks,
    first_blocks,
    remove_blocks,
    residual_blocks,
)
from edgekd.stages.prune.spec import Goal, PruneSpec
from edgekd.training.teaching import Teaching
from edgekd.values.tables import build

torch.set_num_threads(1)
IMAGE = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def names(module: nn.Module, x: Tensor = IMAGE) -> list[str]:
    return [block.name for block in residual_blocks(module.eval(), x)]


def test_a_resnet_loses_only_blocks_whose_shortcut_is_plain() -> None:
    assert names(resnet8(channels=1)) == ["stages.0.0"]
    found = ["stages.0.0", "stages.0.1", "stages.0.2"]
    found += [f"stages.{stage}.{block}" for stage in (1, 2) for block in (1, 2)]
    assert names(resnet20(channels=1)) == found


def test_an_encoder_block_is_one_block_and_not_two() -> None:
    module = transformer(size=8, patch=2, width=8, depth=3, heads=2)
    assert names(module) == ["blocks.0", "blocks.1", "blocks.2"]


def test_a_block_without_a_shortcut_is_not_a_residual_block() -> None:
    assert names(ds_cnn(width=8, blocks=2, small_stem=True)) == []
    assert len(names(mobilenet_v2(channels=1, width=0.25), torch.rand(1, 1, 32, 32))) > 5


def test_a_block_that_runs_twice_is_not_a_residual_block() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = transformer(size=8, patch=2, width=8, depth=1, heads=2).blocks[0]

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.part(self.part(x))
            return out

    assert names(Twice(), torch.rand(1, 4, 8)) == []


@pytest.mark.parametrize("make", [lambda: resnet20(channels=1), lambda: transformer(8, depth=3)])
def test_without_its_block_a_network_gives_what_it_gives_with_an_empty_one(make) -> None:
    torch.manual_seed(0)
    module = make().eval()
    gone = names(module)[1:2]
    smaller = remove_blocks(module, IMAGE, gone)
    with torch.no_grad():
        for parameter in module.get_submodule(gone[0]).parameters():
            parameter.zero_()
        expected, found = module(IMAGE), smaller(IMAGE)
    assert torch.equal(found, expected)
    assert totals(smaller, IMAGE).macs < totals(module, IMAGE).macs


class Scaled(nn.Module):
    """x + factor x, with one number to learn; a 1x1 convolution of one channel."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.constant_(self.conv.weight, factor)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv(x)
        return out


def test_the_energy_of_a_branch_is_the_mean_square_of_what_it_adds() -> None:
    module = nn.Sequential(Scaled(0.5), Scaled(-2.0))
    x = torch.full((2, 1, 2, 2), 2.0)
    blocks = residual_blocks(module, x[:1])
    energies = branch_energy(module, blocks, x)
    # 0.5 * 2 = 1, and behind the first block -2 * 3 = -6
    assert {name: float(value) for name, value in energies.items()} == {"0": 1.0, "1": 36.0}
    energy = build(CRITERIA.get("activation-energy"), {}, "")
    assert block_scores_of(module, blocks, energies, energy) == {"0": 1.0, "1": 36.0}


def test_a_block_is_worth_its_kernels_by_the_criterion() -> None:
    module = nn.Sequential(Scaled(0.5), Scaled(-2.0))
    blocks = [Block("0", (1,)), Block("1", (1,))]
    scores = {"0.conv.weight": torch.tensor([[9.0, 16.0]]), "1.conv.weight": torch.tensor([4.0])}
    l2 = build(CRITERIA.get("magnitude-l2"), {}, "")
    assert block_scores_of(module, blocks, scores, l2) == {"0": 5.0, "1": 2.0}


def cut(module: nn.Module, allocation: str, **keys: object) -> nn.Module:
    x = torch.rand(1, 1, 2, 2)
    blocks = residual_blocks(module, x)
    goal = Goal(**{"first": first_blocks(blocks), "amount": None, "limit": None, **keys})
    samples = Samples(torch.rand(4, 1, 2, 2), torch.ones(4, dtype=torch.int64))
    scores = {name: value.detach().abs() for name, value in module.named_parameters()}
    criterion = build(CRITERIA.get("magnitude-l1"), {}, "")
    where = context(Teaching(), data=Data("ones", samples, samples, samples, 2))
    return cut_blocks(module, x, PruneSpec(allocation), scores, criterion, goal, where)


class Head(nn.Module):
    """The mean as the logit of class 0 and its negative as that of class 1."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3))
        return torch.stack([mean, -mean], 1)


@pytest.mark.parametrize(
    ("allocation", "keys", "gone"),
    [
        ("uniform", {"amount": 0.34}, ["1"]),
        ("global", {"amount": 0.67}, ["0", "1"]),
        ("uniform", {"limit": 4.0}, ["0", "1"]),
    ],
)
def test_the_worst_blocks_go(allocation: str, keys: dict, gone: list[str]) -> None:
    module = nn.Sequential(Scaled(0.5), Scaled(0.25), Scaled(-0.75), Head()).eval()
    assert gone_from(cut(module, allocation, **keys)) == gone


def test_by_sensitivity_the_block_that_decides_the_class_stays() -> None:
    # The last one turns the sign, and with it the class, though its weight is the smallest.
    module = nn.Sequential(Scaled(3.0), Scaled(3.5), Scaled(-2.0), Head()).eval()
    assert gone_from(cut(module, "sensitivity", amount=0.67)) == ["0", "1"]
    assert gone_from(cut(module, "global", amount=0.34)) == ["2"]


def gone_from(module: nn.Module) -> list[str]:
    return [name for name, part in module.named_children() if isinstance(part, nn.Identity)]
