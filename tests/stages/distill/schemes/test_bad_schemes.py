"""What no scheme may be given is refused for each registered one, without an exception."""

import math

import pytest
import torch
from classroom import Box, Network, keys_for, scheme, situation, student_for
from contexts import context
from test_scheme_refusals import REFUSED
from torch import nn

from edgekd.data.samples import Data, Samples
from edgekd.data.tasks.regression import Regression
from edgekd.errors import EdgekdError, InputError
from edgekd.registry import SCHEMES
from edgekd.stages.distill.schemes import scheme_of
from edgekd.training.context import Context
from edgekd.training.teaching import Teaching

NAMES = SCHEMES.names()
NUMBERS = [
    (name, key)
    for name in NAMES
    for key, field in SCHEMES.get(name).make.model_fields.items()
    if field.annotation in (int, float)
]
FREE = {"mean"}
"""Numbers that may lie below zero: a mean of inputs."""


def test_what_each_scheme_lacks_has_its_own_cases():
    assert {name for name, *_ in REFUSED} == set(NAMES)


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "much"])
@pytest.mark.parametrize(("name", "key"), NUMBERS)
def test_a_number_that_means_nothing_is_refused_with_its_key(name, key, value):
    if value == -1 and key in FREE:
        assert scheme_of({"name": name, key: value}, "scheme")
        return
    with pytest.raises(InputError, match=rf"scheme \({name}\): {key}: ") as caught:
        scheme_of({"name": name, key: value}, "scheme")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_key_is_refused(name):
    with pytest.raises(InputError, match="unknown key 'perrs'"):
        scheme_of({"name": name, "perrs": 1}, "scheme")


WRONG = {
    "temperature": ({"name": "kl", "temperature": 0.0}, "temperature must be above 0, found 0"),
    "layer": (
        {"name": "hint", "student": "stages.9"},
        "stages.9|reads layers|no logits|own, which",
    ),
    "name": ({"name": "klm"}, "unknown loss 'klm'"),
    "weight": ({"name": "kl", "weight": -1.0}, "greater than or equal to 0"),
}
OWN_LOSS = ("black-box", "dark-experience-replay", "distillation-token")
"""Refuse any loss in the tables of these tests: they choose targets that logits can't meet."""


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_loss_is_refused_in_every_scheme(name, wrong, tmp_path):
    table, expected = WRONG[wrong]
    at = situation(name, tmp_path, teaching={"losses": (table,)})
    found = scheme(name).check(student_for(name), at)
    assert found
    assert all(fault.exit_code == 2 for fault in found)
    told = " | ".join(map(str, found))
    assert name in OWN_LOSS or any(word in told for word in expected.split("|")), told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [name for name in NAMES if name != "last-epoch"])
def test_weights_that_sum_to_nothing_are_refused_in_every_scheme(name, tmp_path):
    """With kl's weight at zero and none for the labels; last-epoch has a share of its own."""
    table = {"losses": ({"name": "kl", "weight": 0.0},), "label_weight": 0.0}
    if name in OWN_LOSS:
        table["losses"] = ()
    found = scheme(name).check(student_for(name), situation(name, tmp_path, teaching=table))
    told = " | ".join(map(str, found))
    if name in OWN_LOSS:  # whose own loss goes on teaching
        assert told == ""
    else:
        assert "every weight is zero" in told or "no loss" in told, told


def nothing_fits(name: str, tmp_path) -> Context:
    """Numbers to predict, from vectors; a teacher of other outputs."""
    x = torch.randn(24, 6)
    part = Samples(x, torch.randn(24, 2), task=Regression())
    numbers = Data("numbers", part, part, part, 0)
    teachers = [Network(nn.Linear(6, 3))]
    return context(Teaching(**keys_for(name)), data=numbers, teachers=teachers, work=tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_data_that_a_scheme_is_not_for_are_refused_and_break_nothing(name, tmp_path):
    found = scheme(name).check(nn.Linear(6, 2), nothing_fits(name, tmp_path))
    assert found
    assert all(isinstance(fault, EdgekdError) and fault.exit_code == 2 for fault in found)


NEED_NONE = {"ensemble", "on-the-fly", "born-again", "own-teacher", "last-epoch", "lwf",
             "dark-experience-replay", "federated", "elastic"}  # fmt: skip
TAKE_BOXES = {"offline", "black-box", "progressive", "distillation-token"}


@pytest.mark.parametrize("teachers", ["none", "a black box"])
@pytest.mark.parametrize("name", NAMES)
def test_a_scheme_without_the_teacher_that_it_needs_says_so_and_others_go_on(
    name, teachers, tmp_path
):
    given = [] if teachers == "none" else [Box()]
    found = scheme(name).check(student_for(name), situation(name, tmp_path, teachers=given))
    told = " | ".join(map(str, found))
    unneeded = NEED_NONE if teachers == "none" else NEED_NONE | TAKE_BOXES
    assert (told == "") if name in unneeded else ("teacher" in told), told


def test_a_student_with_a_number_that_is_none_is_refused_by_every_scheme(tmp_path):
    for name in NAMES:
        student = student_for(name)
        with torch.no_grad():
            next(student.parameters()).fill_(math.nan)
        found = scheme(name).check(student, situation(name, tmp_path))
        assert any("NaN or infinity in the weights" in str(fault) for fault in found), name
