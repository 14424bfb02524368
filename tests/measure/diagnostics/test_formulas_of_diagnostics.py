"""Diagnostics against numbers worked out by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.data.samples import Data, Samples
from edgekd.data.tasks.detection import Detection
from edgekd.data.tasks.regression import Regression
from edgekd.errors import InputError
from edgekd.measure.diagnostics import Costs, Line, Networks, Outputs, diagnostics_of
from edgekd.measure.diagnostics.attacks import Attacks, attack
from edgekd.measure.diagnostics.attribution import Attribution, saliency
from edgekd.measure.diagnostics.calibration import Calibration, binned, calibration_error
from edgekd.measure.diagnostics.corruptions import Corruptions, corruptions
from edgekd.measure.diagnostics.fidelity import Fidelity, divergence
from edgekd.measure.diagnostics.groups import Groups, by_group
from edgekd.measure.diagnostics.intervals import Intervals
from edgekd.measure.diagnostics.life_cycle import LifeCycle, paid_after
from edgekd.measure.diagnostics.probes import Probes, probe, separable, spread
from edgekd.measure.diagnostics.recall import Recall
from edgekd.measure.diagnostics.sensitivity import found as found_positives
from edgekd.measure.diagnostics.top_k import TopK, hits
from edgekd.registry import DIAGNOSTICS
from edgekd.values.measurement import Measurement

LOGITS = torch.log(
    torch.tensor([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7], [0.2, 0.5, 0.3]])
)
LABELS = torch.tensor([0, 1, 2, 0])


def data(x=None, y=LABELS, **more) -> Data:
    x = torch.arange(len(y) * 2.0).view(len(y), 2) if x is None else x
    samples = Samples(x, y, **more)
    return Data("own", samples, samples, samples, classes=3)


def outputs(student, teacher=LOGITS, on=None) -> Outputs:
    return Outputs(on or data(), student, teacher, lambda x: student[: len(x)], lambda x: teacher)


def told(lines: list[Line]) -> dict[str, Line]:
    return {line.name: line for line in lines}


def test_top_k_and_recall_count_by_hand():
    rows, labels = LOGITS.double(), LABELS
    # Right: samples 0 and 2; the label is second in sample 1 and last in sample 3.
    assert hits(rows, labels, 1).tolist() == [1, 0, 1, 0]
    assert hits(rows, labels, 2).tolist() == [1, 1, 1, 0]
    assert hits(rows, labels, 3).tolist() == [1, 1, 1, 1]
    lines = Recall().look(outputs(LOGITS, on=replace(data(), classes=4)))[0]
    assert [line.student for line in lines] == [0.5, 0.0, 1.0, None]
    assert lines[3].reason == "no test sample of this class"


@pytest.mark.parametrize(
    ("specificity", "expected"),
    [(0.5, 1.0), (0.75, 0.5), (0.9, 0.0)],
)
def test_sensitivity_is_that_of_the_least_threshold_with_the_specificity(specificity, expected):
    scores = torch.tensor([0.1, 0.2, 0.6, 0.9, 0.5, 0.7])
    positive = torch.tensor([False, False, False, False, True, True])
    # Of the negatives 0.1 0.2 0.6 0.9: half are not above 0.2, three quarters not above 0.6.
    assert float(found_positives(scores, positive, specificity).mean()) == expected


def test_divergence_is_kl_from_the_teacher_in_nats():
    p, q = [0.7, 0.2, 0.1], [0.6, 0.3, 0.1]
    expected = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    found = divergence(LOGITS[1:2], LOGITS[:1] + 5.0)
    assert found == pytest.approx(expected, rel=1e-5), "a constant on all logits changes nothing"
    assert divergence(LOGITS, LOGITS) == 0.0
    lines = told(Fidelity().look(outputs(LOGITS))[0])
    assert lines["agreement with the teacher"].student == 1.0
    assert lines["KL(teacher || student)"].unit == "nats"


def test_calibration_error_weighs_each_bins_gap_by_its_share():
    sure = torch.tensor([0.9, 0.8, 0.55, 0.2])
    right = torch.tensor([1.0, 0.0, 1.0, 0.0])
    # Two bins: (0, 0.5] holds 0.2, wrong; (0.5, 1] holds the rest, 2/3 right at mean 0.75.
    assert calibration_error(sure, right, 2) == pytest.approx(0.25 * 0.2 + 0.75 * (0.75 - 2 / 3))
    confidence, _, share = binned(torch.tensor([0.5, 1.0, 0.0]), torch.ones(3), 2)
    assert confidence.tolist() == [0.25, 1.0], "0.5 belongs to the lower bin, 0 to the first"
    assert share.tolist() == pytest.approx([2 / 3, 1 / 3])


def test_likelihood_and_brier_by_hand():
    lines = told(Calibration(bins=1).look(outputs(LOGITS))[0])
    likelihood = -(math.log(0.7) + math.log(0.3) + math.log(0.7) + math.log(0.2)) / 4
    brier = (0.14 + (0.36 + 0.49 + 0.01) + 0.14 + (0.64 + 0.25 + 0.09)) / 4
    assert lines["negative log-likelihood"].student == pytest.approx(likelihood, rel=1e-5)
    assert lines["Brier score"].student == pytest.approx(brier, rel=1e-5)
    # One bin: mean confidence (0.7 + 0.6 + 0.7 + 0.5) / 4, half of them right.
    assert lines["calibration error"].student == pytest.approx(0.125, rel=1e-5)
    # Class 2: mean probability 0.3, a quarter of the samples are of it.
    assert lines["calibration error, class 2"].student == pytest.approx(0.05, rel=1e-4)


def test_the_interval_is_a_binomials_and_covers_or_not():
    better = LOGITS.clone()
    better[3] = better[0]
    covered = "the student's interval covers the teacher's accuracy (1: yes)"
    assert told(Intervals().look(outputs(LOGITS, better))[0])[covered].student == 1.0
    many = LABELS.repeat(50)
    right = 9.0 * nn.functional.one_hot(many, 3)
    apart = outputs(LOGITS.repeat(50, 1), right, data(y=many))
    lines = told(Intervals().look(apart)[0])
    assert lines[covered].student == 0.0
    assert lines["accuracy"].teacher == 1.0
    assert lines["accuracy"].teacher_ci == (1.0, 1.0)
    deviation = math.sqrt(0.25 / 200)  # of a binomial's share, at one half of 200
    assert lines["accuracy"].ci == pytest.approx(
        (0.5 - 1.96 * deviation, 0.5 + 1.96 * deviation), abs=0.01
    )


def test_groups_tell_how_much_the_gap_grew(tmp_path):
    parts = by_group(torch.tensor([1.0, 0.0, 1.0, 1.0]), torch.tensor([0, 0, 5, 5]))
    assert {value: scores.tolist() for value, scores in parts.items()} == {0: [1, 0], 5: [1, 1]}
    np.save(tmp_path / "groups.npy", np.array([0, 1, 0, 1]))
    even = torch.nn.functional.one_hot(LABELS, 3).float()
    on = Outputs(data(), LOGITS, even, lambda x: x, lambda x: x, tmp_path)
    lines = told(Groups(groups="groups.npy").look(on)[0])
    assert (lines["group 0"].student, lines["group 1"].student) == (1.0, 0.0)
    assert (lines["gap between groups"].student, lines["gap between groups"].teacher) == (1.0, 0.0)
    assert lines["growth of the gap"].student == 100.0
    np.save(tmp_path / "groups.npy", np.array([0.5, 1, 0, 1]))
    with pytest.raises(InputError, match="allowed: 4 integers, one per test sample"):
        Groups(groups="groups.npy").look(on)


def test_corruptions_change_what_they_say():
    x = torch.rand(4, 1, 6, 6)
    changes = corruptions(x, 1.0)
    assert sorted(changes) == ["blur", "contrast", "noise", "values lost"]
    assert float((changes["noise"](x) - x).std()) == pytest.approx(0.3 * float(x.std()), rel=0.2)
    contrast = changes["contrast"](x)
    assert torch.allclose(contrast - x.mean(), (x - x.mean()) / 2, atol=1e-6)
    lost = changes["values lost"](torch.ones(100, 1, 10, 10))
    assert float((lost == 0).float().mean()) == pytest.approx(0.1, abs=0.01)
    spot = torch.zeros(1, 1, 5, 5)
    spot[0, 0, 2, 2] = 9.0
    assert changes["blur"](spot)[0, 0, 1:4, 1:4].tolist() == [[1.0] * 3] * 3
    assert "blur" not in corruptions(torch.rand(4, 6), 1.0)
    seen = []
    on = Outputs(data(), LOGITS, LOGITS, lambda x: seen.append(x) or LOGITS, lambda x: LOGITS)
    assert len(Corruptions().look(on)[0]) == len(seen) == 4, "the file runs on each of them"


def test_fgsm_steps_epsilon_along_the_gradients_sign_and_pgd_stays_in_the_ball():
    torch.manual_seed(0)
    network = nn.Linear(2, 3)
    samples = Samples(torch.rand(8, 2), torch.arange(8) % 3)
    x = samples.x.clone().requires_grad_()
    nn.functional.cross_entropy(network(x), samples.y).backward()
    fgsm = attack(network, samples, 0.1, 1, (None, None), 0)
    assert torch.allclose(fgsm, samples.x + 0.1 * x.grad.sign())
    pgd = attack(network, samples, 0.1, 7, (0.0, 1.0), 0)
    assert float((pgd - samples.x).abs().max()) <= 0.1 + 1e-6
    assert 0.0 <= float(pgd.min()) <= float(pgd.max()) <= 1.0
    before = nn.functional.cross_entropy(network(samples.x), samples.y)
    assert nn.functional.cross_entropy(network(pgd), samples.y) > before


def test_an_attack_breaks_a_linear_network_where_epsilon_says_so():
    network = nn.Linear(2, 2, bias=False)
    network.weight.data = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    x = torch.tensor([[0.05, 0.0], [0.3, 0.0], [-0.05, 0.0], [-0.3, 0.0]])
    on = data(x=x, y=torch.tensor([0, 0, 1, 1]))
    lines = told(Attacks(epsilon=0.1, clip=False).look(Networks(on, network, None))[0])
    found = {name: line.student for name, line in lines.items()}
    assert found == {"unchanged": 1.0, "FGSM 0.1": 0.5, "PGD 0.1": 0.5}
    assert all(line.teacher is None for line in lines.values())


def test_saliency_is_the_gradients_size_and_equal_networks_align():
    network = nn.Linear(2, 3, bias=False)
    on = data(x=torch.rand(4, 2))
    p = network(on.test.x).softmax(1).detach()
    wanted = nn.functional.one_hot(LABELS, 3)
    by_hand = ((p - wanted) @ network.weight.detach()).abs() / 4
    assert torch.allclose(saliency(network, on.test), by_hand.double(), atol=1e-6)
    lines = told(Attribution().look(Networks(on, network, network))[0])
    assert lines["cosine of saliency"].student == pytest.approx(1.0)
    alone = Attribution().look(Networks(on, network, None))[0]
    assert alone[0].student is None
    assert alone[0].reason == "the teacher is a black box"


def test_a_probe_finds_what_is_linearly_there():
    torch.manual_seed(0)
    x, y = torch.randn(200, 4).double(), torch.arange(200) % 2
    assert probe(x, y, x, y, 2, 1e-2).mean() < 0.7
    x[:, 0] += 6.0 * y
    assert probe(x[:100], y[:100], x[100:], y[100:], 2, 1e-2).mean() > 0.97
    assert spread(list("abcdefg"), 3) == ["a", "d", "g"]
    assert separable([0.5, 0.895, 0.9]) == 0.5
    assert separable([0.9]) == 0.0


def test_probes_read_every_layer_with_weights_in_order():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3))
    on = data(x=torch.randn(60, 2), y=torch.arange(60) % 3)
    lines, plot = Probes().look(Networks(on, network, None))
    assert [line.name for line in lines] == [
        "student: 0",
        "student: 2",
        "student: separable at depth",
    ]
    assert plot is not None
    assert plot.curves[0].x == (0.0, 1.0)
    assert not network[0]._forward_hooks, "no hook stays"
    exported = torch.export.export(network, (on.test.x,)).module()
    assert Probes().look(Networks(on, exported, None))[0] == lines


def test_a_network_without_layers_to_probe_says_so():
    on = data(x=torch.randn(60, 2), y=torch.arange(60) % 3)
    for network in (nn.Linear(2, 3), nn.Flatten()):
        (line,), _ = Probes().look(Networks(on, network, None))
        assert line.student is None
        assert line.reason == "it has no layer with weights whose output could be read"


def test_a_part_of_a_set_in_the_order_of_its_classes_has_samples_of_all_of_them():
    torch.manual_seed(0)
    y = torch.arange(3).repeat_interleave(400)
    on = data(x=torch.randn(1200, 2) + 5.0 * torch.eye(3)[y, :2], y=y)
    network = nn.Sequential(nn.Linear(2, 3))
    (line, _), _ = Probes(samples=300).look(Networks(on, network, None))
    assert line.student is not None
    assert line.student > 0.95
    part = on.test.some(300)
    assert torch.bincount(part.y).tolist() == pytest.approx([100, 100, 100], abs=25)
    assert torch.equal(part.x, on.test.x[part.rows])
    assert torch.equal(part.rows, part.rows.unique())
    assert on.test.some(1200) is on.test


@pytest.mark.parametrize(
    ("training", "before", "after", "count", "reason"),
    [
        (3600.0, 5.0, 2.0, 1_200_000.0, ""),
        (None, 5.0, 2.0, None, "the training's energy is unknown"),
        (3600.0, None, 2.0, None, "the energy of the teacher's inferences was not measured"),
        (3600.0, 5.0, None, None, "the energy of the file's inferences was not measured"),
        (3600.0, 2.0, 2.0, None, "inferences save no energy, so training never pays off"),
    ],
)
def test_training_is_paid_after_what_it_took_over_what_is_saved(
    training, before, after, count, reason
):
    assert paid_after(training, before, after) == (count, reason)


def test_the_life_cycle_is_as_sure_as_its_weakest_number():
    def energy(mj, kind="measured"):
        return [Measurement(metric="energy_mj", value=mj, kind=kind, device="host", reason="no")]

    costs = Costs(energy(5.0), {"model.onnx": energy(2.0)}, training_seconds=360.0)
    watts = LifeCycle(training_watts=10.0, grams_per_kwh=400.0)
    lines = told(watts.look(costs)[0])
    assert lines["energy of training"].student == 3600.0
    assert lines["carbon of training"].student == pytest.approx(0.4), "3600 J are 0.001 kWh"
    assert lines["model.onnx: pays off after"].student == 1_200_000.0
    assert watts.kind(costs) == "estimated"
    assert LifeCycle(training_joules=3600.0).kind(costs) == "measured"
    assert LifeCycle().kind(costs) == "unavailable"
    assert LifeCycle().look(costs)[0][0].reason.startswith("give training_joules")
    without = Costs((), {"model.onnx": energy(None, "unavailable")}, 360.0)
    assert watts.kind(without) == "unavailable"


@pytest.mark.parametrize(
    ("wish", "fault"),
    [
        ("calibratoin", "unknown diagnostic 'calibratoin'"),
        ({"name": "top-k", "k": [9]}, "k = 9 exceeds the 3 classes"),
        ({"name": "top-k", "k": [0]}, "k must be 1 or more"),
        ({"name": "attacks", "epsilon": 0.0}, "epsilon must be above 0"),
        ({"name": "calibration", "bin": 3}, "unknown key 'bin'"),
        ({"name": "sensitivity", "positive": 5}, "no class 5"),
        ({"name": "sensitivity", "specificity": 1.0}, "between 0 and 1"),
        ({"name": "life-cycle", "training_watts": -1.0}, "training_watts must be above 0"),
        ({"name": "intervals", "draws": 5}, "draws must be 100 or more"),
    ],
)
def test_a_diagnostic_that_can_not_be_had_is_refused(wish, fault):
    made, faults = diagnostics_of([wish], data(), "report.diagnostics")
    assert made == {}
    assert [fault in str(each) for each in faults] == [True], [str(each) for each in faults]


def test_a_diagnostic_that_says_nothing_of_a_task_is_refused():
    boxes = data(x=torch.rand(4, 1, 8, 8), y=torch.zeros(4, 2, 5), task=Detection())
    wishes = ["top-k", "recall", "sensitivity", "calibration", "groups", "probes", "fidelity"]
    made, faults = diagnostics_of(wishes, boxes, "report.diagnostics")
    assert list(made) == ["fidelity"]
    assert len(faults) == 6
    real = data(y=torch.rand(4, 1), task=Regression())
    twice = diagnostics_of(["fidelity", "fidelity"], real, "report.diagnostics")[1]
    assert "listed twice" in str(twice[0])
    other = real.test.y + 0.5
    lines = told(Fidelity().look(outputs(real.test.y, other, real))[0])
    assert lines["root mean squared difference"].student == pytest.approx(0.5)


def test_a_line_without_a_number_says_why():
    with pytest.raises(ValueError, match="'x' is missing: say why"):
        Line(name="x", student=None)


def test_every_diagnostic_has_its_line_and_source():
    for name in DIAGNOSTICS.names():
        entry = DIAGNOSTICS.get(name)
        assert entry.paper, name
        assert entry.summary.endswith(".") or entry.summary, name
    assert TopK().k == (1, 3, 5)


@pytest.mark.parametrize("name", ["top-k", "recall", "sensitivity", "groups", "corruptions",
                                  "fidelity", "intervals", "attacks", "probes"])  # fmt: skip
def test_every_accuracy_has_its_interval_on_both_sides(name):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 3))
    y = torch.arange(60) % 3
    on = data(x=torch.randn(60, 2), y=y)
    made, _ = diagnostics_of([{"name": name, **({"k": [1]} if name == "top-k" else {})}], on, "")
    if name in ("attacks", "probes"):
        lines, _ = made[name].look(Networks(on, network, network))
    else:
        logits = network(on.test.x).detach()
        seen = Outputs(on, logits, logits + torch.randn(60, 3), network, network)
        lines, _ = made[name].look(seen)
    apart = ("gap", "growth", "depth", "KL", "end of the interval", "covers")
    shares = [line for line in lines if not any(word in line.name for word in apart)]
    assert shares
    for line in shares:
        assert line.ci is not None, line.name
        assert line.ci[0] <= line.student <= line.ci[1]
        if line.teacher is not None:
            assert line.teacher_ci[0] <= line.teacher <= line.teacher_ci[1]
