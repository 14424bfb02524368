"""Which trials a search runs, when it ends, and what a second call finds."""

from dataclasses import replace
from pathlib import Path

import pytest
from searches import LIMITS, file_of, made_search, made_up, trial_of

from edgekd.errors import InputError, MissingPackage, ToolError
from edgekd.searching import board as boards
from edgekd.searching import loop as looping
from edgekd.searching.loop import Loop, seconds_left
from edgekd.searching.outcome import kept_trials
from edgekd.searching.storage import _with_driver, check_storage, open_storage
from edgekd.searching.study import Study
from edgekd.values.progress import silent


def shrunk(parameters):
    amount = parameters["stages.1.amount"]
    return file_of(size_kb=80 * (1 - amount), accuracy=0.98 - 0.1 * amount**3, drop=4 * amount**3)


def looped(search, monkeypatch, outcome=shrunk):
    monkeypatch.setattr(looping, "run_trial", made_up(outcome))
    study = Study(search)
    study.start_from(kept_trials(search.out))
    return Loop(search, study, lambda line: None, lambda trials: None)


def run(search, monkeypatch, outcome=shrunk):
    return looped(search, monkeypatch, outcome).run(silent)


def test_a_search_runs_as_many_trials_as_it_was_asked_for(tmp_path, monkeypatch):
    trials = run(made_search(tmp_path, trials=5), monkeypatch)
    assert [trial.number for trial in trials] == [0, 1, 2, 3, 4]
    assert len({trial.key for trial in trials}) == 5


def test_a_second_call_runs_nothing_and_a_larger_one_only_what_is_missing(tmp_path, monkeypatch):
    first = run(made_search(tmp_path, trials=3), monkeypatch)
    assert run(made_search(tmp_path, trials=3), monkeypatch, lambda p: 1 / 0) == first
    more = run(made_search(tmp_path, trials=5), monkeypatch)
    assert more[:3] == first
    assert len(more) == 5


def test_a_search_in_two_calls_tries_what_one_call_tries(tmp_path, monkeypatch):
    run(made_search(tmp_path / "a", trials=2), monkeypatch)
    halves = run(made_search(tmp_path / "a", trials=3), monkeypatch)
    whole = run(made_search(tmp_path / "b", trials=3), monkeypatch)
    assert [one.parameters for one in halves[:3]] == [one.parameters for one in whole[:3]]


def test_the_same_seed_proposes_the_same_and_another_seed_something_else(tmp_path, monkeypatch):
    def parameters(name, seed):
        search = made_search(tmp_path / name, trials=3)
        search.request.recipe.__dict__["seed"] = seed
        return [trial.parameters for trial in run(search, monkeypatch)]

    assert parameters("a", 0) == parameters("b", 0) != parameters("c", 1)


def test_moved_budgets_are_answered_from_what_is_there(tmp_path, monkeypatch):
    first = run(made_search(tmp_path, trials=4), monkeypatch)
    moved = made_search(tmp_path, limits={"size_kb": 30.0}, trials=4)
    assert run(moved, monkeypatch, lambda p: 1 / 0) == first
    more = made_search(tmp_path, limits={"size_kb": 20.0}, trials=6)
    trials = run(more, monkeypatch)
    assert trials[:4] == first
    assert [trial.number for trial in trials] == [0, 1, 2, 3, 4, 5]


def test_a_finite_space_ends_when_it_is_tried_out(tmp_path, monkeypatch):
    stages = [{"kind": "quantize", "method": {"one_of": ["calibrate", "qat"]}}]
    loop = looped(made_search(tmp_path, stages, trials=10), monkeypatch, lambda p: file_of())
    assert len(loop.run(silent)) == 2
    assert loop.notes == ["every recipe of the space that was proposed has been tried"]


def test_a_failing_trial_is_kept_and_the_search_goes_on(tmp_path, monkeypatch):
    outcomes = iter(["the loss became nan", file_of(), "the disk is slow", file_of(size_kb=20)])
    trials = run(made_search(tmp_path, trials=4), monkeypatch, lambda p: next(outcomes))
    assert [trial.state for trial in trials] == ["failed", "finished", "failed", "finished"]
    assert kept_trials(tmp_path)[0].message == "the loss became nan"


def test_a_search_stops_if_every_trial_fails_for_one_reason(tmp_path, monkeypatch):
    count = iter(range(100))
    fail = lambda p: f"no memory for {next(count)} bytes"  # noqa: E731
    with pytest.raises(ToolError, match=r"every trial fails \(3 of 3\): no memory for 2 bytes"):
        run(made_search(tmp_path, trials=9), monkeypatch, fail)


