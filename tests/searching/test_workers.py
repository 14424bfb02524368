"""Several workers share the trials of a search, and a killed one loses nothing finished."""

import json
import os
import signal
import tempfile
import threading
from pathlib import Path

import pytest
from searches import COMMAND, made_search, start, trial_of, until, write_case

from edgekd.errors import InputError, MissingPackage
from edgekd.searching.outcome import kept_trials
from edgekd.searching.ray_workers import RayWorkers
from edgekd.searching.request import SearchOptions, _check_length
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
@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_two_workers_share_a_search_and_a_killed_one_is_replaced(tmp_path: Path, engine: str):
    if engine == "ray":
        pytest.importorskip("ray")
    write_case(tmp_path)
    more = ("--trials", "3", "--workers", "2", "--engine", engine, "--out", "s")
    search = start(tmp_path, *COMMAND, *more)
    until(lambda: kept_trials(tmp_path / "s"), search)
    workers = children(search.pid) if engine == "processes" else ray_workers(search.pid)
    os.kill(workers[0], signal.SIGKILL)
    _, err = search.communicate()
    assert search.returncode == 0, err
    assert "ended with" in err
    trials = json.loads((tmp_path / "s/search.json").read_text())["trials"]
    assert len(trials) == 3
    assert {trial["state"] for trial in trials} == {"finished"}
    # The distillation that all trials begin with was trained once.
    assert len(list((tmp_path / "s/stages").glob("distill-*"))) == 1
    assert children(search.pid) == ray_workers(search.pid) == []


@pytest.mark.slow
def test_two_workers_meet_in_a_postgresql_database(tmp_path: Path):
    pgserver = pytest.importorskip("pgserver")
    write_case(tmp_path)
    # The server's own socket path has to stay short.
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        server = pgserver.get_server(folder)
        try:
            more = ("--trials", "3", "--workers", "2", "--storage", server.get_uri(), "--out", "s")
            search = start(tmp_path, *COMMAND, *more)
            _, err = search.communicate()
        finally:
            server.cleanup()
        assert search.returncode == 0, err
    trials = json.loads((tmp_path / "s/search.json").read_text())["trials"]
    assert [trial["state"] for trial in trials] == ["finished"] * 3
    assert not (tmp_path / "s/study.db").exists()


def test_ray_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("edgekd.searching.request.has_module", lambda name: name != "ray")
    with pytest.raises(MissingPackage, match="ray") as caught:
        _check_length(SearchOptions(engine="ray"))
    assert caught.value.hint == "pip install 'edgekd[ray]'"
    with pytest.raises(InputError, match="unknown engine 'rays'") as wrong:
        _check_length(SearchOptions(engine="rays"))
    assert wrong.value.allowed == "processes, ray"


class FakeRay:
    """The nodes of a cluster, without one."""

    def __init__(self, *cores: int) -> None:
        self.cores, self.ended = cores, False

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": float(count)}} for count in self.cores]

    def shutdown(self):
        self.ended = True


def test_a_cluster_needs_a_storage_that_its_machines_can_share(tmp_path, monkeypatch):
    cluster = FakeRay(4, 4)
    monkeypatch.setattr("edgekd.searching.ray_workers._connected", lambda: cluster)
    with pytest.raises(InputError, match="2 machines can't share") as caught:
        RayWorkers(made_search(tmp_path, workers=2, engine="ray", storage=None), "here")
    assert "--storage" in caught.value.hint
    assert cluster.ended


@pytest.mark.parametrize(("cores", "workers", "each"), [((4, 4), 2, 4), ((8,), 2, 4), ((2,), 4, 1)])
def test_the_cores_of_a_cluster_are_shared_out(tmp_path, monkeypatch, cores, workers, each):
    monkeypatch.setattr("edgekd.searching.ray_workers._connected", lambda: FakeRay(*cores))
    assert RayWorkers(made_search(tmp_path, workers=workers), "here").threads == each


def ray_workers(parent: int) -> list[int]:
    """The tasks of a search that Ray runs on this machine for this process."""
    return [process for process, name in descendants(parent) if "ray::edgekd worker" in name]


def descendants(parent: int) -> list[tuple[int, str]]:
    """Every process that a process started, and those that these started, with their titles."""
    known: list[tuple[int, str]] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            above = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            title = (folder / "cmdline").read_text()
        except OSError:
            continue
        if int(above) == parent:
            known += [(int(folder.name), title), *descendants(int(folder.name))]
    return known


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
