"""Several workers share the trials of a search, and a killed one loses nothing finished."""

import json
import os
import signal
import threading
from pathlib import Path

import pytest
from searches import COMMAND, made_search, start, trial_of, until, write_case

from edgekd.searching.outcome import kept_trials
from edgekd.searching.study import Study
from edgekd.store import Store


def test_what_another_worker_runs_is_proposed_to_no_other(tmp_path):
    stages = [{"kind": "quantize", "method": {"one_of": ["calibrate", "qat"]}}]
    search = made_search(tmp_path, stages, workers=2)
    one, other = Study(search, 1), Study(search, 2)
    one.start_from([])
    proposal = one.ask()
    assert other.running() == [proposal.key]
    one.tell(proposal.asked, trial_of(proposal.number, key=proposal.key, state="failed"))
    assert other.running() == []
    assert [trial.key for trial in other.trials()] == [proposal.key]


def test_what_a_killed_worker_ran_is_proposed_again_and_that_of_others_is_not(tmp_path):
    search = made_search(tmp_path, workers=2)
    one, other = Study(search, 1), Study(search, 2)
    one.start_from([])
    lost, kept = one.ask(), other.ask()
    Study(search).retry_unfinished(1)
    assert other.running() == [kept.key]
    assert other.ask().parameters == lost.parameters


def test_a_step_that_another_thread_is_at_is_waited_for(tmp_path):
    store, order = Store(tmp_path), []
    begun = threading.Event()

    def first():
        with store.taken("distill", "key"):
            begun.set()
            order.append("first")
            store.publish("distill", "key", lambda folder: order.append("published"))

    thread = threading.Thread(target=first)
    thread.start()
    begun.wait()
    with store.taken("distill", "key"):
        order.append("second")
    thread.join()
    assert order == ["first", "published", "second"]
    assert store.find("distill", "key") is not None


@pytest.mark.slow
def test_two_workers_share_a_search_and_a_killed_one_is_replaced(tmp_path: Path):
    write_case(tmp_path)
    search = start(tmp_path, *COMMAND, "--trials", "3", "--workers", "2", "--out", "s")
    until(lambda: kept_trials(tmp_path / "s"), search)
    os.kill(children(search.pid)[0], signal.SIGKILL)
    _, err = search.communicate()
    assert search.returncode == 0, err
    assert "ended with -9" in err
    trials = json.loads((tmp_path / "s/search.json").read_text())["trials"]
    assert len(trials) == 3
    assert {trial["state"] for trial in trials} == {"finished"}
    # The distillation that all trials begin with was trained once.
    assert len(list((tmp_path / "s/stages").glob("distill-*"))) == 1
    assert children(search.pid) == []


def children(parent: int) -> list[int]:
    """The workers of a process: its children that multiprocessing has spawned."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_text()
        except OSError:
            continue
        if int(status[1]) == parent and "spawn_main" in command:
            found.append(int(folder.name))
    return sorted(found)
