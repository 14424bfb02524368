"""A recipe's losses with schedules, pairs and all that they need, through a whole teaching."""

import copy
import re

import pytest
import torch
from contexts import context
from states import same, state
from teaching_cases import (
    LINEAR,
    data,
    faults,
    resnet,
    situation,
    table,
    teacher_of,
    teaching,
)

from edgekd.registry import LOSSES
from edgekd.training.distillation import teach
from edgekd.training.losses import DepthsLoss
from edgekd.training.teachers.module import ModuleTeacher
from edgekd.training.teachers.outputs import Outputs
from edgekd.training.terms import terms_of

torch.set_num_threads(1)


@pytest.mark.parametrize("name", LOSSES.names())
def test_every_loss_teaches_and_leaves_nothing_behind(name, tmp_path):
    student, network, samples = situation(name)
    teacher, before, start = teacher_of(network), state(network), state(student)
    plan = teaching(table(name), label_weight=0.0, weight_decay=0.0)
    trained = teach(student, context(plan, data=samples, teachers=[teacher], work=tmp_path))
    assert same(before, state(network))
    assert state(trained).keys() == start.keys()
    assert not same(start, state(trained))
    assert all(value.isfinite().all() for value in state(trained).values())
    for module in (trained, network):
        assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
        assert not any(part.training for part in module.modules())


STATEFUL = [
    {"name": "kl", "temperature": {"schedule": "learned", "epochs": 2}},
    {"name": "crd", "negatives": 4, "width": 8, "weight": {**LINEAR, "end": 0.0}},
    {"name": "adversarial", "layers": "auto", "weight": 0.1},
    {"name": "kl", "weight": {"schedule": "balanced", "layer": "stages.2"}},
]


def test_a_teaching_broken_off_goes_on_with_schedules_memories_and_judges(tmp_path):
    teacher = teacher_of(resnet(8))
    keys = {"epochs": 3, "label_weight": {"schedule": "cosine", "start": 1.0, "end": 0.1}}
    plan = teaching(*STATEFUL, sample_weights="disagreement", calibrate_teachers=True, **keys)
    start = resnet(4)
    places = {"data": data(), "teachers": [teacher]}
    whole = teach(copy.deepcopy(start), context(plan, work=tmp_path / "a", **places))

    def stop(done: int, total: int) -> None:
        if done == 5:  # of 6, in the third epoch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        teach(copy.deepcopy(start), context(plan, work=tmp_path / "b", on_step=stop, **places))
    steps: list[int] = []
    resumed = teach(
        copy.deepcopy(start),
        context(
            plan, work=tmp_path / "b", on_step=lambda done, total: steps.append(done), **places
        ),
    )
    assert steps == [5, 6]
    assert same(state(whole), state(resumed))


def test_sequences_written_before_a_break_are_kept(tmp_path):
    student, network, samples = situation("sequence")
    plan = teaching({"name": "sequence"}, epochs=2)
    places = {"data": samples, "teachers": [teacher_of(network)]}
    whole = teach(copy.deepcopy(student), context(plan, work=tmp_path / "a", **places))

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        teach(copy.deepcopy(student), context(plan, work=tmp_path / "b", on_step=stop, **places))
    resumed = teach(copy.deepcopy(student), context(plan, work=tmp_path / "b", **places))
    assert same(state(whole), state(resumed))


def test_a_constant_schedule_is_the_number_itself(tmp_path):
    plain = teaching({"name": "kl", "weight": 0.7, "temperature": 3.0}, label_weight=0.3)
    constant = {
        "name": "kl",
        "weight": {"schedule": "constant", "value": 0.7},
        "temperature": {"schedule": "constant", "value": 3.0},
    }
    scheduled = teaching(constant, label_weight={"schedule": "constant", "value": 0.3})
    ends = []
    for number, plan in enumerate((plain, scheduled)):
        keys = {"data": data(), "teachers": [teacher_of(resnet(8))], "work": tmp_path / str(number)}
        ends.append(state(teach(resnet(4), context(plan, **keys))))
    assert same(*ends)


def test_auto_gives_a_loss_on_one_layer_a_regressor_for_each_pair_and_shares_its_weight(tmp_path):
    named = [{"name": "attention", "weight": 2.0, "student": f"stages.{n}.0"} for n in range(3)]
    auto = {"name": "attention", "weight": 6.0, "layers": "auto"}
    ends = []
    for number, losses in enumerate((named, [auto])):
        keys = {"data": data(), "teachers": [teacher_of(resnet(8))], "work": tmp_path / str(number)}
        ends.append(state(teach(resnet(4), context(teaching(*losses), **keys))))
    assert all(torch.allclose(ends[0][key], ends[1][key], atol=1e-6) for key in ends[0])


def test_features_are_the_batchs_own_also_beside_a_loss_that_runs_the_teacher_again(tmp_path):
    # In the first epoch `sequence` lets the teacher write; what it then looks at is no batch.
    losses = [{"name": "sequence"}, {"name": "hint", "student": "mix"}]
    ends = []
    for number, order in enumerate((losses, losses[::-1])):
        student, network, samples = situation("sequence")
        torch.manual_seed(0)
        plan = teaching(*order, epochs=1)
        keys = {"data": samples, "teachers": [teacher_of(network)], "work": tmp_path / str(number)}
        ends.append(state(teach(student, context(plan, **keys))))
    assert all(torch.allclose(ends[0][key], ends[1][key], atol=1e-6) for key in ends[0])


