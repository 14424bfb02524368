"""The space of a search: the user's ranges, checked by the recipe's schema, or a default space."""

from pathlib import Path

import pytest

from edgekd.errors import InputError
from edgekd.registry import SPACES
from edgekd.run.plan.checks import typed_stage
from edgekd.run.request import RecipeParts
from edgekd.searching.space import check_space, describe, space_of
from edgekd.searching.spaces import Facts, space_for
from edgekd.searching.widening import widened
from edgekd.values.recipe import load_recipe

ROOT = Path(__file__).parents[2]


def parts(*stages) -> RecipeParts:
    table = {"model": {"factory": "edgekd.models.resnet:resnet8"}, "stages": list(stages)}
    return RecipeParts(table, ROOT, "recipe.toml")


def facts(attention=False, task="classification", **shares) -> Facts:
    return Facts(shares, attention, task, ("fp32", "int8"), False)


def test_a_good_space_passes_and_gives_recipes():
    space = space_of(parts({"kind": "prune", "amount": {"from": 0.1, "to": 0.7}}))
    check_space(space)
    assert space.recipe_of({"stages.1.amount": 0.25}).stages[0]["amount"] == 0.25
    assert [describe(one) for one in space.dimensions] == ["stages.1.amount: 0.1 to 0.7"]


def test_an_end_that_the_key_can_not_take_is_refused_with_the_range():
    space = space_of(parts({"kind": "prune", "amount": {"from": 0.1, "to": 1.5}}))
    with pytest.raises(InputError, match=r"an amount of 1\.5 leaves no channel") as caught:
        check_space(space)
    assert caught.value.hint == "the range at stages.1.amount includes 1.5"
    assert caught.value.where == "stages.1 (prune)"


def test_a_choice_of_another_type_is_refused():
    space = space_of(parts({"kind": "quantize", "dtype": {"one_of": ["int8", "int3"]}}))
    with pytest.raises(InputError, match="int3") as caught:
        check_space(space)
    assert "the range at stages.1.dtype includes int3" in caught.value.hint


def test_a_range_for_a_key_that_does_not_exist_is_refused_with_the_nearest():
    space = space_of(parts({"kind": "prune", "amout": {"from": 0.1, "to": 0.7}, "amount": 0.3}))
    with pytest.raises(InputError, match="unknown key 'amout'") as caught:
        check_space(space)
    assert "did you mean 'amount'?" in caught.value.hint


def test_a_choice_that_stands_before_another_stage_is_checked_with_it():
    first = {"one_of": [{"kind": "prune", "amount": 0.3}, {"kind": "quantize"}]}
    with pytest.raises(InputError, match="'quantize' after 'quantize'"):
        check_space(space_of(parts(first, {"kind": "quantize"})))


def test_the_inner_ranges_of_a_choice_are_checked_where_it_is_taken():
    bad = {"kind": "prune", "amount": {"from": 0.5, "to": 2.0}}
    space = space_of(parts({"one_of": [{"kind": "quantize"}, bad]}))
    with pytest.raises(InputError, match=r"an amount of 2\.0") as caught:
        check_space(space)
    assert "stages.1(2).amount" in caught.value.hint


def test_a_finite_space_knows_its_size():
    one = {"kind": "prune", "amount": {"from": 0.1, "to": 0.5, "step": 0.1}}
    other = {"kind": "quantize", "method": {"one_of": ["qat", "calibrate"]}}
    assert space_of(parts(one, other)).size == 10
    assert space_of(parts({"kind": "prune", "amount": {"from": 0.1, "to": 0.5}})).size is None


@pytest.mark.parametrize(
    ("found", "name"),
    [
        (facts(convolution=0.9, linear=0.1), "convolutional"),
        (facts(attention=True, linear=0.8, matmul=0.2), "transformer"),
        (facts(linear=1.0), "dense"),
        (Facts({}, False, "classification", ("int8",), True, "onnx"), "finished-file"),
    ],
)
def test_the_space_of_the_family_is_taken(found, name):
    assert space_for(found)[0] == name


def test_a_network_without_layers_has_no_space():
    with pytest.raises(InputError, match="no default space suits this network"):
        space_for(facts())


@pytest.mark.parametrize("name", SPACES.names())
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_every_default_space_is_valid_at_all_ends(name, task):
    found = Facts({"convolution": 1.0}, True, task, ("fp32", "fp16", "int8"), False)
    check_space(space_of(parts(*SPACES.get(name).make().stages(found))))


@pytest.mark.parametrize("dtypes", [("int8",), ("fp32", "int8")])
def test_a_target_of_int8_alone_gets_nothing_else(dtypes):
    found = Facts({"convolution": 1.0}, False, "classification", dtypes, dtypes == ("int8",))
    last = SPACES.get("convolutional").make().stages(found)[-1]["one_of"]
    kinds = {stage.get("dtype", "float") for stage in last}
    assert kinds == ({"int8"} if dtypes == ("int8",) else {"int8", "float"})


def test_the_stages_of_the_default_recipe_are_opened_around_their_values():
    recipe = load_recipe(ROOT / "edgekd/recipes/digits.toml")
    stages, before = widened([dict(stage) for stage in recipe.stages])
    assert before == {
        "stages.1.losses.1.weight": 0.9,
        "stages.1.losses.1.temperature": 4.0,
        "stages.2.amount": 0.3,
        "stages.3.method": "qat",
    }
    space = space_of(parts(*stages))
    assert {one.place for one in space.dimensions} == set(before)
    check_space(space)
    again = space.recipe_of(before)
    assert [typed_stage(1, stage) for stage in again.stages] == [
        typed_stage(1, stage) for stage in recipe.stages
    ]
