"""Warm starts: what another search found is tried first, where it fits."""

from dataclasses import replace

import pytest
from searches import file_of, made_search, trial_of

from edgekd.errors import InputError
from edgekd.searching.result import write_result
from edgekd.searching.run import make_result
from edgekd.searching.study import Study
from edgekd.searching.warm import warm_starts

SMALL = {"stages.1.amount": 0.7, "stages.2.method": "calibrate"}
GOOD = {"stages.1.amount": 0.5, "stages.2.method": "qat"}
BEATEN = {"stages.1.amount": 0.6, "stages.2.method": "qat"}


@pytest.fixture
def other(tmp_path):
    """A search whose front has a small point and the chosen one."""
    search = made_search(tmp_path / "other")
    trials = [
        trial_of(0, file_of(size_kb=20, accuracy=0.9, drop=9.0), parameters=SMALL),
        trial_of(1, file_of(size_kb=45, accuracy=0.97), parameters=GOOD),
        trial_of(2, file_of(size_kb=46, accuracy=0.95), parameters=BEATEN),
    ]
    write_result(make_result(search, trials, {}), search.out)
    return search.out


def test_the_front_of_another_search_is_tried_first_and_once(tmp_path, other):
    search = made_search(tmp_path / "new", trials=4)
    search = replace(search, starts=warm_starts(other, search.space))
    assert search.starts == (GOOD, SMALL)
    study = Study(search)
    study.start_from([])
    first, second = study.ask(), study.ask()
    assert (first.parameters, second.parameters) == (GOOD, SMALL)
    for proposal, parameters in ((first, GOOD), (second, SMALL)):
        study.tell(proposal.asked, trial_of(proposal.number, file_of(), parameters=parameters))
    again = Study(search)
    again.start_from([])
    assert again.ask().parameters not in (GOOD, SMALL)


def test_values_outside_the_ranges_are_left_to_the_sampler(tmp_path, other):
    stages = [
        {"kind": "prune", "amount": {"from": 0.1, "to": 0.4}},
        {"kind": "quantize", "method": {"one_of": ["calibrate", "qat"]}},
    ]
    search = made_search(tmp_path / "new", stages)
    assert warm_starts(other, search.space) == (
        {"stages.2.method": "qat"},
        {"stages.2.method": "calibrate"},
    )


def test_a_front_of_which_nothing_fits_is_refused(tmp_path, other):
    search = made_search(tmp_path / "new", [{"kind": "prune", "amount": {"from": 0.1, "to": 0.2}}])
    with pytest.raises(InputError, match="no value of its Pareto fronts lies in a range") as caught:
        warm_starts(other, search.space)
    assert caught.value.allowed == "a search over some of stages.1.amount"