def test_equal_sample_weights_change_nothing_and_others_do(tmp_path):
    ends = {}
    for wish in ("equal", "inverse-frequency", "disagreement"):
        plan = teaching({"name": "kl"}, sample_weights=wish)
        keys = {"data": data(), "teachers": [teacher_of(resnet(8))], "work": tmp_path / wish}
        ends[wish] = state(teach(resnet(4), context(plan, **keys)))
    plain = teaching({"name": "kl"})
    keys = {"data": data(), "teachers": [teacher_of(resnet(8))], "work": tmp_path / "plain"}
    assert same(ends["equal"], state(teach(resnet(4), context(plain, **keys))))
    assert not same(ends["equal"], ends["inverse-frequency"])
    assert not same(ends["equal"], ends["disagreement"])


@pytest.mark.parametrize("name", ["mse-logits", "transformer"])
def test_a_calibrated_teachers_logits_are_divided_by_its_temperature(name, tmp_path, monkeypatch):
    student, network, samples = situation(name)
    sharp = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in sharp.classifier.parameters():
            parameter.mul_(4.0)
    fitted = {"plain": 1.0, "sharp": 4.0}
    monkeypatch.setattr(
        "edgekd.training.distillation_loss.teacher_temperature", lambda t, data: fitted[t.name]
    )
    ends = []
    for title, module in (("plain", network), ("sharp", sharp)):
        plan = teaching(table(name), calibrate_teachers=True)
        teacher = ModuleTeacher(title, title, 1.0, module.requires_grad_(False), Outputs())
        keys = {"data": samples, "teachers": [teacher], "work": tmp_path / title}
        ends.append(state(teach(copy.deepcopy(student), context(plan, **keys))))
    assert all(torch.allclose(ends[0][key], ends[1][key], atol=1e-5) for key in ends[0])


KL = {"name": "kl"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({**KL, "temperature": {**LINEAR, "end": 0.0}}, "temperature must be above 0"),
        ({**KL, "temperature": {"schedule": "liner"}}, "unknown schedule 'liner'.*linear"),
        ({**KL, "weight": {**LINEAR, "end": -1.0}}, "the weight would range from -1 to 8"),
        ({**KL, "weight": {"start": 1.0}}, "the table has no 'schedule'"),
        (
            {"name": "nst", "layers": "auto", "layout": LINEAR},
            "no numeric parameter 'layout' to schedule",
        ),
        (
            {"name": "crd", "temperature": {"schedule": "spread"}},
            "one value per sample is only for the temperature of a loss on logits",
        ),
        ({**KL, "layers": "auto"}, "compares logits and reads no layer"),
        ({"name": "hint", "layers": "auto", "student": "stem"}, "give either layers"),
        ({"name": "hint", "layers": "all"}, "'auto'"),
        ({"name": "hint", "student": "stem", "map": "back"}, "need layers"),
        ({"name": "fsp", "layers": "auto"}, "as many channels on both sides"),
        ({"name": "minilm", "layers": "auto"}, "no attention weights within"),
        ({"name": "hint", "student": "stages.9"}, "no layer 'stages.9'"),
        ({**KL, "weight": {"schedule": "balanced", "layer": "nowhere"}}, "no layer 'nowhere'"),
        ({"name": "ctc"}, "needs logits \\(frames, classes\\)"),
        ({"name": "keypoint"}, "needs heatmaps"),
        ({"name": "detection-rank"}, "is for detection, but the data's task is classification"),
        ({"name": "detection-features", "layers": "auto"}, "is for detection, but the data's task"),
        ({"name": "cross-modal", "temperature": -1.0}, "temperature must be above 0"),
    ],
)
def test_a_wrong_loss_is_refused_before_any_training(given, said):
    assert re.search(said, faults(given)), faults(given)


@pytest.mark.parametrize("name", LOSSES.names())
def test_every_temperature_is_checked_at_both_ends_of_its_schedule(name):
    if "temperature" not in LOSSES.get(name).parameters:
        return
    wrong = {**table(name), "temperature": {"schedule": "linear", "start": 4.0, "end": 0.0}}
    _, found = terms_of([wrong], "here")
    assert [fault.exit_code for fault in found] == [2]
    assert "temperature must be above 0" in str(found[0])


def test_weights_that_sum_to_nothing_are_refused_scheduled_or_not():
    zero = {"schedule": "constant", "value": 0.0}
    for weight in (0.0, zero):
        assert "every weight is zero" in faults({**KL, "weight": weight}, label_weight=0.0)
        assert "every weight is zero" in faults({**KL, "weight": weight}, label_weight=zero)


def test_a_task_without_labelled_rows_has_no_sample_weights_and_no_fitted_temperature():
    student, teacher, samples = situation("keypoint")
    found = faults(
        {"name": "keypoint"},
        on=(student, teacher, samples),
        sample_weights="disagreement",
        calibrate_teachers=True,
    )
    assert found.count("the task keypoints has no logits with one label each") == 2


def test_depths_losses_are_all_listed_with_what_auto_takes():
    named = [n for n in LOSSES.names() if issubclass(LOSSES.get(n).make, DepthsLoss)]
    parts = {part for name in named for part in LOSSES.get(name).make.automatic}
    assert parts == {"block", "embedding", "attention", "value"}
