"""Early stopping: where trials are compared, with which others, and what a stopped one is."""

from pathlib import Path

import pytest
import torch
from searches import file_of, made_search, made_up, trial_of

from edgekd.data.samples import Data, Samples
from edgekd.errors import InputError
from edgekd.searching import loop as looping
from edgekd.searching.judging import front_of, points_of
from edgekd.searching.loop import Loop
from edgekd.searching.outcome import Course, RungScore, kept_trials
from edgekd.searching.request import SearchOptions, check_early_stopping
from edgekd.searching.stopping import (
    TrialStopped,
    Watch,
    reason_to_stop,
    rung_of,
    training_name,
)
from edgekd.searching.study import Study, values_of
from edgekd.training.context import Epoch
from edgekd.values.progress import silent

QUARTER, HALF = 1, 2


def course(accuracy, size=100, quarters=QUARTER, training="prune"):
    score = RungScore(training=training, quarters=quarters, epoch=2, epochs=8, accuracy=accuracy)
    return Course(sizes={"x86: bytes": size}, scores=(score,))


FOUR = [course(accuracy) for accuracy in (0.9, 0.8, 0.7, 0.6)]


@pytest.mark.parametrize(
    ("epochs", "rungs"),
    [
        (1, {}),
        (2, {1: HALF}),
        (3, {1: QUARTER, 2: HALF}),
        (5, {2: QUARTER, 3: HALF}),
        (8, {2: QUARTER, 4: HALF}),
        (20, {5: QUARTER, 10: HALF}),
    ],
)
def test_trials_are_compared_after_a_quarter_and_after_half_of_a_training(epochs, rungs):
    found = {epoch: rung_of(epoch, epochs) for epoch in range(1, epochs + 1)}
    assert {epoch: rung for epoch, rung in found.items() if rung} == rungs


@pytest.mark.parametrize(
    ("rule", "accuracy", "stops"),
    [
        ("halving", 0.85, False),  # the second of five: the best two go on
        ("halving", 0.75, True),
        ("median", 0.76, False),  # the others' median is 0.75
        ("median", 0.74, True),
    ],
)
def test_the_worse_part_of_the_trials_at_a_rung_is_stopped(rule, accuracy, stops):
    assert (reason_to_stop(rule, course(accuracy), FOUR) is not None) == stops


def test_the_reason_says_where_and_among_which_trials():
    assert reason_to_stop("halving", course(0.5), FOUR) == (
        "stopped at epoch 2 of 8 (prune): validation accuracy 50.00 %, where the median of 4 "
        "trials whose network is no larger was 75.00 %"
    )


@pytest.mark.parametrize("rule", ["halving", "median"])
def test_three_other_trials_are_too_few_to_stop_one(rule):
    assert reason_to_stop(rule, course(0.1), FOUR[:3]) is None


def test_a_small_network_is_not_stopped_for_being_less_accurate_than_larger_ones():
    assert reason_to_stop("halving", course(0.1, size=90), FOUR) is None
    assert reason_to_stop("halving", course(0.1, size=99), FOUR) is not None  # hardly smaller


def test_a_trial_whose_sizes_are_unknown_is_not_stopped():
    unknown = course(0.1).model_copy(update={"sizes": {}})
    assert reason_to_stop("halving", unknown, FOUR) is None


def test_only_the_same_training_at_the_same_rung_is_compared():
    assert reason_to_stop("halving", course(0.1, training="distill"), FOUR) is None
    assert reason_to_stop("halving", course(0.1, quarters=HALF), FOUR) is None


def test_who_was_stopped_at_the_first_rung_competes_there_and_not_at_the_next():
    survivors = [
        each.model_copy(update={"scores": (*each.scores, *course(0.9, quarters=HALF).scores)})
        for each in FOUR
    ]
    own = course(0.65)
    own = own.model_copy(update={"scores": (*own.scores, *course(0.8, quarters=HALF).scores)})
    assert reason_to_stop("halving", own, survivors) is not None
    assert reason_to_stop("halving", own, [*survivors[:3], course(0.6)]) is None


def test_a_training_is_named_by_its_stage_and_its_phase():
    names = {Path("s/prune-1"): "prune", Path("s/prune-2"): "prune 2"}
    work = Path("s/prune-2/9fca7d695f1f1f09/step-1/recovery")  # settings have a key of their own
    assert training_name(work, names) == "prune 2, step 1, recovery"
    assert training_name(Path("s/prune-1"), names) == "prune"


def test_without_a_rule_a_trial_is_followed_and_never_stopped():
    noted = []
    watch = Watch("none", lambda: FOUR, noted.append, Course(sizes={"x86: bytes": 100}))
    for epoch in range(1, 5):
        watch.on_epoch(Epoch(Path("prune"), epoch, 4, 0.1))
    assert [score.epoch for score in watch.course.scores] == [1, 2]
    assert noted[-1] == watch.course


