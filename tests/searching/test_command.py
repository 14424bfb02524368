"""`edgekd search` from the command line, on a network that trains in a second."""

import json
import signal
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
from searches import COMMAND, start, until, write_case
from torch import nn

import edgekd
from edgekd.cli import app
from edgekd.errors import InputError
from edgekd.searching.request import SearchOptions, make_search


@pytest.fixture
def place(tmp_path, monkeypatch):
    write_case(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path / "cache"))
    return tmp_path


def called(*words: str) -> int:
    return int(app(list(words), standalone_mode=False) or 0)


def refused(*words: str) -> InputError:
    with pytest.raises(InputError) as caught:
        app(list(words), standalone_mode=False)
    return caught.value


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("search", "r.toml"), "no target"),
        (("search", "none.toml", "--target", "small.toml"), "no such file"),
        ((*COMMAND, "--trials", "0"), "0 is not above 0"),
        ((*COMMAND, "--hours", "-1"), "-1 is not above 0"),
        ((*COMMAND, "--sampler", "tpee"), "unknown sampler 'tpee'"),
        ((*COMMAND, "--early-stopping", "halvin"), "unknown early stopping 'halvin'"),
        ((*COMMAND, "--warm-start", "none"), "no such file"),
        ((*COMMAND, "--space", "convolution"), "unknown space 'convolution'"),
        ((*COMMAND, "--budget", "size=3"), "'size' without its unit"),
        ((*COMMAND, "--set", "stage.prune.amount={from=0.7, to=0.2}"), "ends of the range"),
        ((*COMMAND, "--set", "stage.prune.amount={from=0.2, to=1.5}"), "leaves no channel"),
        (("search", "status"), "'status' is not a search"),
        (("search", "a.toml", "b.toml"), "'a.toml b.toml' is not a search"),
        (("search", "status", "."), "no such file"),
        (("compress", "r.toml", "--target", "small.toml"), "a range where a run needs one value"),
    ],
)
def test_wrong_input_is_one_clear_error(place, words, message):
    assert message in str(refused(*words))


def test_a_missing_optuna_is_refused_with_the_command_that_installs_it(place, monkeypatch):
    monkeypatch.setattr("edgekd.searching.storage.has_module", lambda name: False)
    error = refused(*COMMAND)
    assert error.message == "optuna is not installed"
    assert error.hint == "pip install 'edgekd[search]'"


def test_the_dry_run_prints_the_space_and_trains_nothing(place, capsys):
    called(*COMMAND, "--dry-run", "--trials", "3", "--out", "s")
    assert "space: stages.2.amount: 0.2 to 0.7" in capsys.readouterr().err
    assert not (place / "s/trials").exists()


def test_a_recipe_without_ranges_is_searched_around_its_values(place, capsys):
    called(*COMMAND, "--dry-run", "--set", "stage.prune.amount=0.4")
    assert "space: stages.2.amount: 0.05 to 0.85" in capsys.readouterr().err


def test_a_recipe_without_stages_gets_the_space_of_its_family(place, capsys):
    called(*COMMAND, "--dry-run", "--set", "stages=[]")
    said = capsys.readouterr().err
    assert "(the default space 'dense')" in said
    assert "space: stages.1: prune, (left out)" in said


@dataclass(frozen=True)
class Finished:
    """A search that was killed after its first trial and run again, and what was said meanwhile."""

    place: Path
    first_trial: bytes
    meanwhile: tuple[int, str]
    status: str
    out: str
    err: str

    @property
    def result(self) -> dict[str, Any]:
        return json.loads((self.place / "s/search.json").read_text())


WORDS = (*COMMAND, "--trials", "2", "--out", "s")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Finished:
    place = tmp_path_factory.mktemp("finished")
    write_case(place)
    kept = place / "s/trials/0000/trial.json"
    search = start(place, *WORDS)
    state = place / "s/search.json"
    until(lambda: kept.is_file() and '"number": 0' in state.read_text(), search)
    search.send_signal(signal.SIGSTOP)  # before its second trial is done, while another one starts
    other = start(place, *WORDS)
    _, meanwhile = other.communicate()
    search.send_signal(signal.SIGKILL)
    search.communicate()
    first = kept.read_bytes()
    status = start(place, "search", "status", "s").communicate()[0]
    again = start(place, *WORDS)
    out, err = again.communicate()
    assert again.returncode == 0, err
    return Finished(place, first, (other.returncode, meanwhile), status, out, err)


@pytest.mark.slow
def test_a_killed_search_loses_nothing_finished(finished):
    assert finished.status.startswith("stopped: 1 of 2 trials")
    assert "trial 0:" not in finished.err
    assert (finished.place / "s/trials/0000/trial.json").read_bytes() == finished.first_trial
    assert len(finished.result["trials"]) == 2
    status = start(finished.place, "search", "status", "s")
    assert status.communicate()[0].startswith("finished: 2 of 2 trials")


@pytest.mark.slow
def test_a_second_search_in_the_same_folder_is_refused(finished):
    code, said = finished.meanwhile
    assert code == 2
    assert "another edgekd run is using this folder" in said


@pytest.mark.slow
def test_a_search_finds_a_point_that_compress_repeats_to_the_same_bytes(finished):
    assert "verdict: pass" in finished.out
    target = finished.result["targets"][0]
    best = target["front"][target["chosen"]]
    assert target["proven"]["same_bytes"]
    place = finished.place
    report = edgekd.compress(
        place / "s" / best["recipe"], target=place / "small.toml", out=place / "again", quick=True,
        cache=place / "cache",
    )  # fmt: skip
    assert report.targets[0].artifacts[0].sha256 == best["sha256"]
    assert report.stages[0].cached is False


@pytest.mark.slow
def test_budgets_that_moved_are_answered_without_another_trial(finished):
    copy = finished.place / "moved"
    copytree(finished.place / "s", copy / "s", symlinks=True)
    write_case(copy)
    moved = start(copy, *WORDS, "--budget", "size_kb=1")
    out, err = moved.communicate()
    assert moved.returncode == 1, err
    assert "trial 2" not in err
    assert "no point meets every budget; the nearest is front/" in out
    assert "reached at best, each by itself: size_kb" in out


@pytest.mark.slow
def test_a_size_that_the_plan_exceeds_is_refused_before_training(place):
    search = start(place, *COMMAND, "--budget", "size_kb=2", "--trials", "2", "--out", "s")
    out, err = search.communicate()
    assert search.returncode == 1, err
    trials = json.loads((place / "s/search.json").read_text())["trials"]
    assert [trial["state"] for trial in trials] == ["refused", "refused"]
    assert "the onnx file takes" in trials[0]["message"]
    assert not list((place / "s/stages").glob("prune-*"))
    assert "no trial gave a file" in out or "nearest" in out


def test_objects_are_searched_as_files_are_and_another_network_is_another_search(place):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    x, y = torch.rand(80, 1, 8, 8), torch.arange(80) % 10
    asked = {"target": place / "small.toml", "data": ((x, y), (x, y)), "out": place / "s"}
    made = make_search(network, asked, SearchOptions(trials=2))
    assert made.space.family == "dense"
    assert make_search(network, asked, SearchOptions(trials=2)).base == made.base
    with torch.no_grad():
        network[1].weight += 1
    assert make_search(network, asked, SearchOptions(trials=2)).base != made.base
