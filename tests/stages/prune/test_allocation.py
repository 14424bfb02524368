"""Who loses how much, on small numbers."""

import pytest
import torch

from edgekd.stages.prune.allocation import Pool, best, by_sensitivity, global_, tolerated, uniform
from edgekd.stages.prune.spec import PruneSpec
from edgekd.stages.prune.steps import shares, split_epochs
from edgekd.stages.prune.structured import share_out


def pool(name: str, scores: list[float], step: int = 1, first: int | None = None) -> Pool:
    return Pool(name, torch.tensor(scores), first or len(scores), step)


def test_uniform_takes_the_same_share_and_rounds_to_the_multiple() -> None:
    pools = [Pool("a", torch.ones(32), 32, 8), Pool("b", torch.ones(64), 64, 8)]
    assert uniform(pools, 0.3) == {"a": 24, "b": 48}  # 22.4 -> 24, 44.8 -> 48
    assert uniform(pools, 0.95) == {"a": 8, "b": 8}  # never below one multiple


@pytest.mark.parametrize(("size", "kept"), [(6, 6), (8, 8), (12, 8)])
def test_a_layer_of_one_multiple_or_less_is_left_whole(size: int, kept: int) -> None:
    assert uniform([Pool("a", torch.ones(size), size, 8)], 0.5) == {"a": kept}


def test_global_takes_the_worst_of_all_after_dividing_by_the_layers_mean() -> None:
    # Divided by their means 2.5 and 250 both layers are 0.4, 0.8, 1.2, 1.6 - but for one weak unit.
    pools = [pool("a", [1.0, 2.0, 3.0, 4.0]), pool("b", [10.0, 290.0, 300.0, 400.0])]
    assert global_(pools, 0.25) == {"a": 3, "b": 3}
    assert global_(pools, 0.5) == {"a": 2, "b": 2} or sum(global_(pools, 0.5).values()) == 4


def test_global_compares_what_is_comparable_as_it_is() -> None:
    # Over their means 0.875 and 0.125 the least are 0.57 and 0.8.
    pools = [pool("kept", [0.5, 1.0, 1.0, 1.0]), pool("gone", [0.1, 0.1, 0.1, 0.2])]
    assert global_(pools, 0.25) == {"kept": 3, "gone": 3}
    assert global_(pools, 0.25, comparable=True) == {"kept": 4, "gone": 2}
    for comparable, left in ((False, 3), (True, 2)):
        wish = PruneSpec("global", comparable=comparable)
        assert share_out(pools, wish, 0.25, {})["gone"] == left


def test_global_leaves_every_layer_its_floor() -> None:
    pools = [pool("a", [0.0, 0.0, 0.0, 8.0]), pool("b", [1.0, 1.0, 1.0, 1.0])]
    kept = global_(pools, 0.7)
    assert min(kept.values()) >= 1
    assert kept["a"] == 1


def test_steps_add_up_to_one_amount_of_the_first_size() -> None:
    half_done = Pool("a", torch.ones(12), 16)
    assert uniform([half_done], 0.5) == {"a": 8}
    assert global_([half_done], 0.5) == {"a": 8}


def test_tolerated_interpolates_between_measured_drops() -> None:
    measured = [(0.25, 0.0), (0.5, 0.1), (0.75, 0.5)]
    assert tolerated(measured, 0.05) == pytest.approx(0.375)
    assert tolerated(measured, 0.3) == pytest.approx(0.625)
    assert tolerated(measured, 0.9) == 0.75


def test_a_sensitive_layer_loses_less() -> None:
    pools = [pool("tough", [1.0] * 100), pool("tender", [1.0] * 100)]
    drops = {
        "tough": [(0.25, 0.0), (0.5, 0.01), (0.75, 0.1)],
        "tender": [(0.25, 0.2), (0.5, 0.5), (0.75, 0.8)],
    }
    kept = by_sensitivity(pools, 0.4, drops)
    assert kept["tough"] < kept["tender"]
    assert sum(kept.values()) == pytest.approx(120, abs=2)


def test_equal_accuracies_do_not_take_more_than_was_asked() -> None:
    pools = [pool("a", [1.0] * 100)]
    assert by_sensitivity(pools, 0.3, {"a": [(0.25, 0.0), (0.5, 0.0), (0.75, 0.0)]}) == {"a": 70}


def test_the_best_stay_and_of_equals_the_first() -> None:
    assert best(pool("a", [1.0, 3.0, 1.0, 2.0]), 3) == [0, 1, 3]


def test_the_cubic_ramp_takes_most_at_first() -> None:
    assert shares("cubic", 2) == [0.875, 1.0]
    assert shares("iterative", 4) == [0.25, 0.5, 0.75, 1.0]
    assert shares("one-shot", 4) == [1.0]
    assert split_epochs(7, 3) == [2, 2, 3]