def test_a_training_without_validation_samples_is_not_compared():
    watch = Watch("halving", lambda: FOUR, lambda course: None, Course(sizes={"x86: bytes": 100}))
    watch.on_epoch(Epoch(Path("prune"), 1, 4, None))
    assert watch.course.scores == ()
    with pytest.raises(TrialStopped, match="stopped at epoch 1 of 4"):
        watch.on_epoch(Epoch(Path("prune"), 1, 4, 0.1))


def final(parameters):
    """A good or a bad choice of method, with the same size at each amount."""
    good = parameters["stages.2.method"] == "qat"
    amount = parameters["stages.1.amount"]
    return file_of(size_kb=40 + 0.01 * amount, accuracy=(0.95 if good else 0.8) - 0.1 * amount)


def curve(parameters):
    accuracy = final(parameters).score
    return [accuracy * share for share in (0.7, 0.8, 0.9, 1.0)]


def run(search, monkeypatch, outcome=final):
    monkeypatch.setattr(looping, "run_trial", made_up(outcome, curve))
    study = Study(search)
    study.start_from(kept_trials(search.out))
    return Loop(search, study, lambda line: None, lambda trials: None).run(silent)


def test_stopped_trials_do_not_fail_are_on_no_front_and_are_not_tried_again(tmp_path, monkeypatch):
    trials = run(made_search(tmp_path, trials=14, early_stopping="halving"), monkeypatch)
    stopped = [trial for trial in trials if trial.state == "stopped"]
    assert {trial.state for trial in trials} == {"finished", "stopped"}
    assert len(trials) == len({trial.key for trial in trials}) == 14
    assert all(trial.exit_code == 0 and trial.files == () for trial in stopped)
    limits = {"x86": {"size_kb": 50.0, "accuracy_drop": 2.0}}
    assert all(values_of(trial, limits, ()) is None for trial in stopped)
    front = front_of(points_of(trials, "x86", limits, ()))
    best = max(trials, key=lambda trial: final(trial.parameters).accuracy)
    assert front[0].trial == best.number

    # A second call, with other budgets, knows them and trains nothing.
    moved = made_search(tmp_path, limits={"size_kb": 45.0}, trials=14, early_stopping="halving")
    assert run(moved, monkeypatch, lambda parameters: 1 / 0) == trials


def test_the_same_seed_stops_the_same_trials_and_a_lost_storage_changes_nothing(
    tmp_path, monkeypatch
):
    def states(name, *counts):
        for count in counts:
            search = made_search(tmp_path / name, trials=count, early_stopping="halving")
            trials = run(search, monkeypatch)
        return [(trial.parameters, trial.state) for trial in trials]

    whole = states("a", 8)
    assert states("b", 8) == whole
    assert "stopped" in [state for _, state in whole]
    states("c", 6)
    (tmp_path / "c/trials.log").unlink()
    again = made_search(tmp_path / "c", trials=6, early_stopping="halving")
    assert run(again, monkeypatch, lambda parameters: 1 / 0) == kept_trials(tmp_path / "c")
    courses = {trial.key: trial.course for trial in kept_trials(again.out)}
    assert Study(again).courses() == courses


def test_a_trial_that_was_interrupted_goes_on_with_what_was_known_of_it():
    before = course(0.9).scores[0].model_copy(update={"training": "distill"})
    known = Course(sizes={"x86: bytes": 100}, scores=(before,))
    noted = []
    watch = Watch("halving", lambda: FOUR, noted.append, known)
    watch.on_epoch(Epoch(Path("distill"), 2, 8, 0.9))  # from the checkpoint
    assert noted == []
    watch.on_epoch(Epoch(Path("prune"), 2, 8, 0.9))
    assert [score.training for score in watch.course.scores] == ["distill", "prune"]
    stopped = Watch("halving", lambda: FOUR, noted.append, course(0.1))
    with pytest.raises(TrialStopped):  # it ended after its checkpoint and before it was stopped
        stopped.on_epoch(Epoch(Path("prune"), 2, 8, 0.1))


def test_other_workers_see_a_trial_while_it_trains(tmp_path):
    search = made_search(tmp_path, workers=2)
    one, other = Study(search, 1), Study(search, 2)
    one.start_from([])
    proposal = one.ask()
    one.note(proposal.asked, course(0.9))
    assert other.courses() == {proposal.key: course(0.9)}
    # A killed trial is proposed again; what is known of it is known once.
    Study(search).retry_unfinished(1)
    again = one.ask()
    one.note(again.asked, course(0.9))
    assert other.courses() == {proposal.key: course(0.9)}
    one.tell(again.asked, trial_of(1, key=again.key, state="stopped", course=course(0.9)))
    assert [trial.state for trial in other.trials()] == ["stopped"]


def test_early_stopping_without_validation_samples_is_refused():
    some, none = Samples(torch.rand(4, 2), torch.arange(4)), torch.empty(0, 2)
    nothing = Samples(none, torch.empty(0, dtype=torch.long))
    data = Data("few", some, nothing, some, 4)
    check_early_stopping(SearchOptions(), data)
    with pytest.raises(InputError, match="but there are none") as caught:
        check_early_stopping(SearchOptions(early_stopping="median"), data)
    assert caught.value.hint == "set data.validation = 0.2 to hold some back"
