"""The factorize stage on scikit-learn's digits."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from taught_digits import teacher
from torch import nn

from edgekd.data.samples import Data
from edgekd.models.mobilenet_v2 import mobilenet_v2
from edgekd.models.resnet import resnet8
from edgekd.network.cost import totals
from edgekd.network.evaluation import evaluate, predict
from edgekd.network.storage import load_module, save_module
from edgekd.stages import Context
from edgekd.stages.factorize import Factorize
from edgekd.values.candidate import Candidate
from edgekd.values.target import load_target


def ran(data: Data, module: nn.Module, work: Path, **keys: Any) -> Candidate:
    stage = Factorize(**{"batch_size": 32, "learning_rate": 1e-3, "epochs": 0, **keys})
    target = load_target("x86").model_copy(update={"channel_multiple": 4})
    context = Context(target, data, [teacher(module)], work)
    candidate = Candidate(module, data.example)
    assert stage.check(candidate, context, "stages.1") == []
    return stage.run(candidate, context)


@pytest.mark.parametrize("convolution", ["auto", "spatial-svd", "channel-svd", "tucker2"])
def test_a_budget_is_met_by_every_method(
    convolution: str, data: Data, trained: nn.Module, tmp_path: Path
) -> None:
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    result = ran(data, trained, tmp_path, convolution=convolution, rank={"budget": 0.6})
    whole, less = totals(trained, data.example), totals(result.module, data.example)
    assert 0.4 < less.macs / whole.macs <= 0.6
    assert f"{whole.macs:,} -> {less.macs:,} MACs" in result.lineage[-1]
    assert all(torch.equal(before[name], value) for name, value in trained.state_dict().items())


def test_weighting_keeps_more_of_the_accuracy(
    data: Data, trained: nn.Module, tmp_path: Path
) -> None:
    plain = ran(data, trained, tmp_path, rank={"budget": 0.5}, weighted=False)
    weighted = ran(data, trained, tmp_path, rank={"budget": 0.5})
    assert evaluate(weighted.module, data.test) > evaluate(plain.module, data.test) + 0.1


def test_a_factorized_network_recovers_and_can_be_stored(
    data: Data, trained: nn.Module, tmp_path: Path
) -> None:
    result = ran(data, trained, tmp_path / "work", rank={"budget": 0.4}, epochs=2)
    assert evaluate(result.module, data.test) > 0.9
    save_module(result.module, tmp_path)
    again = load_module(resnet8(channels=1), tmp_path)
    assert torch.equal(predict(again, data.test.x), predict(result.module, data.test.x))


def test_nothing_changes_where_nothing_gets_cheaper(
    data: Data, trained: nn.Module, tmp_path: Path
) -> None:
    result = ran(data, trained, tmp_path, rank={"energy": 0.9999999}, weighted=False)
    assert totals(result.module, data.example) == totals(trained, data.example)
    assert "no layer became cheaper" in result.lineage[-1]
    assert "stem.0 (not cheaper)" in result.lineage[-1]


def test_depthwise_layers_are_named_as_left_alone(data: Data, tmp_path: Path) -> None:
    module = mobilenet_v2(channels=1).eval()
    result = ran(data, module, tmp_path, rank={"energy": 0.5})
    assert "stages.0.0.filter.0 (depthwise)" in result.lineage[-1]
    assert totals(result.module, data.example).macs < totals(module, data.example).macs


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"rank": {"rank": 16}}, "a rank of 16 is above the full rank of 'stem.0'"),
        ({"rank": {"budget": 0.001}}, "out of reach"),
        ({"ignore": ("classifer",)}, "did you mean 'classifier'?"),
        ({"linear": "none", "convolution": "none"}, "no layer can be factorized"),
    ],
)
def test_what_cannot_work_is_said_at_once(keys: dict, message: str, data: Data) -> None:
    module = resnet8(channels=1).eval()
    context = Context(load_target("x86"), data, [teacher(module)], Path("unused"))
    stage = Factorize(epochs=0, **keys)
    found = stage.check(Candidate(module, data.example), context, "stages.2")
    assert any(message in f"{fault} {fault.hint}" for fault in found)
    assert stage.check(Candidate(module, data.example, "int8"), context, "stages.2")


def test_one_rule_for_ranks_is_asked_for() -> None:
    with pytest.raises(ValueError, match="found energy and rank"):
        Factorize(rank={"energy": 0.9, "rank": 4})


def test_by_sensitivity_no_layer_costs_more_than_is_allowed(
    data: Data, trained: nn.Module, tmp_path: Path
) -> None:
    whole = evaluate(trained, data.validation)
    macs = []
    for allowed in (0.0, 0.05, 0.9):
        keys = {"rank": {"sensitivity": allowed}, "convolution": "channel-svd"}
        result = ran(data, trained, tmp_path / str(allowed), weighted=False, **keys)
        macs.append(totals(result.module, data.example).macs)
        split = [n for n, part in trained.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)
                 and isinstance(result.module.get_submodule(n), nn.Sequential)]  # fmt: skip
        assert split
        for name in split[:3] if allowed < 0.9 else ():
            alone = copy.deepcopy(trained)
            alone.set_submodule(name, result.module.get_submodule(name))
            assert evaluate(alone.eval(), data.validation) >= whole - allowed - 1e-9, name
    assert totals(trained, data.example).macs > macs[0] >= macs[1] > macs[2]


def test_sensitivity_without_samples_to_measure_on_is_refused(
    data: Data, trained: nn.Module
) -> None:
    none = data.validation.first(0)
    context = Context(load_target("x86"), dataclasses.replace(data, validation=none), [], Path())
    stage = Factorize(rank={"sensitivity": 0.01}, epochs=0)
    (fault,) = stage.check(Candidate(trained, data.example), context, "stages.1")
    assert "sensitivity is measured on validation samples" in str(fault)
    assert fault.where == "stages.1.rank.sensitivity"


def test_the_plan_refuses_to_split_less_than_the_least_share(
    data: Data, trained: nn.Module, tmp_path: Path
) -> None:
    context = Context(load_target("x86"), data, [teacher(trained)], tmp_path)
    stage = Factorize(convolution="none", least=0.5, epochs=0)
    faults = stage.check(Candidate(trained, data.example), context, "stages.1")
    (fault,) = [each for each in faults if each.where == "stages.1.least"]
    assert "these would stay: " in fault.message
    assert "%)" in fault.message
