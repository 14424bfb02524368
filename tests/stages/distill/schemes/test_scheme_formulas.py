"""Each scheme's formula against numbers worked out by hand or by an independent implementation."""

import math

import numpy as np
import pytest
import torch
from classroom import CLASSES, TABLES, Box, Network, keys_for, scheme, situation
from single_steps import (
    COUNT,
    RATE,
    TEMPERATURE,
    X,
    Y,
    close,
    kl,
    layers,
    one_step,
    stepped,
    whole_batch,
)
from states import state
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.data.seeds import seeded
from edgekd.stages.distill.schemes._cut import pooled, rest_behind
from edgekd.stages.distill.schemes._networks import fresh
from edgekd.stages.distill.schemes._norm_statistics import NormStatistics
from edgekd.stages.distill.schemes._tasks import among
from edgekd.stages.distill.schemes.dark_experience_replay import Reservoir
from edgekd.stages.distill.schemes.data_free import asking_dafl, divergence
from edgekd.stages.distill.schemes.deep_inversion import power, variation
from edgekd.stages.distill.schemes.distillation_token import mixed
from edgekd.stages.distill.schemes.federated import dirichlet_shares
from edgekd.stages.distill.schemes.multi_teacher import ByAttention, ByConfidence, ByEntropy, Equal
from edgekd.stages.distill.schemes.on_the_fly import Gate, ensemble
from edgekd.stages.distill.schemes.own_teacher import Head
from edgekd.stages.distill.schemes.specialists import (
    combined,
    confusable,
    place_in,
    shown,
    with_dustbin,
)
from edgekd.training.checkpoint import read_tensors
from edgekd.training.distillation import teach
from edgekd.training.loop import CHECKPOINT, fit_labels


def test_mutual_learning_is_labels_plus_the_mean_divergence_from_the_peers(tmp_path):
    student = layers()
    peers = [fresh(student, 3, "peer", number) for number in range(2)]
    answers = [network(X) for network in (student, *peers)]
    each = []
    for answer in answers:
        others = [other for other in answers if other is not answer]
        each.append(0.5 * F.cross_entropy(answer, Y) + sum(kl(answer, o) for o in others) / 2)
    expected = stepped(student, each[0])
    losses, after = one_step("mutual", tmp_path, student, peers=2, with_teacher=False)
    assert losses[0] == pytest.approx(float(sum(each)), rel=1e-5)
    assert close(after, expected)


def test_the_labels_weight_follows_its_schedule_in_a_scheme_too(tmp_path):
    wish = {"schedule": "linear", "start": 0.25, "end": 1.0}
    student, peer = layers(), fresh(layers(), 3, "peer", 0)
    each = [(student(X), peer(X)), (peer(X), student(X))]
    total = sum(0.25 * F.cross_entropy(own, Y) + kl(own, other) for own, other in each)
    teaching = {"label_weight": wish}
    losses, _ = one_step(
        "mutual", tmp_path, student, epochs=2, with_teacher=False, teaching=teaching
    )
    assert losses[0] == pytest.approx(float(total), rel=1e-5)


def test_peers_learn_and_the_teacher_whose_copy_is_one_does_not(tmp_path):
    teacher, student = Network(layers(1)), layers()
    before = state(teacher.module)
    one_step("mutual", tmp_path, student, [teacher], peers=1, with_teacher=True)
    tensors, _ = read_tensors(tmp_path / CHECKPOINT)
    first = state(fresh(layers(), 3, "peer", 0))
    assert not torch.equal(tensors["companions.1.1.weight"], first["1.weight"])
    assert not torch.equal(tensors["companions.2.1.weight"], before["1.weight"])
    assert all(torch.equal(before[key], value) for key, value in state(teacher.module).items())


