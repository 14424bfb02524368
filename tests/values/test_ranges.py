"""Ranges in a recipe: how they are read, what is wrong with them, and what is chosen."""

from pathlib import Path

import pytest

from edgekd.errors import InputError
from edgekd.values.ranges import OneOf, Span, find_ranges, is_range, range_of, without_ranges
from edgekd.values.recipe import load_recipe

STAGES = {
    "stages": [
        {"one_of": [{"kind": "prune", "amount": {"from": 0.1, "to": 0.7}}, {}]},
        {"kind": "quantize", "method": {"one_of": ["qat", "calibrate"]}},
    ]
}


def test_ranges_are_found_with_their_places_those_inside_choices_too():
    found = find_ranges(STAGES)
    assert [one.place for one in found] == [
        "stages.1", "stages.1(1).amount", "stages.2.method"
    ]  # fmt: skip
    assert found[1].range == Span(0.1, 0.7)
    assert found[2].range == OneOf(("qat", "calibrate"))


def test_two_whole_ends_give_whole_numbers():
    assert range_of({"from": 1, "to": 9}, "x").whole
    assert not range_of({"from": 1, "to": 9.5}, "x").whole
    assert not range_of({"from": 1, "to": 9, "step": 0.5}, "x").whole


def test_each_range_is_replaced_by_what_is_chosen():
    asked = []

    def choose(place, among):
        asked.append(place)
        return 0 if isinstance(among, OneOf) else among.high

    made = without_ranges(STAGES, choose)
    assert made["stages"][0] == {"kind": "prune", "amount": 0.7}
    assert made["stages"][1]["method"] == "qat"
    assert asked == ["stages.1", "stages.1(1).amount", "stages.2.method"]


def test_an_empty_table_leaves_a_stage_out():
    made = without_ranges(STAGES, lambda place, among: 1)
    assert made["stages"] == [{"kind": "quantize", "method": "calibrate"}]


def test_a_schedule_is_not_a_range():
    assert not is_range({"schedule": "linear", "start": 8, "end": 2})
    assert not is_range({})
    assert not is_range({"from": {"a": 1}, "to": {"b": 2}})


@pytest.mark.parametrize(
    ("table", "message", "hint"),
    [
        ({"from": 0.7, "to": 0.1}, "the ends of the range are reversed: from 0.7 to 0.1",
         "write { from = 0.1, to = 0.7 }"),
        ({"from": 0.3, "to": 0.3}, "a range with one value, 0.3", "write 0.3 instead of the range"),
        ({"from": 0.3}, "a range without 'to'", ""),
        ({"from": 1, "to": 2, "stepp": 1}, "unknown key 'stepp' of a range",
         "did you mean 'step'?"),
        ({"from": "a", "to": "b"}, "'from' needs a number, found 'a'",
         "choose between values with one_of"),
        ({"from": 0, "to": 1, "log": True}, "a logarithmic range from 0",
         "start above 0, or leave 'log' out"),
        ({"from": 0.1, "to": 1.0, "step": 2.0}, "a step of 2.0 in a range from 0.1 to 1.0",
         "a step is above 0 and fits"),
        ({"from": 1, "to": 4, "step": 1, "log": True}, "a range with both 'step' and 'log'",
         "keep one of them, or list values in one_of"),
        ({"one_of": []}, "'one_of' needs a list of values, found []", ""),
        ({"one_of": ["a", "b", "a"]}, "'one_of' has a twice", ""),
        ({"one_of": [1], "log": True}, "unknown key 'log' of a range", ""),
    ],
)  # fmt: skip
def test_a_wrong_range_is_one_clear_error(table, message, hint):
    with pytest.raises(InputError) as caught:
        find_ranges({"stages": [{"amount": table}]}, "recipe.toml")
    assert caught.value.message == message
    assert caught.value.hint == hint
    assert caught.value.where == "recipe.toml: stages.1.amount"


def test_every_wrong_range_is_reported_at_once():
    with pytest.raises(InputError) as caught:
        find_ranges({"a": {"from": 2, "to": 1}, "b": {"one_of": 3}})
    assert len(caught.value.faults) == 2


def test_a_run_refuses_a_recipe_with_ranges(tmp_path: Path):
    path = tmp_path / "recipe.toml"
    path.write_text(
        '[model]\nfactory = "a:b"\n[[stages]]\nkind = "prune"\namount = { from = 0.1, to = 0.7 }\n'
    )
    with pytest.raises(InputError) as caught:
        load_recipe(path)
    assert caught.value.message == "a range where a run needs one value: stages.1.amount"
    assert "edgekd search" in caught.value.hint
