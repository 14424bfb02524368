"""What no loss may be given is refused for each registered one, by the check of the plan."""

import pytest
import torch
from contexts import context
from teaching_cases import data, encoder, faults, resnet, situation, table, teacher_of, teaching
from torch import nn

from edgekd.errors import InputError
from edgekd.registry import LOSSES
from edgekd.training.distillation import check_teaching
from edgekd.training.losses import DepthsLoss, FeatureLoss, OutputLoss, ResponseLoss
from edgekd.values.tables import build

NAMES = LOSSES.names()
NUMBERS = [
    (name, key)
    for name in NAMES
    for key, parameter in LOSSES.get(name).parameters.items()
    if parameter.annotation in (float, int)
]
KINDS = {kind: [n for n in NAMES if issubclass(LOSSES.get(n).make, kind)]
         for kind in (ResponseLoss, OutputLoss, FeatureLoss, DepthsLoss)}  # fmt: skip
ON_LAYERS = KINDS[FeatureLoss] + KINDS[DepthsLoss]


def told(name: str, **changes) -> str:
    return faults({**table(name), **changes}, on=situation(name))


@pytest.mark.parametrize("name", NAMES)
def test_what_the_tests_give_each_loss_is_sound(name):
    assert told(name) == ""


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), "much"])
@pytest.mark.parametrize(("name", "key"), NUMBERS)
def test_a_number_that_means_nothing_is_refused_with_its_key(name, key, value):
    given = (
        int(value) if LOSSES.get(name).parameters[key].annotation is int and value == -1 else value
    )
    with pytest.raises(InputError, match=key) as caught:
        build(LOSSES.get(name), {key: given}, "losses.1")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("name", "key"), [n for n in NUMBERS if n[1] == "temperature"])
def test_a_temperature_of_zero_is_refused_by_the_plan(name, key):
    assert "temperature must be above 0, found 0" in told(name, temperature=0.0)


@pytest.mark.parametrize("name", ON_LAYERS)
def test_a_layer_that_does_not_exist_is_refused_with_the_nearest(name):
    count = {"graph": 3, "minilm": 2}.get(name, 2 if name in KINDS[DepthsLoss] else 1)
    wrong = ["stages.9", "stages.8", "stages.7"][:count]
    given = {key: value for key, value in table(name).items() if key != "layers"}
    layers = wrong if count > 1 else wrong[0]
    found = faults({**given, "student": layers, "teacher": layers}, on=situation(name))
    for layer in wrong:
        assert found.count(f"no layer '{layer}'") == 2, "once on each side"


@pytest.mark.parametrize("name", KINDS[ResponseLoss] + KINDS[OutputLoss])
def test_a_layer_for_a_loss_that_reads_none_is_refused(name):
    assert f"'{name}' compares" in told(name, student="first")
    assert "reads no layer" in told(name, student="first")


FLATTENED = {"correlation", "pkt", "rkd-angle", "rkd-distance", "similarity"}
AVERAGED = {"crd", "cross-modal", "adversarial"}


def flat(outputs: int) -> nn.Module:
    """A network of maps whose layer 1 gives a vector."""
    torch.manual_seed(0)
    last = nn.Unflatten(1, (outputs, 8, 8))
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64 * outputs), last).eval()


def unlike(name: str) -> tuple[tuple, dict]:
    """Two networks, their data, and layers of shapes that have nothing in common."""
    student, teacher, samples = situation(name)
    if name.startswith(("detection", "segmentation")):
        outputs = 6 if name.startswith("detection") else 3
        return (student, flat(outputs), samples), {"student": "second", "teacher": "1"}
    if name == "graph":
        layers = ["edges", "nodes", "pooled"]  # the first two in the wrong order
        return (student, teacher, samples), {"student": layers, "teacher": layers}
    if name in ("transformer", "minilm"):
        layers = {"student": ["stages.0", "stages.1"], "teacher": ["blocks.0", "blocks.1"]}
        return (resnet(4), encoder(8), samples), layers
    if name in KINDS[DepthsLoss]:
        layers = {"student": ["stages.0", "pool"], "teacher": ["stages.0", "classifier"]}
        return (student, teacher, samples), layers
    return (student, teacher, samples), {"student": "stages.0", "teacher": "classifier"}


@pytest.mark.parametrize("name", [n for n in ON_LAYERS if n not in FLATTENED | AVERAGED])
def test_shapes_that_can_not_be_bridged_are_refused_and_told(name):
    (student, teacher, samples), layers = unlike(name)
    given = {"data": samples, "teachers": [teacher_of(teacher)]}
    found = check_teaching(student, context(teaching({"name": name, **layers}), **given))
    assert found, "it was accepted"
    assert all(fault.exit_code == 2 and "losses.1" in str(fault) for fault in found)
    words = ("can't be matched", "needs", "differ in heads or length")
    assert any(word in str(found[0]) for word in words), str(found[0])


@pytest.mark.parametrize("name", [n for n in KINDS[OutputLoss] if n != "regression"])
def test_outputs_that_a_loss_does_not_read_are_refused(name):
    """Vectors for those that read maps or rows, rows for those that read vectors."""
    vectors = (resnet(4), resnet(8), data())
    on = situation("ctc") if name in ("policy", "cross-lingual") else vectors
    found = faults({"name": name}, on=on)
    assert "needs" in found or "is for detection" in found, found


@pytest.mark.parametrize("name", NAMES)
def test_weights_that_sum_to_nothing_are_refused_for_every_loss(name):
    found = faults({**table(name), "weight": 0.0}, on=situation(name), label_weight=0.0)
    assert "every weight is zero: there is nothing to learn" in found
    assert "greater than or equal to 0, found -0.5" in told(name, weight=-0.5)


WITHIN = {
    "dkd": ("alpha", "beta"),
    "dist": ("beta", "gamma"),
    "graph": ("nodes", "edges", "pooled"),
    "transformer": ("hidden", "attention", "logits"),
    "detection-features": ("foreground", "background"),
}
"""Losses whose whole value is a sum that their own weights can empty."""


@pytest.mark.parametrize("name", WITHIN)
def test_weights_within_a_loss_that_leave_nothing_of_it_are_refused(name):
    assert "all zero" in told(name, **dict.fromkeys(WITHIN[name], 0.0))


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_key_is_refused_with_what_is_allowed(name):
    assert "unknown key 'wieght'" in told(name, wieght=1.0)
