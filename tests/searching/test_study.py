"""What the sampler is told of a trial: accuracy, costs, and by how much budgets are missed."""

import pytest
from searches import file_of, made_search, trial_of

from edgekd.searching.space import position_of
from edgekd.searching.study import Study, constraints_of, objectives, values_of

LIMITS = {"x86": {"size_kb": 50.0, "accuracy_drop": 2.0}, "board": {"latency_ms": 5.0}}


def on(target, file):
    return file.model_copy(update={"target": target})


def test_every_cost_of_every_target_is_made_small():
    assert objectives(LIMITS) == [("x86", "size_kb"), ("board", "latency_ms")]


def test_a_trial_counts_by_its_mean_accuracy_and_its_costs_in_the_budgets_units():
    files = on("x86", file_of(size_kb=30, accuracy=0.9)), on("board", file_of(accuracy=0.8))
    values = values_of(trial_of(0, *files), LIMITS, ())
    # Nothing measured the board's latency: it has the value that stands for that.
    assert values == [pytest.approx(0.85), 30.0, 1.0]


def test_of_several_files_the_best_that_fits_counts():
    files = [file_of(size_kb=30, accuracy=0.9), file_of(size_kb=70, accuracy=0.99)]
    assert values_of(trial_of(0, *files), {"x86": LIMITS["x86"]}, ()) == [0.9, 30.0]


def test_a_trial_without_a_file_for_a_target_has_no_values():
    assert values_of(trial_of(0, on("x86", file_of())), LIMITS, ()) is None
    assert values_of(trial_of(0, state="failed", message="no"), LIMITS, ()) is None


def test_broken_budgets_are_constraints_above_0():
    limits = {"x86": LIMITS["x86"]}
    broken = trial_of(0, file_of(size_kb=75, drop=5.0))
    assert constraints_of(broken, limits, ()) == [pytest.approx(0.5), pytest.approx(3.0), 0.0]
    strayed = trial_of(0, file_of(parity="fail"))
    assert constraints_of(strayed, limits, ()) == [0.0, 0.0, 1.0]


def test_a_refused_trial_has_the_excess_that_its_plan_found():
    refused = trial_of(0, state="refused", refused_by={"x86": {"size_kb": 0.4}})
    assert constraints_of(refused, {"x86": LIMITS["x86"]}, ()) == [0.4, 0.0, 0.0]


def test_trials_of_another_recipe_or_outside_the_ranges_are_not_entered(tmp_path):
    search = made_search(tmp_path, trials=3)
    fits = {"stages.1.amount": 0.5, "stages.2.method": "qat"}
    table = search.space.table(lambda place, among: position_of(fits[place], among))
    key = search.key_of_table(table)
    study = Study(search)
    study.start_from(
        [
            trial_of(0, file_of(), parameters=fits, key=key),
            trial_of(1, file_of(), parameters=fits, key="of another recipe"),
            trial_of(2, file_of(), parameters={**fits, "stages.1.amount": 0.95}),
            trial_of(3, file_of(), parameters={"stages.1.amount": 0.5}),
        ]
    )
    assert [trial.number for trial in study.trials()] == [0]
    assert study.ask().number == 4  # the folders of the others are not written over


def test_a_trial_that_a_plan_refused_for_other_budgets_is_planned_again(tmp_path):
    search = made_search(tmp_path, trials=3)
    values = {"stages.1.amount": 0.5, "stages.2.method": "qat"}
    key = search.key_of_table(search.space.table(lambda p, among: position_of(values[p], among)))
    refused = trial_of(7, state="refused", parameters=values, key=key)
    study = Study(search)
    study.start_from([refused])
    assert study.trials() == []
    assert study.ask().number == 8