def test_a_second_call_tries_again_where_every_trial_failed(tmp_path, monkeypatch):
    with pytest.raises(ToolError, match="the board is gone"):
        run(made_search(tmp_path, trials=3), monkeypatch, lambda p: "the board is gone")
    trials = run(made_search(tmp_path, trials=3), monkeypatch)
    assert [trial.state for trial in trials] == ["finished"] * 3
    assert [trial.number for trial in trials] == [3, 4, 5]


def test_another_recipe_in_the_same_folder_takes_nothing_from_the_first(tmp_path, monkeypatch):
    run(made_search(tmp_path, trials=2), monkeypatch)
    stages = [{"kind": "prune", "amount": {"from": 0.1, "to": 0.8}, "epochs": 3}]
    trials = run(made_search(tmp_path, stages, trials=2), monkeypatch)
    assert [trial.number for trial in trials] == [2, 3]


def test_trials_that_fail_for_several_reasons_do_not_stop_it(tmp_path, monkeypatch):
    reasons = iter(["one", "two", "one", "two"])
    trials = run(made_search(tmp_path, trials=4), monkeypatch, lambda p: next(reasons))
    assert [trial.state for trial in trials] == ["failed"] * 4


def test_a_killed_trial_is_begun_again_with_its_parameters(tmp_path, monkeypatch):
    search = made_search(tmp_path, trials=2)
    asked = []

    def killed(parameters):
        asked.append(dict(parameters))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(search, monkeypatch, killed)
    trials = run(search, monkeypatch)
    assert trials[0].parameters == asked[0]
    assert len(trials) == 2


def test_a_trial_in_which_the_process_always_ends_is_given_up(tmp_path, monkeypatch):
    search = made_search(tmp_path, trials=2)

    def killed(parameters):
        raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            run(search, monkeypatch, killed)
    trials = run(search, monkeypatch)
    assert [trial.state for trial in trials] == ["failed", "finished"]
    assert trials[0].message == "the process ended 3 times while this trial ran"


def on_a_board(search, monkeypatch, returns):
    """A search on a board that is lost in its second trial, and what `check_device` finds then."""
    request = replace(search.request, device="ssh://ada@board?python=/py")
    search = replace(search, request=request)
    lost = [True]

    def outcome(parameters):
        if len(kept_trials(search.out)) == 1 and lost:
            lost.pop()
            return "the connection was lost"
        return shrunk(parameters)

    answers = iter(returns)

    def check(request):
        if not next(answers):
            raise ToolError("no reply within 10 s", where="ssh://ada@board")

    monkeypatch.setattr(boards, "check_device", check)
    monkeypatch.setattr(boards, "PAUSE_SECONDS", 0.01)
    running = looped(search, monkeypatch, outcome)
    made = looping.run_trial

    def run_trial(*facts):
        trial = made(*facts)
        if trial.state != "failed":
            return trial
        return trial.model_copy(update={"where": "ssh://ada@board"})

    monkeypatch.setattr(looping, "run_trial", run_trial)
    return running


def test_a_board_that_comes_back_is_waited_for_and_its_trial_is_run_again(tmp_path, monkeypatch):
    said = []
    running = on_a_board(made_search(tmp_path, trials=3), monkeypatch, [False, False, True])
    running.say = said.append
    trials = running.run(silent)
    assert [trial.state for trial in trials] == ["finished"] * 3
    assert [trial.number for trial in trials] == [0, 1, 2]
    assert "ssh://ada@board?python=/py is gone: waiting for it, 10 minutes at most" in said


def test_a_board_that_stays_away_ends_the_search_and_costs_no_trial(tmp_path, monkeypatch):
    search = made_search(tmp_path, trials=3)
    monkeypatch.setattr(boards, "WAIT_SECONDS", 0.0)
    running = on_a_board(search, monkeypatch, [False])
    with pytest.raises(ToolError, match="the board has been gone for 0 minutes: no reply") as lost:
        running.run(silent)
    assert lost.value.where == "ssh://ada@board?python=/py"
    assert [trial.state for trial in kept_trials(tmp_path)] == ["finished"]
    asked = Study(search)._all()[1].params
    trials = run(search, monkeypatch)
    assert [trial.state for trial in trials] == ["finished"] * 3
    assert asked in [trial.parameters for trial in trials]


def test_other_failures_are_not_waited_for(tmp_path):
    search = made_search(tmp_path)
    failure = trial_of(0, state="failed", exit_code=3, where="ssh://ada@board")
    assert not boards.lost_board(search, failure)  # it runs on this machine
    request = replace(search.request, device="ssh://ada@board")
    search = replace(search, request=request)
    assert boards.lost_board(search, failure)
    assert not boards.lost_board(search, failure.model_copy(update={"exit_code": 2}))
    assert not boards.lost_board(search, failure.model_copy(update={"where": "quantize"}))
    assert not boards.lost_board(search, failure.model_copy(update={"where": ""}))


