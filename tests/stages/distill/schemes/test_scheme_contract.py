"""What every scheme promises: teachers untouched, resumable, no hook left, no disturbance."""

import pytest
import torch
from classroom import (
    TABLES,
    hooks_of,
    network,
    scheme,
    situation,
    student_for,
)
from states import same, state

from edgekd.registry import SCHEMES

NAMES = SCHEMES.names()


def test_every_scheme_has_a_table_here():
    assert sorted(TABLES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_sound_recipe_is_accepted_and_checking_changes_nothing(name, tmp_path):
    at, student = situation(name, tmp_path), student_for(name)
    teacher = at.teachers[0].module
    before, theirs = state(student), state(teacher)
    assert [str(fault) for fault in scheme(name).check(student, at)] == []
    assert "epochs" in scheme(name).cost(at)
    assert same(before, state(student))
    assert same(theirs, state(teacher))
    assert hooks_of(student) == hooks_of(teacher) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_teachers_stay_as_they_are_and_only_the_student_is_left(name, tmp_path):
    at, student = situation(name, tmp_path), student_for(name)
    teacher = at.teachers[0].module
    teacher.train()
    before, theirs = state(student), state(teacher)
    random = torch.random.get_rng_state()
    taught = scheme(name).teach(student, at).module
    assert torch.equal(random, torch.random.get_rng_state())
    assert same(theirs, state(teacher))
    assert all(value.requires_grad and value.grad is None for value in teacher.parameters())
    assert all(part.training for part in teacher.modules())
    assert not same(before, state(taught))
    assert list(before) == list(state(taught))
    assert type(taught) is type(student)
    assert hooks_of(taught) == hooks_of(teacher) == []
    assert not any(part.training for part in taught.modules())
    assert all(value.requires_grad for value in taught.parameters())
    assert all(bool(value.isfinite().all()) for value in taught.parameters())


class Killed(BaseException):
    """As a kill between two epochs would: nothing behind it runs."""


def run_until(name, work, epochs):
    """Teach, but end when that many epochs, over all phases, have been trained."""
    trained = []

    def progress(what, done, total):
        if what == "training":
            trained.append(done)
            if len(trained) > epochs:
                raise Killed

    student = student_for(name)
    taught = scheme(name).teach(student, situation(name, work, progress=progress, seed=5))
    return state(taught.module), len(trained)


@pytest.fixture
def at_epochs_only(monkeypatch):
    """Progress is told at the end of an epoch, however slow the machine."""
    monkeypatch.setattr("edgekd.training.loop.PROGRESS_SECONDS", 1e9)


@pytest.mark.usefixtures("at_epochs_only")
@pytest.mark.parametrize("name", NAMES)
def test_a_run_killed_after_each_epoch_ends_with_the_same_bits(name, tmp_path):
    whole, epochs = run_until(name, tmp_path / "whole", 10**6)
    kills, broken = 0, None
    while broken is None:
        try:
            broken, rest = run_until(name, tmp_path / "broken", 1)
        except Killed:
            kills += 1
            assert hooks_of(student_for(name)) == []
    assert kills + 1 == epochs
    assert rest == 1
    assert same(whole, broken)


@pytest.mark.parametrize("name", NAMES)
def test_two_side_by_side_do_not_disturb_each_other(name, tmp_path):
    """The second teaching runs whole between two steps of the first, with the same teacher."""
    at = situation(name, tmp_path)
    alone = {
        seed: state(
            scheme(name)
            .teach(
                student_for(name, seed),
                situation(name, tmp_path / f"alone-{seed}", teachers=at.teachers),
            )
            .module
        )
        for seed in (0, 1)
    }
    inner = []

    def on_step(done, total):
        if not inner:
            other = situation(name, tmp_path / "inner", teachers=at.teachers)
            inner.append(state(scheme(name).teach(student_for(name, 1), other).module))

    outer = situation(name, tmp_path / "outer", teachers=at.teachers, on_step=on_step)
    first = state(scheme(name).teach(student_for(name, 0), outer).module)
    assert same(first, alone[0])
    assert same(inner[0], alone[1])


@pytest.mark.parametrize("name", NAMES)
def test_another_seed_gives_another_student(name, tmp_path):
    ends = []
    for seed in (0, 1):
        at = situation(name, tmp_path / str(seed), seed=seed)
        ends.append(state(scheme(name).teach(student_for(name), at).module))
    assert not same(*ends)


def test_a_network_begun_anew_differs_and_repeats():
    from edgekd.stages.distill.schemes._networks import fresh

    old = network()
    assert same(state(fresh(old, 1, "a")), state(fresh(old, 1, "a")))
    first, other = state(fresh(old, 1, "a")), state(fresh(old, 1, "b"))
    assert not torch.equal(first["stem.0.weight"], other["stem.0.weight"])
    assert not torch.equal(first["stem.0.weight"], state(old)["stem.0.weight"])
