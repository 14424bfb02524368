"""Networks within a network: channels in order, the first ones cut out, norms of their own."""

from dataclasses import replace

import pytest
import torch
from contexts import context
from torch import nn

from edgekd.data.samples import Data, Samples
from edgekd.network.evaluation import predict
from edgekd.registry import CRITERIA, STAGES
from edgekd.stages.prune.channels import channel_groups
from edgekd.stages.prune.nested import in_order, nested, recalibrated
from edgekd.stages.prune.scoring import unit_scores
from edgekd.stages.prune.spec import PruneSpec
from edgekd.training.teaching import Teaching
from edgekd.values.candidate import Candidate
from edgekd.values.target import load_target


def net(seed=0):
    torch.manual_seed(seed)
    made = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
    )  # fmt: skip
    made[1].running_mean.normal_()
    return made.eval()


def groups_of(module, x):
    return [group for group in channel_groups(module, x) if group.can_go]


X = torch.rand(1, 1, 6, 6)


def test_channels_in_order_of_their_scores_compute_the_same():
    module, x = net(), torch.randn(5, 1, 6, 6)
    before, first = predict(module, x), module[0].weight.detach().clone()
    mean = module[1].running_mean.clone()
    groups = groups_of(module, X)
    in_order(module, X, groups, {"0": torch.tensor([1.0, 4.0, 2.0, 3.0]), "3": torch.arange(6.0)})
    assert torch.equal(module[0].weight, first[[1, 3, 2, 0]])
    assert torch.equal(module[1].running_mean, mean[[1, 3, 2, 0]])
    assert torch.allclose(predict(module, x), before, atol=1e-6)


def test_a_narrower_network_is_the_beginning_of_each_parameter():
    module = net()
    smaller, kept = nested(module, X, groups_of(module, X), 0.5, PruneSpec())
    assert torch.equal(smaller[0].weight, module[0].weight[:2])
    assert torch.equal(smaller[3].weight, module[3].weight[:3, :2])
    assert [(dim, indices.tolist()) for dim, indices in sorted(kept["3.weight"])] == [
        (0, [0, 1, 2]), (1, [0, 1]),
    ]  # fmt: skip


def test_groups_whose_places_have_a_meaning_keep_their_order():
    class Ramp(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.last(self.first(x) * torch.arange(1.0, 5.0)[: self.first.out_features])

    torch.manual_seed(0)
    module, x = Ramp().eval(), torch.rand(1, 3)
    groups = channel_groups(module, x)
    weight = module.first.weight.detach().clone()
    in_order(module, x, groups, {group.name: torch.arange(len(group.units)) for group in groups})
    assert torch.equal(module.first.weight, weight)


def test_batch_norms_get_the_mean_statistics_of_their_own_inputs():
    norm = nn.BatchNorm1d(2)
    norm.running_mean.fill_(7.0)
    norm.eval()
    x = torch.randn(128, 2) * 3 + 1
    recalibrated(norm, Samples(x, torch.zeros(128, dtype=torch.int64)))
    assert torch.allclose(norm.running_mean, x.mean(0), atol=1e-5)
    halves = (x[:64].var(0) + x[64:].var(0)) / 2
    assert torch.allclose(norm.running_var, halves, atol=1e-4)
    assert norm.momentum == 0.1
    assert not norm.training


def test_the_criterion_keeps_the_first_units_whatever_their_weights_are():
    module = net()
    (group, _) = groups_of(module, X)
    criterion = CRITERIA.get("nested").make()
    assert unit_scores(module, group, {}, criterion).tolist() == [4.0, 3.0, 2.0, 1.0]


def test_pruning_by_the_order_cuts_a_width_out_without_training(tmp_path):
    samples = Samples(torch.randn(80, 1, 6, 6) + 2, torch.arange(80) % 3)
    data = Data("d", samples, samples, samples, 3)
    module = net()
    stage = STAGES.get("prune").make(criterion="nested", amount=0.5, epochs=0)
    at = replace(context(Teaching(), data=data, work=tmp_path), target=small_steps())
    cut = stage.run(Candidate(module, X), at).module
    assert torch.equal(cut[0].weight, module[0].weight[:2])
    wanted = nn.functional.conv2d(samples.x, module[0].weight[:2], module[0].bias[:2], padding=1)
    assert torch.allclose(cut[1].running_mean, wanted.mean((0, 2, 3)), atol=0.02)


class Added(nn.Module):
    """Adds a factor of what it is given."""

    def __init__(self, factor):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.constant_(self.conv.weight, factor)

    def forward(self, x):
        return x + self.conv(x)


def stages():
    """Three blocks at 6x6 and two at 3x3."""
    return nn.Sequential(
        Added(1.0), Added(2.0), Added(3.0), nn.AvgPool2d(2), Added(4.0), Added(5.0),
        nn.BatchNorm2d(1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 3),
    ).eval()  # fmt: skip


@pytest.mark.parametrize(
    ("amount", "factor"), [(0.2, 2 * 3 * 5 * 6), (0.5, 2 * 3 * 5), (0.999, 1.0)]
)
def test_a_depth_leaves_the_first_blocks_of_each_stage_with_norms_of_their_own(
    amount, factor, tmp_path
):
    samples = Samples(torch.rand(64, 1, 6, 6), torch.arange(64) % 3)
    data = Data("d", samples, samples, samples, 3)
    stage = STAGES.get("prune").make(
        criterion="nested", amount=amount, granularity="blocks", epochs=0
    )
    candidate = Candidate(stages(), X)
    assert stage.check(candidate, context(Teaching(), data=data, work=tmp_path), "stages.1") == []
    cut = stage.run(candidate, context(Teaching(), data=data, work=tmp_path)).module
    assert torch.allclose(predict(cut[:6], X), nn.functional.avg_pool2d(X, 2) * factor)
    assert float(cut[6].running_mean) == pytest.approx(float(samples.x.mean()) * factor, rel=1e-4)
    assert float(candidate.module[6].running_mean) == 0.0


def test_the_order_says_nothing_of_single_weights(tmp_path):
    stage = STAGES.get("prune").make(
        criterion="nested", amount=0.5, granularity="weights", epochs=0
    )
    samples = Samples(torch.randn(8, 1, 6, 6), torch.arange(8) % 3)
    at = context(Teaching(), data=Data("d", samples, samples, samples, 3), work=tmp_path)
    (fault, *_) = stage.check(Candidate(net(), X), at, "stages.1")
    assert "'nested' is an order of channels and blocks" in str(fault)


def small_steps():
    return load_target("x86").model_copy(update={"channel_multiple": 1})
