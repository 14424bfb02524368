"""What papers add to their own schemes: turns, rounds, teachers that are left out of a step."""

import math

import pytest
import torch
from classroom import TABLES, Network, hooks_of, network, scheme, situation
from single_steps import RATE, X, Y, close, kl, layers, one_step, stepped
from states import same, state
from torch.nn import functional as F

from edgekd.stages.distill.schemes import progressive, scheme_of
from edgekd.stages.distill.schemes._networks import fresh
from edgekd.stages.distill.schemes.deep_inversion import DeepInversion, rivalry
from edgekd.stages.distill.schemes.progressive import Dropping
from edgekd.training.checkpoint import read_tensors
from edgekd.training.loop import CHECKPOINT


def moved(before, loss, batch):
    """A copy of a network after one plain step on its loss."""
    after = fresh(before, 0, "any")
    after.load_state_dict({**before.state_dict(), **stepped(before, loss(before(batch)))})
    return after


def test_peers_in_turn_see_what_those_before_them_answer_after_their_step(tmp_path):
    student, peer = layers(), fresh(layers(), 3, "peer", 0)

    def against(other):
        return lambda own: 0.5 * F.cross_entropy(own, Y) + kl(own, other)

    first = against(peer(X))
    taught = moved(student, first, X)
    second = against(taught(X))
    told = first(student(X)).item() + second(peer(X)).item()
    peer_after = moved(peer, second, X)
    losses, after = one_step("mutual", tmp_path, student, with_teacher=False, in_turn=True)
    assert losses[0] == pytest.approx(told, rel=1e-5)
    assert close(after, dict(taught.named_parameters()))
    tensors, _ = read_tensors(tmp_path / CHECKPOINT)
    theirs = {n: tensors[f"companions.1.{n}"] for n, _ in peer_after.named_parameters()}
    assert close(theirs, dict(peer_after.named_parameters()))
    at_once = moved(peer, against(layers()(X)), X)
    assert (theirs["1.weight"] - at_once[1].weight).abs().max() > 1e-5 * RATE


def test_turns_are_in_the_plan_and_refused_for_several_processes(tmp_path, monkeypatch):
    made, at = scheme("mutual", in_turn=True), situation("mutual", tmp_path)
    assert made.cost(at).endswith("learning together with 2 peers, in turn")
    monkeypatch.setenv("WORLD_SIZE", "2")
    (fault,) = made.check(network(), at)
    assert "'mutual in turn' trains in a single process, but several are running" in str(fault)


def test_rivalry_is_one_where_both_agree_and_falls_with_the_divergence():
    # JS of (0.8, 0.2) and (0.2, 0.8): the middle is even; KL((0.8, 0.2) || even) = ln 2 - 0.500402.
    first, second = torch.tensor([[4.0, 1.0]]).log(), torch.tensor([[1.0, 4.0]]).log()
    assert float(rivalry(first, first)) == pytest.approx(1.0, abs=1e-6)
    assert float(rivalry(first, second)) == pytest.approx(1 - (math.log(2) - 0.500402), abs=1e-5)
    opposite = torch.tensor([[50.0, -50.0]])
    assert float(rivalry(opposite, -opposite)) == pytest.approx(1 - math.log(2), abs=1e-6)
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    other = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rivalry, (logits, other))


def test_the_images_of_later_rounds_compete_with_the_student_and_the_first_do_not(tmp_path):
    keys = {"images": 8, "chunk": 4, "iterations": 40, "statistics": 0.1, "rate": 0.1}
    seen = []

    class Noted(DeepInversion):
        def _images(self, *given):
            x = super()._images(*given)
            seen.append((given[-1], x))
            return x

    images = {}
    for competition in (1e-6, 20.0):
        at, student = situation("deep-inversion", tmp_path / str(competition)), network()
        seen.clear()
        Noted(**keys, competition=competition).teach(student, at)
        images[competition] = list(seen)
        assert [rival is None for rival, _ in seen] == [True, False]
        assert hooks_of(student) == []
    teacher = at.teachers[0].module
    assert torch.equal(images[1e-6][0][1], images[20.0][0][1])
    apart = {}
    for competition, found in images.items():
        rival, x = found[1]
        with torch.no_grad():
            apart[competition] = float(rivalry(teacher(x), rival.module(x)))
    assert apart[20.0] < apart[1e-6]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"rounds": 3}, "'rounds' only applies to images that compete with the student"),
        ({"competition": 1.0, "rounds": 30}, "16 images are too few for 30 rounds"),
    ],
)
def test_rounds_that_mean_nothing_are_refused(keys, expected, tmp_path):
    table = {"competition": 0.0, **keys}
    made = scheme_of({"name": "deep-inversion", "images": 16, **table}, "scheme")
    (fault,) = made.check(network(), situation("deep-inversion", tmp_path))
    assert expected in str(fault)


def test_teachers_are_left_out_by_chance_but_never_all_and_the_others_share():
    torch.manual_seed(0)
    fusion, answers = Dropping(0.5), torch.zeros(3, 5, 4)
    weights = torch.tensor([2.0, 1.0, 1.0])
    kept = torch.zeros(3)
    for _ in range(2000):
        shares = fusion.shares(answers, weights, answers[0], torch.zeros(5))
        assert shares.shape == (3, 5)
        assert torch.allclose(shares.sum(0), torch.ones(5))
        stays = shares[:, 0] > 0
        assert torch.allclose(shares[stays, 0], weights[stays] / weights[stays].sum())
        kept += stays
    # Half, and a third of the eighth of all draws in which none would have stayed.
    assert kept.tolist() == pytest.approx([2000 * (0.5 + 0.125 / 3)] * 3, abs=100)


def test_the_student_of_a_step_with_one_teacher_left_learns_from_that_one(tmp_path):
    """With all but one dropped in every step, the whole run has the steps of single teachers."""
    first, second = Network(layers(1), "first", "a"), Network(layers(2), "second", "b")
    at = situation("progressive", tmp_path, teachers=[first, second])
    student, x = layers(), at.data.train.x
    seen = []

    class Noted(Dropping):
        def shares(self, *given):
            seen.append(super().shares(*given)[:, 0].tolist())
            return super().shares(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progressive, "Dropping", Noted)
        table = {"assistants": TABLES["progressive"]["assistants"], "dense": True, "drop": 0.999}
        before = state(student)
        taught = scheme("progressive", **table).teach(student, at).module
    assert {len(each) for each in seen} == {2, 3}
    assert all(sorted(each)[-1] == 1.0 and sum(each) == 1.0 for each in seen)
    assert {each.index(1.0) for each in seen if len(each) == 3} == {0, 1, 2}
    assert not same(before, state(taught))
    assert bool(taught(x).isfinite().all())


def test_leaving_out_the_only_teacher_is_refused(tmp_path):
    made = scheme("progressive", dense=False, drop=0.5)
    (fault,) = made.check(network(), situation("progressive", tmp_path))
    assert "scheme.drop: each step has a single teacher, so none can be left out" in str(fault)
    assert fault.hint == "set dense = true"


def test_a_run_in_turn_that_was_killed_ends_with_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr("edgekd.training.loop.PROGRESS_SECONDS", 1e9)

    def run(work, **keys):
        return state(
            scheme("mutual", in_turn=True)
            .teach(network(), situation("mutual", work, **keys))
            .module
        )

    def killed(what, done, total):
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", progress=killed)
    assert (tmp_path / "broken" / CHECKPOINT).exists()
    assert same(run(tmp_path / "broken"), run(tmp_path / "whole"))
