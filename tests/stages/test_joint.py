"""Channels, ranks and types chosen by one program: the sizes it counts, and what it finds."""

import itertools
import os

import pytest

from edgekd.stages._joint import (
    Choice,
    Layer,
    Parts,
    Way,
    Width,
    as_choice_of,
    best_choices,
    least_bytes,
    restricted,
)
from edgekd.stages._knapsack import knapsack

INT8, INT4 = Way(1.0, 1.0, 0.0, "int8"), Way(1.0, 0.5, 0.3, "int4")


def network(halved=0.4):
    """Two layers of 8x8 and 8x4 weights: the first makes the 8 channels that the second reads, of
    which half may go at an error of `halved`. The second can be stored as factors of half as many
    values."""
    return Parts(
        {"a": Width((4, 8), (halved, 0.0))},
        {
            "first": Layer(64.0, (INT4, INT8), ({"a": 1.0},)),
            "second": Layer(32.0, (INT4, INT8, Way(0.5, 1.0, 0.1, "factors")), ({"a": 1.0},)),
        },
        rest=10.0,
    )


def test_a_size_is_the_product_of_channels_factors_and_bits():
    parts = network()
    whole = Choice({"a": 8}, {"first": 1, "second": 1})
    assert parts.bytes(whole) == 10 + 64 + 32
    assert parts.bytes(Choice({"a": 4}, {"first": 1, "second": 1})) == 10 + 32 + 16
    assert parts.bytes(Choice({"a": 4}, {"first": 0, "second": 2})) == 10 + 16 + 8
    assert parts.error(Choice({"a": 4}, {"first": 0, "second": 2})) == pytest.approx(0.8)
    assert parts.width_changes(whole, "a") == [-48, 0]
    assert parts.way_changes(Choice({"a": 4}, {"first": 1, "second": 1}), "second") == [-8, 0, -8]


def test_a_layer_that_reads_a_part_of_its_channels_from_a_group_loses_that_part():
    layer = Layer(100.0, (INT8,), ({"a": 0.5, "b": 0.25}, {"c": 1.0}))
    assert layer.left({"a": 0.5, "b": 1.0, "c": 0.2}) == pytest.approx(100 * 0.5 * 0.8)


def test_what_takes_least_takes_the_fewest_channels_and_the_cheapest_way():
    parts = network()
    least = least_bytes(parts)
    assert least == Choice({"a": 4}, {"first": 0, "second": 0})
    assert parts.bytes(least) == 10 + 16 + 8


@pytest.mark.parametrize("limit", [110, 95, 80, 60, 50, 40, 34])
@pytest.mark.parametrize("halved", [0.05, 0.4, 2.0])
def test_the_program_finds_what_trying_everything_finds(limit, halved):
    parts = network(halved)
    everything = [
        Choice({"a": kept}, {"first": first, "second": second})
        for kept, first, second in itertools.product((4, 8), range(2), range(3))
    ]
    best = min(parts.error(each) for each in everything if parts.bytes(each) <= limit)
    starts = [
        Choice({"a": 8}, {"first": 0, "second": 0}), Choice({"a": 8}, {"first": 1, "second": 1}),
        Choice({"a": 4}, {"first": 1, "second": 1}),
    ]  # fmt: skip
    found = best_choices(parts, limit, starts)
    assert all(parts.bytes(each) <= limit for each in found)
    assert parts.error(found[0]) == pytest.approx(best)


def test_what_does_not_fit_is_not_found():
    assert best_choices(network(), 33, [Choice({"a": 8}, {"first": 1, "second": 1})]) == []


def test_a_restricted_network_chooses_among_what_is_left_and_is_read_as_a_choice_of_all():
    parts = network()
    few = restricted(parts, channels=False, allowed=lambda way: way.what != "int8")
    assert few.widths["a"].counts == (8,)
    assert [way.what for way in few.layers["second"].ways] == ["int4", "factors"]
    (best, *_) = best_choices(few, 60, [])
    assert best == Choice({"a": 8}, {"first": 0, "second": 1})
    assert as_choice_of(parts, best, few) == Choice({"a": 8}, {"first": 0, "second": 2})


def test_what_the_solver_prints_is_no_result(capfd, monkeypatch):
    import scipy.optimize

    solve = scipy.optimize.milp

    def loud(*given, **keys):
        os.write(1, b"tmpSolver.run();\n")
        return solve(*given, **keys)

    monkeypatch.setattr(scipy.optimize, "milp", loud)
    assert knapsack([[1.0, 0.0]], [[0.0, 1.0]], 0.5) == [0]
    out, err = capfd.readouterr()
    assert out == ""
    assert "tmpSolver" in err
