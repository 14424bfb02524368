"""The narrower networks of an elastic training share its parameters and are what pruning cuts."""

import copy
from dataclasses import replace

import pytest
import torch
from classroom import data, network, scheme, situation
from torch import nn

from edgekd.errors import InputError
from edgekd.network.evaluation import evaluate, predict
from edgekd.registry import STAGES
from edgekd.stages.distill.schemes.elastic import Part
from edgekd.stages.prune.blocks import residual_blocks
from edgekd.values.candidate import Candidate


def test_a_part_computes_what_the_cut_network_does_and_its_gradients_reach_the_whole(tmp_path):
    at, whole = situation("elastic", tmp_path), network(3)
    at = replace(at, target=one_by_one(at.target))
    pruning = STAGES.get("prune").make(criterion="nested", amount=0.5, epochs=0)
    smaller, kept = pruning.nested(Candidate(whole, at.data.example), at)
    part = Part(smaller, kept).of(whole).eval()
    x = at.data.test.x
    assert torch.allclose(part(x), predict(smaller, x), atol=1e-6)
    whole.zero_grad(set_to_none=True)
    part(x).square().sum().backward()
    gradient = whole.get_parameter("stem.0.weight").grad
    assert gradient[:2].abs().sum() > 0
    assert gradient[2:].abs().sum() == 0


def test_a_part_of_a_depth_computes_the_whole_network_without_its_last_blocks(tmp_path):
    at, whole = situation("elastic", tmp_path), network(3)
    at = replace(at, target=one_by_one(at.target))
    candidate = Candidate(whole, at.data.example)
    made = scheme("elastic", widths=(0.5,), depths=(0.0,))
    assert made._sizes == [(0.5, 0.0), (1.0, 0.0), (0.5, 1.0)]
    part = made._part(candidate, at, 1.0, 0.0).of(whole).eval()
    # Of this ResNet's three blocks only the first two have a plain shortcut.
    shallow = copy.deepcopy(whole)
    blocks = [block.name for block in residual_blocks(whole, at.data.example)]
    assert blocks
    for name in blocks:
        shallow.set_submodule(name, nn.Identity())
    x = at.data.test.x
    assert torch.allclose(part(x), predict(shallow, x), atol=1e-6)
    assert not torch.allclose(part(x), predict(whole, x), atol=1e-3)
    whole.zero_grad(set_to_none=True)
    part(x).square().sum().backward()
    assert all(whole.get_parameter(f"{name}.conv1.weight").grad is None for name in blocks)
    assert whole.get_parameter("stem.0.weight").grad.abs().sum() > 0
    # Half the width and none of the blocks is what two cuts leave.
    both = made._part(candidate, at, 0.5, 0.0)
    cut = made._dropping(0.0).nested(replace(candidate, source=both.network), at)[0]
    assert [name for name, _ in cut.named_parameters()] == [name for name, _ in
            both.network.named_parameters()]  # fmt: skip
    assert both.of(whole)(x).shape == predict(whole, x).shape


def test_shallow_networks_learn_what_an_ordinary_training_leaves_out(tmp_path):
    teaching = {"epochs": 12, "learning_rate": 0.02, "keep": "last", "label_weight": 1.0}
    at = situation("elastic", tmp_path / "a", teaching=teaching, data=data(count=192))
    at = replace(at, target=one_by_one(at.target))
    dropping = STAGES.get("prune").make(
        criterion="nested", granularity="blocks", amount=0.999, epochs=0
    )

    def shallow(name):
        table = {"widths": (0.75,), "depths": (0.0,)} if name == "elastic" else {}
        result = scheme(name, **table).teach(network(0, width=8), at.phase(name))
        if name == "elastic":
            assert result.note == "with the widths 0.75 and the depths 0 in it"
        cut = dropping.run(Candidate(result.module, at.data.example), at.phase(f"cut-{name}"))
        return evaluate(cut.module, at.data.train)

    assert shallow("elastic") > shallow("offline") + 0.1


def one_by_one(target):
    return target.model_copy(update={"channel_multiple": 1})


def test_each_step_draws_the_narrowest_and_some_others():
    parts = [nn.Identity() for _ in range(4)]
    made = scheme("elastic", widths=(0.2, 0.4, 0.6, 0.8), draws=2)
    torch.manual_seed(0)
    seen = set()
    for _ in range(30):
        first, *others = made._drawn(parts)
        assert first is parts[0]
        assert len(set(others)) == 2
        seen |= {parts.index(each) for each in others}
    assert seen == {1, 2, 3}
    assert scheme("elastic", widths=(0.5,), draws=2)._drawn(parts[:1]) == parts[:1]


def test_narrow_networks_learn_what_an_ordinary_training_leaves_out(tmp_path):
    teaching = {"epochs": 12, "learning_rate": 0.02, "keep": "last", "label_weight": 1.0}
    at = situation("elastic", tmp_path / "a", teaching=teaching, data=data(count=192))
    at = replace(at, target=one_by_one(at.target))
    student = network(0, width=8)
    pruning = STAGES.get("prune").make(criterion="nested", amount=0.5, epochs=0)

    def narrow(name):
        table = {"widths": (0.5, 0.75)} if name == "elastic" else {}
        taught = scheme(name, **table).teach(network(0, width=8), at.phase(name)).module
        assert type(taught) is type(student)
        cut = pruning.run(Candidate(taught, at.data.example), at.phase(f"cut-{name}")).module
        return evaluate(cut, at.data.train)

    assert narrow("elastic") > narrow("offline") + 0.2


@pytest.mark.parametrize(
    ("keys", "teaching", "message"),
    [
        ({"widths": ()}, {}, "give shares of the channels between 0 and 1"),
        ({"widths": (0.5, 1.0)}, {}, "give shares of the channels between 0 and 1"),
        ({"depths": (1.0,)}, {}, "give shares of the blocks from 0 to below 1"),
        ({"draws": -1}, {}, "draws"),
        ({"ignore": ("stemm",)}, {}, "no layer 'stemm'"),
        ({"widths": (0.001,)}, {}, "leaves no channel"),
    ],
)
def test_what_can_not_be_trained_is_refused(keys, teaching, message, tmp_path):
    at = situation("elastic", tmp_path, teaching=teaching)
    try:
        (fault, *_) = scheme("elastic", **keys).check(network(), at)
    except InputError as error:
        fault = error
    assert message in str(fault)


def test_without_a_teacher_labels_have_to_count(tmp_path):
    at = situation("elastic", tmp_path, teachers=[], teaching={"label_weight": 0.0})
    (fault,) = scheme("elastic").check(network(), at)
    assert "nothing teaches the whole network" in str(fault)