def test_the_on_the_fly_ensemble_is_the_gated_sum_and_teaches_every_branch(tmp_path):
    student = layers()
    rest = rest_behind(student, "1", "")
    branch = fresh(rest, 3, "branch", 0)
    with seeded(3, "gate"):
        gate = Gate(6, 2)
    features = student[1](student[0](X))
    scores = gate.linear(features)
    scores = (scores - scores.mean(0)) / (scores.var(0, unbiased=False) + 1e-5).sqrt()
    shares = torch.softmax(scores.clamp_min(0), dim=1)
    answers = [student[3](student[2](features)), branch(features)]
    together = shares[:, :1] * answers[0] + shares[:, 1:] * answers[1]
    total = 0.5 * F.cross_entropy(together, Y)
    for answer in answers:
        total = total + 0.5 * F.cross_entropy(answer, Y) + kl(answer, together)
    expected = stepped(student, total)
    losses, after = one_step("on-the-fly", tmp_path, student, branches=1)
    assert losses[0] == pytest.approx(float(total), rel=1e-5)
    assert close(after, expected)


def test_the_gates_ensemble_by_hand():
    answers = torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]]])
    assert ensemble(answers, torch.tensor([[0.25, 0.75]])).tolist() == [[0.25, 1.5]]


def test_what_is_behind_a_layer_gives_the_same_outputs():
    network = layers()
    rest = rest_behind(network, "1", "")
    assert torch.equal(rest(network[1](network[0](X))), network(X))
    assert sorted(dict(rest.named_parameters())) == ["3.bias", "3.weight"]


def test_own_teacher_adds_a_labelled_and_taught_head_and_pulls_its_features(tmp_path):
    student = layers()
    with seeded(3, "heads"):
        head = Head((6,), CLASSES, CLASSES)
    inner = student[1](student[0](X))
    deepest = student[3](student[2](inner))
    normed = F.layer_norm(head.bottleneck[0](inner), (CLASSES,))
    features = normed.clamp_min(0)
    answer = head.classifier(features)
    pull = ((features - deepest.detach()) ** 2).mean()
    total = F.cross_entropy(deepest, Y) + 0.5 * F.cross_entropy(answer, Y)
    total = total + kl(answer, deepest) + 0.2 * pull
    expected = stepped(student, total)
    losses, after = one_step("own-teacher", tmp_path, student, feature_weight=0.2)
    assert losses[0] == pytest.approx(float(total), rel=1e-5)
    assert close(after, expected)


def test_the_last_epoch_teaches_by_a_share_that_grows_with_the_epoch(tmp_path):
    mine = layers()
    first = F.cross_entropy(mine(X), Y)
    before = mine(X).detach()
    mine.load_state_dict(stepped(mine, first))
    share = 0.6 * 2 / 2  # in the second of two epochs
    second = (1 - share) * F.cross_entropy(mine(X), Y) + share * kl(mine(X), before)
    expected = stepped(mine, second)
    losses, after = one_step("last-epoch", tmp_path, layers(), epochs=2, share=0.6)
    assert losses == pytest.approx([float(first), float(second)], rel=1e-5)
    assert close(after, expected)


def test_chosen_classes_are_learned_by_cross_entropy(tmp_path):
    student, box = layers(), Box()
    chosen = box.logits(X).argmax(1)
    total = 0.3 * F.cross_entropy(student(X), Y) + 0.7 * F.cross_entropy(student(X), chosen)
    expected = stepped(student, total)
    teaching = {"label_weight": 0.3}
    losses, after = one_step("black-box", tmp_path, student, [box], teaching=teaching)
    assert losses[0] == pytest.approx(float(total), rel=1e-5)
    assert close(after, expected)


def test_recorded_logits_are_kept_in_half_precision(tmp_path):
    keys = {"answers": "logits", "teaching": {"losses": ({"name": "kl"},)}}
    one_step("black-box", tmp_path, layers(), [Box()], **keys)
    (file,) = (tmp_path / "logits").glob("*.npy")
    kept = np.load(file)
    assert kept.dtype == np.float16
    assert torch.equal(torch.from_numpy(kept).float(), Box().logits(X))


def test_logits_beyond_half_precision_are_refused(tmp_path):
    class Loud(Box):
        def logits(self, x: Tensor) -> Tensor:
            return super().logits(x) * 1e5

    keys = {"answers": "logits", "teaching": {"losses": ({"name": "kl"},)}}
    with pytest.raises(Exception, match=r"logits that are not numbers in torch\.float16"):
        one_step("black-box", tmp_path, layers(), [Loud()], **keys)