def test_the_hours_leave_room_for_one_more_trial(tmp_path):
    search = made_search(tmp_path, hours=1.0)
    trials = [trial_of(number, seconds=600.0) for number in range(5)]
    assert seconds_left(search, trials[:4]) == 3600 - 4 * 600 - 600
    assert seconds_left(search, trials) == 0
    assert search.options.most_trials is None


def test_the_database_in_the_folder_holds_a_search_as_a_journal_does(tmp_path, monkeypatch):
    trials = run(made_search(tmp_path / "a", trials=2, storage=None), monkeypatch)
    assert run(made_search(tmp_path / "a", trials=2, storage=None), monkeypatch) == trials
    assert (tmp_path / "a/study.db").exists()
    assert run(made_search(tmp_path / "b", trials=2), monkeypatch) == trials


def test_a_lost_database_is_filled_from_the_folders(tmp_path, monkeypatch):
    trials = run(made_search(tmp_path, trials=2), monkeypatch)
    (tmp_path / "trials.log").unlink()
    assert run(made_search(tmp_path, trials=2), monkeypatch, lambda p: 1 / 0) == trials


@pytest.mark.parametrize("url", ["nothing", "postgresql:/x", "redis://x/y"])
def test_a_storage_of_a_wrong_form_is_refused(url):
    with pytest.raises(InputError, match="is not a storage") as caught:
        check_storage(url)
    assert "journal:FILE" in caught.value.allowed


@pytest.mark.parametrize(
    ("url", "installed", "driver"),
    [
        ("postgresql://me@host/name", "psycopg2", "postgresql+psycopg2"),
        ("postgresql://me@host/name", "psycopg", "postgresql+psycopg"),
        ("mysql://me@host/name", "MySQLdb", "mysql+mysqldb"),
    ],
)
def test_a_database_is_reached_by_the_driver_that_is_installed(
    url, installed, driver, tmp_path, monkeypatch
):
    monkeypatch.setattr("edgekd.searching.storage.has_module", lambda name: name == installed)
    check_storage(url)
    assert _with_driver(url) == f"{driver}://me@host/name"
    assert _with_driver("mysql+pymysql://x/y") == "mysql+pymysql://x/y"


@pytest.mark.parametrize(
    ("url", "package"), [("postgresql://x/y", "psycopg2-binary"), ("mysql://x/y", "pymysql")]
)
def test_a_database_without_a_driver_names_the_package(url, package, monkeypatch):
    monkeypatch.setattr("edgekd.searching.storage.has_module", lambda name: False)
    with pytest.raises(MissingPackage, match=f"{package} is not installed") as caught:
        check_storage(url)
    assert caught.value.hint == f"pip install {package}"


def test_a_storage_that_is_not_reachable_is_one_clear_error(tmp_path: Path):
    with pytest.raises(ToolError, match=r"the storage can't be used: .*unable to open") as caught:
        open_storage(f"sqlite:///{tmp_path}/none/study.db", tmp_path)
    assert "reachable" in caught.value.hint


def test_a_file_that_is_no_database_is_one_clear_error(tmp_path: Path):
    (tmp_path / "study.db").write_text("not a database, but a text that is long enough to tell")
    with pytest.raises(ToolError, match=r"the storage can't be used: .*not a database"):
        open_storage(None, tmp_path)


def test_a_storage_of_another_version_is_refused(tmp_path: Path):
    import sqlite3

    open_storage(None, tmp_path)
    with sqlite3.connect(tmp_path / "study.db") as database:
        database.execute("update alembic_version set version_num = 'v99.0.0.a'")
    with pytest.raises(InputError, match="of another version of Optuna"):
        open_storage(None, tmp_path)


def test_budgets_without_a_cost_leave_the_accuracy_alone(tmp_path, monkeypatch):
    search = made_search(tmp_path, limits={"accuracy_drop": 1.0}, trials=3)
    assert len(run(search, monkeypatch)) == 3


@pytest.mark.slow
def test_the_sampler_comes_closer_to_the_limit_than_the_first_trials(tmp_path, monkeypatch):
    trials = run(made_search(tmp_path, limits=LIMITS, trials=24), monkeypatch)
    feasible = [
        trial for trial in trials if trial.files[0].bytes <= 50_000
    ]  # the best: the largest that fits
    best = max(trial.files[0].score for trial in feasible)
    assert best > 0.98 - 0.1 * 0.45**3
