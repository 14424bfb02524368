"""Types of weights by layer, chosen by an integer program within a size."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from edgekd.data.samples import Data
from edgekd.errors import InputError
from edgekd.quant.export import export_graph
from edgekd.quant.mixed import Mixed
from edgekd.quant.weight_only import finish_narrow, narrowed, stored_bytes, weighted_layers
from edgekd.quant.weight_options import OptionTrial, OutputError, WeightOption, weight_options
from edgekd.stages import Context, _option_errors
from edgekd.stages._bits import Types, choose_bits
from edgekd.stages.quantize import Quantize
from edgekd.values.candidate import Candidate
from edgekd.values.target import load_target

INT4 = WeightOption("int4")


def test_options_go_from_the_narrowest_to_the_widest_type_with_and_without_groups():
    texts = [option.text for option in weight_options("int4", "float", 32)]
    assert texts == ["int4", "int4/32", "int8", "float"]
    assert [option.text for option in weight_options("ternary", "int8", 0)] == [
        "ternary", "int4", "int8"
    ]  # fmt: skip


def test_an_option_takes_its_codes_and_its_scales():
    weight = torch.zeros(4, 64)
    assert WeightOption("int4").bits(weight) == 4 * 256 + 32 * 4
    assert WeightOption("int4", 32).bits(weight) == 4 * 256 + 32 * 8
    assert WeightOption("ternary").bits(weight) == 2 * 256 + 32 * 4
    assert WeightOption("int8").bits(weight) == 8 * 256 + 32 * 4
    assert WeightOption(None).bits(weight) == 32 * 256


@pytest.fixture
def candidate(data: Data) -> Candidate:
    """Three layers, of which the narrow one in the middle decides everything."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 4), nn.Linear(4, 48),
    )  # fmt: skip
    with torch.no_grad():
        network[3].weight[:, 0] *= 40.0
    return Candidate(network.eval(), data.example)


@pytest.fixture
def context(data: Data, tmp_path: Path) -> Context:
    return Context(load_target("x86"), data, [], tmp_path, calibration=data.train.x[:64])


def chosen(candidate: Candidate, context: Context, kb: float) -> Types:
    whole = export_graph(candidate.module, candidate.example)
    layers = tuple(weighted_layers(whole))
    options = weight_options("int4", "int8", 0)
    return choose_bits(Mixed(weights_kb=kb), options, whole, layers, candidate, context)


def options_of(types: Types) -> dict[str, WeightOption]:
    assert not isinstance(types.groups, int)
    return {name: WeightOption(dtype, types.groups[name]) for name, dtype in types.dtypes.items()}


def size_of(candidate: Candidate, types: dict[str, WeightOption]) -> float:
    whole = export_graph(candidate.module, candidate.example)
    dtypes = {name: option.narrow for name, option in types.items()}
    groups = {name: option.group for name, option in types.items()}
    return stored_bytes(finish_narrow(narrowed(whole, dtypes, groups, search=True))) / 1e3


def test_the_layer_that_the_outputs_depend_on_gets_more_bits(candidate, context):
    narrow = size_of(candidate, dict.fromkeys(("1", "3", "4"), INT4))
    found = chosen(candidate, context, narrow + 0.15)
    assert found.dtypes["1"] == "int4"  # 3,072 weights
    assert found.dtypes["3"] == "int8"  # 192 weights
    assert size_of(candidate, options_of(found)) <= narrow + 0.15
    assert "by an integer program" in found.note
    assert "int8: 3" in found.note


def test_errors_are_measured_once_for_the_same_network_and_samples(
    candidate, context, tmp_path, monkeypatch
):
    measured = []
    real = _option_errors.option_errors

    def counted(*facts):
        measured.append(1)
        return real(*facts)

    monkeypatch.setattr(_option_errors, "option_errors", counted)
    at = replace(context, cache=tmp_path / "cache")
    kb = size_of(candidate, dict.fromkeys(("1", "3", "4"), INT4)) + 0.15
    first = chosen(candidate, at, kb)
    assert chosen(candidate, at, kb) == first
    assert len(measured) == 1
    fewer = replace(at, calibration=at.calibration[:32])
    chosen(candidate, fewer, kb)
    assert len(measured) == 2
    with torch.no_grad():
        candidate.module[1].weight[0, 0] += 1.0
    chosen(candidate, at, kb)
    assert len(measured) == 3


def test_the_choice_errs_no_more_than_one_type_throughout_of_the_same_size(candidate, context):
    uniform = dict.fromkeys(("1", "3", "4"), INT4)
    found = chosen(candidate, context, size_of(candidate, uniform) + 0.5)
    whole = export_graph(candidate.module, candidate.example)
    trial = OptionTrial(whole, ("1", "3", "4"))
    error = OutputError(candidate.module, context.calibration)
    trial.set(uniform)
    before = error(trial.graph)
    trial.set(options_of(found))
    assert error(trial.graph) < before


def test_everything_is_wide_where_the_size_allows_it(candidate, context):
    found = chosen(candidate, context, 100.0)
    assert set(found.dtypes.values()) == {"int8"}


def test_a_size_out_of_reach_is_refused_with_the_least_that_is_reachable(candidate, context):
    with pytest.raises(InputError, match="the weights take at least") as caught:
        chosen(candidate, context, 0.5)
    least = size_of(candidate, dict.fromkeys(("1", "3", "4"), INT4))
    assert caught.value.allowed == f"{least:.1f} or more, found 0.5"
    assert "prune or factorize first" in caught.value.hint


def test_the_stage_stores_each_layer_in_its_type(candidate, context):
    narrow = size_of(candidate, dict.fromkeys(("1", "3", "4"), INT4))
    stage = Quantize(dtype="int4", group=0, mixed={"weights_kb": narrow + 0.15, "wide": "int8"})
    assert stage.check(candidate, context, "stages[0]") == []
    made = stage.run(candidate, context)
    assert stored_bytes(made.source) / 1e3 <= narrow + 0.15
    assert "by an integer program" in made.lineage[-1]


def test_int8_refuses_a_size_and_says_which_types_have_one(candidate, context):
    stage = Quantize(mixed={"weights_kb": 10})
    faults = stage.check(candidate, context, "stages[0]")
    assert [str(fault.where) for fault in faults] == ["stages[0].mixed.weights_kb"]
    assert "int8 has 8 bits everywhere" in faults[0].message
