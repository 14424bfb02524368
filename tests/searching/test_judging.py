"""Which files meet the budgets, by how much the others miss, and which are best."""

import pytest
from searches import LIMITS, file_of, trial_of

from edgekd.searching.judging import best_of, front_of, nearest_of, points_of, reachable

TABLE = {"x86": LIMITS}


def points(*files, limits=LIMITS, accept=()):
    trials = [trial_of(number, file) for number, file in enumerate(files)]
    return points_of(trials, "x86", {"x86": limits}, accept)


def test_a_file_within_all_limits_passes_and_misses_nothing():
    (point,) = points(file_of(size_kb=40, drop=1.0))
    assert (point.verdict, point.violation) == ("pass", 0.0)
    assert point.costs == {"size_kb": 40.0}


def test_a_miss_counts_as_a_share_of_the_limit_and_a_drop_in_points():
    (point,) = points(file_of(size_kb=75, drop=3.5))
    assert point.verdict == "fail"
    assert point.violation == pytest.approx(75 / 50 - 1 + 1.5)


def test_a_budget_in_another_unit_keeps_its_own_name():
    (point,) = points(file_of(size_kb=75), limits={"size_bytes": 50_000.0})
    assert point.costs == {"size_bytes": 75_000.0}
    assert point.violation == pytest.approx(0.5)


def test_a_file_that_differs_from_its_reference_fails_whatever_it_costs():
    (point,) = points(file_of(size_kb=10, parity="fail"))
    assert (point.verdict, point.violation) == ("fail", 1.0)
    assert best_of([point]) is None


def test_the_front_keeps_what_no_other_beats():
    files = [
        file_of(size_kb=30, accuracy=0.90), file_of(size_kb=40, accuracy=0.95),
        file_of(size_kb=45, accuracy=0.94), file_of(size_kb=20, accuracy=0.90),
    ]  # fmt: skip
    assert [point.trial for point in front_of(points(*files))] == [1, 3]


def test_equal_points_stand_on_the_front_once():
    assert len(front_of(points(file_of(), file_of()))) == 1


def test_the_best_is_the_most_accurate_that_fits_and_the_smaller_of_equals():
    files = [
        file_of(size_kb=60, accuracy=0.99), file_of(size_kb=45, accuracy=0.96),
        file_of(size_kb=30, accuracy=0.96), file_of(size_kb=10, accuracy=0.90),
    ]  # fmt: skip
    assert best_of(points(*files)).trial == 2


def test_the_search_chooses_by_the_validation_samples():
    lucky = file_of(accuracy=0.99, validation=0.90)
    better = file_of(accuracy=0.95, validation=0.96)
    assert best_of(points(lucky, better)).trial == 1


def test_a_verified_point_goes_before_a_better_one_that_is_not():
    guessed = file_of(accuracy=0.99, kind="estimated")
    assert best_of(points(guessed, file_of(accuracy=0.95))).trial == 1
    assert best_of(points(guessed)).verdict == "unverified"
    assert best_of(points(guessed, accept=("estimated",))).verdict == "pass"


def test_without_a_feasible_point_the_nearest_and_the_best_values_are_known():
    found = points(file_of(size_kb=55, drop=2.0), file_of(size_kb=20, drop=9.0))
    assert best_of(found) is None
    assert nearest_of(found).trial == 0
    assert reachable(found) == {"size_kb": 20.0, "accuracy_drop": 2.0}


def test_a_stored_file_is_not_chosen_and_is_held_to_its_size_alone():
    (point,) = points(file_of(size_kb=10, drop=50.0, only_size=True))
    assert point.verdict == "pass"
    assert best_of([point]) is None


def test_trials_that_failed_or_whose_accuracy_is_unknown_have_no_point():
    unknown = file_of(validation=None).model_copy(update={"accuracy": None})
    trials = [trial_of(0, state="failed", message="no"), trial_of(1, unknown)]
    assert points_of(trials, "x86", TABLE, ()) == []