@pytest.mark.parametrize("targets", ["hard", "soft"])
def test_the_distillation_token_learns_from_the_teacher_and_the_class_token_the_labels(
    targets, tmp_path
):
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(64, CLASSES)
            self.distillation_head = nn.Linear(64, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(1)
            return (self.head(x) + self.distillation_head(x)) / 2

    torch.manual_seed(0)
    student, box = TwoHeads().eval(), Box()
    theirs, token = box.logits(X), student.distillation_head(X.flatten(1))
    total = 0.5 * F.cross_entropy(student.head(X.flatten(1)), Y)
    if targets == "hard":
        total = total + 0.5 * F.cross_entropy(token, theirs.argmax(1))
    else:
        total = total + kl(token, theirs)
    expected = stepped(student, total)
    losses_table = ({"name": "kl", "temperature": TEMPERATURE},) if targets == "soft" else ()
    losses, after = one_step(
        "distillation-token",
        tmp_path,
        student,
        [box],
        targets=targets,
        teaching={"losses": losses_table},
    )
    assert losses[0] == pytest.approx(float(total), rel=1e-5)
    assert close(after, expected)


def test_two_teachers_of_a_token_are_mixed_as_probabilities():
    first, second = torch.tensor([[0.8, 0.2]]).log(), torch.tensor([[0.2, 0.8]]).log()
    found = mixed([first, second], torch.tensor([3.0, 1.0]))
    assert torch.allclose(found.exp(), torch.tensor([[0.65, 0.35]]))
    assert mixed([first], torch.tensor([2.0])) is first


FIRST, SECOND = torch.tensor([[4.0, 1.0]]).log(), torch.tensor([[1.0, 4.0]]).log()
BOTH = torch.stack([FIRST, SECOND])


def test_confidence_is_the_share_of_the_others_errors():
    # CE with label 0: -ln 0.8 and -ln 0.2; exp gives 1.25 and 5; 1 - 1.25 / 6.25 = 0.8.
    labels = torch.tensor([0])
    shares = ByConfidence().shares(BOTH, torch.ones(2), FIRST, labels)
    assert torch.allclose(shares, torch.tensor([[0.8], [0.2]]))
    three = torch.stack([FIRST, SECOND, SECOND])  # exp: 1.25, 5, 5; (1 - 1.25 / 11.25) / 2
    shares = ByConfidence().shares(three, torch.ones(3), FIRST, labels)
    assert torch.allclose(shares.flatten(), torch.tensor([0.444444, 0.277778, 0.277778]))


def test_entropy_prefers_the_surer_teacher():
    even = torch.zeros(1, 2)  # H = 0.693147; of (0.8, 0.2): 0.500402
    shares = ByEntropy().shares(torch.stack([even, FIRST]), torch.ones(2), FIRST, torch.tensor([0]))
    assert torch.allclose(shares.flatten(), torch.tensor([0.419252, 0.580748]), atol=1e-5)


def test_attention_is_the_softmax_of_scaled_products():
    fusion = ByAttention(2, 2, 1)
    for value in fusion.parameters():
        value.data.zero_()
    fusion.query.weight.data = torch.tensor([[1.0, 0.0]])
    for key in fusion.keys:
        key.weight.data = torch.tensor([[0.0, 1.0]])
    student = torch.tensor([[math.log(3.0), 7.0]])
    answers = torch.tensor([[[9.0, 1.0]], [[9.0, 2.0]]])  # scores ln 3 and 2 ln 3
    shares = fusion.shares(answers, torch.ones(2), student, torch.tensor([0]))
    assert torch.allclose(shares.flatten(), torch.tensor([0.25, 0.75]))
    probabilities = torch.softmax(answers, 2)[:, 0, 0]
    expected = -math.log(float(0.25 * probabilities[0] + 0.75 * probabilities[1]))
    own = fusion.own_loss(answers, shares, torch.tensor([0]))
    assert float(own) == pytest.approx(expected, abs=1e-5)
    own.backward()
    assert float(fusion.query.weight.grad.abs().sum()) > 0


def test_attention_learns_to_trust_the_teacher_that_is_right(tmp_path):
    class Wrong(Box):
        def logits(self, x: Tensor) -> Tensor:
            return super().logits(x).roll(1, dims=1)

    table = {"epochs": 60, "batch_size": 16, "learning_rate": 0.02, "label_weight": 0.0}
    at = situation(
        "multi-teacher", tmp_path, teaching=table, teachers=[Wrong(key="wrong", weight=5.0), Box()]
    )
    right = {}
    for fusion in ("attention", "weighted"):
        made = scheme("multi-teacher", fusion=fusion, width=16)
        taught = made.teach(layers(), at.phase(fusion)).module
        train = at.data.train
        right[fusion] = float((taught(train.x).argmax(1) == train.y).double().mean())
    assert right["attention"] > 0.6 > right["weighted"]


def test_equal_shares_do_not_look_at_weights():
    shares = Equal().shares(BOTH, torch.tensor([9.0, 1.0]), FIRST, torch.tensor([0]))
    assert shares.tolist() == [[0.5], [0.5]]


def test_a_specialists_dustbin_holds_the_other_classes_together():
    chances = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    grouped = torch.softmax(with_dustbin(chances.log(), (1, 3)), dim=1)
    assert torch.allclose(grouped, torch.tensor([[0.2, 0.4, 0.4]]))
    assert place_in(torch.tensor([3, 0, 1]), (1, 3)).tolist() == [1, 2, 0]


def test_teacher_and_specialist_are_combined_by_the_least_divergence():
    # The dustbin's 0.2 is spread over classes 2 and 3 as the teacher does, 2 : 1; then the mean.
    general, view = torch.tensor([[0.4, 0.3, 0.2, 0.1]]), torch.tensor([[0.1, 0.7, 0.2]])
    q = combined(general, [((0, 1), view)])
    assert torch.allclose(q, torch.tensor([[0.25, 0.5, 1 / 6, 1 / 12]]), atol=1e-5)
    assert combined(general, []) is general

    def cost(q: Tensor) -> float:
        held = torch.stack([q[0, 0], q[0, 1], q[0, 2] + q[0, 3]])
        return float(
            (general * (general / q).log()).sum() + (view[0] * (view[0] / held).log()).sum()
        )

    for moved in torch.eye(4) * 0.01 - 0.0025:
        assert cost(q + moved) > cost(q)


def test_a_specialist_sees_as_many_others_and_knows_its_excess():
    data, excess = shown(whole_batch(), (0, 1), 0)
    inside = int((Y < 2).sum())
    assert int((data.train.y < 2).sum()) == inside
    others = len(data.train) - inside
    assert others == min(inside, COUNT - inside)
    assert excess == pytest.approx(math.log((inside / others) / (inside / (COUNT - inside))))
    assert len(data.validation) == 0


def test_classes_that_are_predicted_together_form_a_group():
    torch.manual_seed(0)
    pair = torch.randint(0, 2, (400, 1)).float()
    noise = 0.02 * torch.rand(400, 4)
    chances = torch.cat([pair, 1 - pair, pair, 1 - pair], dim=1) / 2 + noise
    assert confusable(chances, 2, 0) == [(0, 2), (1, 3)]


def test_dafl_asks_for_sure_strong_and_balanced_answers():
    # CE of (0.8, 0.2) with its own choice 0.223144; the mean of both is even: H = 0.693147.
    answers = torch.cat([FIRST, SECOND])
    found = asking_dafl(answers, torch.tensor(2.0), activation=0.1, balance=5.0)
    assert float(found) == pytest.approx(0.223144 - 0.2 - 5 * 0.693147, abs=1e-5)
    one_sided = asking_dafl(torch.cat([FIRST, FIRST]), torch.tensor(2.0), 0.1, 5.0)
    assert float(one_sided) == pytest.approx(0.223144 - 0.2 - 5 * 0.500402, abs=1e-5)


def test_divergence_is_that_of_the_teacher_from_the_student():
    # KL((0.8, 0.2) || (0.2, 0.8)) = 0.6 ln 4
    assert float(divergence(FIRST, SECOND)) == pytest.approx(0.6 * math.log(4), abs=1e-6)
    assert float(divergence(FIRST, FIRST)) == pytest.approx(0.0, abs=1e-7)


def test_norm_statistics_by_hand():
    norm = nn.BatchNorm1d(2).eval()
    norm.running_mean = torch.tensor([1.0, 0.0])
    norm.running_var = torch.tensor([1.0, 5.0])
    x = torch.tensor([[3.0, 4.0], [5.0, 8.0]])  # means 4, 6; variances 1, 4
    with NormStatistics(nn.Sequential(norm)) as norms:
        _, distance = norms.watch(lambda: norm(x))
        norm(100 * x)  # not watched
        _, again = norms.watch(lambda: norm(x))
    assert float(distance) == pytest.approx(math.sqrt(9 + 36) + 1.0, rel=1e-6)
    assert float(again) == float(distance)
    assert not norm._forward_pre_hooks


def test_image_priors_by_hand():
    x = torch.tensor([[[[1.0, 2.0], [4.0, 4.0]]]])  # down 3, 2; right 1, 0
    assert float(variation(x)) == 9 + 4 + 1 + 0
    assert float(power(x)) == 1 + 4 + 16 + 16
    assert float(variation(torch.cat([x, torch.ones_like(x)]))) == 7.0


@pytest.mark.parametrize("name", ["data-free", "deep-inversion"])
def test_a_scheme_without_data_never_reads_a_sample(name, tmp_path):
    ends = []
    for run in ("sound", "hollow"):
        at = situation(name, tmp_path / run)
        if run == "hollow":
            for part in (at.data.train, at.data.validation):
                part.x.fill_(float("nan"))
                part.y.fill_(-7)
        torch.manual_seed(0)
        from classroom import network

        ends.append(state(scheme(name).teach(network(), at).module))
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def test_labels_among_some_classes_ignore_the_others():
    logits = torch.tensor([[5.0, 1.0, 2.0]])
    chances = torch.softmax(among(logits, (1, 2)), dim=1)
    expected = torch.softmax(torch.tensor([1.0, 2.0]), dim=0)
    assert torch.allclose(chances[0, 1:], expected)
    assert float(chances[0, 0]) == 0.0


@pytest.mark.parametrize("among_which", ["seen", "task"])
def test_learning_without_forgetting_keeps_old_answers_about_new_samples(among_which, tmp_path):
    student = layers()
    new = Y >= 2
    logits, before = student(X[new]), student(X[new]).detach()
    labels = logits if among_which == "seen" else logits[:, 2:]
    goal = Y[new] if among_which == "seen" else Y[new] - 2
    total = 0.5 * F.cross_entropy(labels, goal) + kl(logits[:, :2], before[:, :2])
    expected = stepped(student, total)
    losses, after = one_step(
        "lwf", tmp_path, student, phase="task-2", known=1, labels_among=among_which
    )
    assert losses[0] == pytest.approx(float(total), rel=1e-5)
    assert close(after, expected)


def test_dark_experience_replay_matches_the_logits_of_then(tmp_path):
    mine, old, new = layers(), Y < 2, Y >= 2
    assert int(old.sum()) < int(new.sum())  # so that a draw of a batch's size is all that is kept
    then = mine(X[old]).detach()
    mine.load_state_dict(stepped(mine, F.cross_entropy(mine(X[old]), Y[old])))
    total = F.cross_entropy(mine(X[new]), Y[new])
    total = total + 0.3 * ((mine(X[old]) - then) ** 2).mean()
    total = total + 0.5 * F.cross_entropy(mine(X[old]), Y[old])
    expected = stepped(mine, total)
    losses, after = one_step(
        "dark-experience-replay", tmp_path, layers(), phase="task-2", memory=COUNT
    )
    assert losses[0] == pytest.approx(float(total), rel=1e-5)
    assert close(after, expected)


def test_a_reservoir_holds_an_even_sample_of_what_was_offered():
    counts = torch.zeros(20)
    drawn = torch.Generator().manual_seed(0)
    for _ in range(400):
        memory = Reservoir(5, (1,), 2)
        values = torch.arange(20.0)
        for part in torch.split(values, 4):
            memory.offer(part[:, None], part.long(), torch.zeros(len(part), 2), drawn)
        assert memory.held == 5
        assert int(memory.offered) == 20
        counts[memory.y] += 1
    assert counts.sum() == 2000
    assert float((counts - 100).abs().max()) < 40  # four deviations of a binomial(400, 1/4)


def test_every_private_sample_goes_to_one_client():
    y = torch.arange(300) % 3
    parts = dirichlet_shares(y, 4, 0.5, seed=1)
    assert torch.cat(parts).sort().values.tolist() == list(range(300))
    even = dirichlet_shares(y, 4, 1e6, seed=1)
    assert [len(part) for part in even] == pytest.approx([75] * 4, abs=2)
    skew = [torch.bincount(y[part], minlength=3).tolist() for part in parts]
    assert any(min(counts) < 10 < max(counts) for counts in skew)


def test_only_predictions_travel_and_count_by_the_clients_samples(tmp_path):
    import numpy as np

    table = {"rounds": 1, "digest": False, "public_share": 0.5, "clients": 2, "concentration": 9.0}
    keys = keys_for("federated", epochs=1, learning_rate=RATE, batch_size=8, optimizer="sgd")
    keys |= {"momentum": 0.0, "weight_decay": 0.0, "warmup": 0.0, "schedule": "constant"}
    at = situation("federated", tmp_path, teaching={**keys, "keep": "last"}, data=whole_batch())
    made, student = scheme("federated", **table), layers()
    public, private = made._parts(at)
    assert len(public.train) == 8
    rows = {tuple(x.flatten().tolist()) for x in public.train.x}
    for part in private:
        assert not rows & {tuple(x.flatten().tolist()) for x in part.train.x}
    expected = fresh(student, 0, "none")
    expected.load_state_dict(student.state_dict())
    taught = made.teach(student, at).module
    files = sorted((tmp_path / "round-1").glob("*.npy"))
    answers = [torch.from_numpy(np.load(file)) for file in files]
    assert [tuple(a.shape) for a in answers] == [(8, CLASSES)] * 2
    assert all(a.dtype == torch.float16 for a in answers)
    sizes = torch.tensor([float(len(part.train)) for part in private])
    soft = [torch.softmax(a.float() / TEMPERATURE, 1) for a in answers]
    mean = (sizes[0] * soft[0] + sizes[1] * soft[1]) / sizes.sum()
    total = kl(expected(public.train.x), TEMPERATURE * mean.log())
    assert close(state(taught), stepped(expected, total))


def test_features_are_pooled_by_their_rank():
    assert pooled(torch.ones(2, 3, 4, 4)).shape == (2, 3)
    assert pooled(torch.arange(12.0).view(1, 3, 4)).tolist() == [[4.0, 5.0, 6.0, 7.0]]
    assert pooled(torch.ones(2, 5)).shape == (2, 5)


def test_the_students_generation_learns_from_the_one_before(tmp_path):
    from edgekd.stages.distill.schemes._networks import as_teacher

    at = situation("born-again", tmp_path / "a")
    taught = scheme("born-again").teach(layers(), at).module
    first, by_hand = layers(), situation("born-again", tmp_path / "b")
    fit_labels(first, by_hand)
    second = fresh(first, by_hand.seed, "generation", 1)
    teach(second, by_hand.phase("second").with_teachers([as_teacher(first, "first")]))
    assert all(torch.equal(state(taught)[k], v) for k, v in state(second).items())


@pytest.mark.parametrize("dense", [False, True])
def test_the_student_learns_from_the_assistant_alone_unless_all_teach(dense, tmp_path):
    import edgekd.stages.distill.schemes.progressive as progressive

    asked: list[list[str]] = []
    at = situation("progressive", tmp_path)

    def noted(student, context, **keys):
        asked.append([teacher.name for teacher in context.teachers])
        return teach(student, context, **keys)

    assistants = TABLES["progressive"]["assistants"] * 2
    made = scheme("progressive", assistants=assistants, dense=dense, drop=0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progressive, "teach", noted)
        made.teach(layers(), at)
    if dense:
        assert asked == [
            ["big"],
            ["big", "assistant 1"],
            ["big", "assistant 1", "assistant 2"],
        ]
    else:
        assert asked == [["big"], ["assistant 1"], ["assistant 2"]]
