"""The distill stage, on scikit-learn's digits."""

import copy

import pytest
import torch
from contexts import X86
from contexts import context as training_context
from torch import nn

from edgekd.data.samples import Data, Samples
from edgekd.errors import InputError
from edgekd.models.resnet import resnet8
from edgekd.network.evaluation import evaluate
from edgekd.registry import LOSSES, STAGES
from edgekd.stages import Context
from edgekd.stages.cluster import Cluster
from edgekd.stages.distill import Distill
from edgekd.training.checkpoint import read_tensors
from edgekd.training.loop import CHECKPOINT, fit_labels
from edgekd.training.teachers.module import ModuleTeacher
from edgekd.training.teachers.outputs import Outputs
from edgekd.training.teaching import Teaching
from edgekd.values.candidate import Candidate
from edgekd.values.tables import parse_entry

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def digits() -> Data:
    from sklearn.datasets import load_digits

    found = load_digits()
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0))
    x = torch.tensor(found.images, dtype=torch.float32)[order, None] / 16
    y = torch.tensor(found.target)[order]
    parts = [Samples(x[a:b], y[a:b]) for a, b in ((0, 1200), (1200, 1400), (1400, 1797))]
    return Data("digits", *parts, 10)


@pytest.fixture(scope="module")
def teacher(digits, tmp_path_factory) -> ModuleTeacher:
    torch.manual_seed(0)
    training = Teaching(epochs=5, batch_size=32, learning_rate=3e-3)
    work = tmp_path_factory.mktemp("teacher")
    module = fit_labels(resnet8(channels=1), training_context(training, data=digits, work=work))
    assert evaluate(module, digits.test) > 0.95
    return ModuleTeacher("teacher", "teacher-of-digits", 1.0, module, Outputs())


def context(digits: Data, teacher: ModuleTeacher, work) -> Context:
    return Context(X86, digits, [teacher], work)


def candidate(digits: Data, form: str = "float") -> Candidate:
    torch.manual_seed(7)
    return Candidate(resnet8(channels=1, widths=(8, 16, 32)).eval(), digits.example, form)


def test_four_epochs_of_distillation_work_on_digits(digits, teacher, tmp_path):
    stage = Distill(
        epochs=4,
        batch_size=32,
        learning_rate=5e-3,
        losses=(
            {"name": "kl", "weight": 0.9, "temperature": 2.0},
            {"name": "hint", "weight": 0.5, "student": "stages.1"},
            {"name": "attention", "weight": 0.1, "student": "stages.0"},
        ),
    )
    before = candidate(digits)
    weights = copy.deepcopy(before.module.state_dict())
    assert stage.check(before, context(digits, teacher, tmp_path), "stages.1") == []
    after = stage.run(before, context(digits, teacher, tmp_path))
    assert all(torch.equal(weights[k], v) for k, v in before.module.state_dict().items())
    assert evaluate(after.module, digits.test) > 0.93
    assert after.lineage == ("distill: 4 epochs with kl, hint, attention",)
    assert not any(part.training for part in after.module.modules())


def test_a_student_comes_closer_to_its_teacher_with_it_than_without(digits, teacher, tmp_path):
    """What distillation is for: fidelity, measured as agreement with the teacher's soft answers."""

    def distance(stage: Distill, name: str) -> float:
        after = stage.run(candidate(digits), context(digits, teacher, tmp_path / name))
        with torch.no_grad():
            mine = torch.log_softmax(after.module(digits.test.x), dim=1)
            theirs = torch.log_softmax(teacher.module(digits.test.x), dim=1)
        return float(nn.functional.kl_div(mine, theirs, log_target=True, reduction="batchmean"))

    keys = {"epochs": 4, "batch_size": 32, "learning_rate": 5e-3}
    kl = {"name": "kl", "weight": 0.9, "temperature": 1.0}
    taught = distance(Distill(**keys, losses=(kl,)), "with")
    alone = distance(Distill(**keys, losses=(), label_weight=1.0), "without")
    assert taught < alone


def test_a_quantized_candidate_is_refused(digits, teacher, tmp_path):
    stage = Distill()
    found = stage.check(candidate(digits, "int8"), context(digits, teacher, tmp_path), "stages.2")
    assert [str(fault) for fault in found] == [
        "stages.2: a quantized model can't be distilled further"
    ]
    assert "distill before quantize" in found[0].hint


def test_the_plan_says_what_it_costs(digits, teacher, tmp_path):
    cost = Distill(epochs=12).cost(context(digits, teacher, tmp_path))
    assert cost == "12 epochs of 1,200 samples, learning from teacher"


def test_a_recipes_table_makes_the_stage():
    table = {"kind": "distill", "epochs": 3, "losses": [{"name": "kl", "temperature": 2.0}]}
    stage = parse_entry(STAGES.get("distill"), Distill, table, "stages.1")
    losses = ({"name": "kl", "temperature": 2.0},)
    assert (stage.kind, stage.teaching) == ("distill", Teaching(epochs=3, losses=losses))
    assert stage.model_dump()["epochs"] == 3
    with pytest.raises(InputError, match="unknown key 'epoch'") as caught:
        parse_entry(STAGES.get("distill"), Distill, {"epoch": 3}, "stages.1")
    assert caught.value.hint == "did you mean 'epochs'?"
    with pytest.raises(InputError, match=r"stages\.1: epochs: .*greater than 0, found 0"):
        parse_entry(STAGES.get("distill"), Distill, {"epochs": 0}, "stages.1")


def test_a_stage_made_in_python_takes_a_teaching_or_its_keys_but_not_both():
    teaching = Teaching(epochs=2)
    assert Distill(teaching=teaching) == Distill(epochs=2)
    with pytest.raises(ValueError, match="directly, or give a Teaching alone"):
        Distill(teaching=teaching, epochs=3)
    with pytest.raises(ValueError, match="directly, or give a Teaching alone"):
        Distill(teaching={"epochs": 3})


def test_a_key_that_is_not_given_is_that_of_the_stages_own_teaching():
    assert Cluster(batch_size=8).teaching.epochs == Cluster().teaching.epochs == 5
    assert Cluster(epochs=0).teaching.epochs == 0


FEATURES = {"student": "stages.1", "teacher": "stages.1"}
TABLES = {
    **dict.fromkeys(("hint", "attention", "nst", "mmd", "cosine", "vid"), FEATURES),
    "gram": {"student": "stages.1.0.conv2", "teacher": "stages.1.0.conv2"},
    "fsp": {"student": ["stages.0", "stages.1"], "teacher": ["stages.0", "stages.1"]},
}
SAME_WIDTH = ("gram", "fsp")
# What other tasks or networks need is taught in tests/teaching, and a judge that learns along
# (adversarial) makes a loss that need not fall.
ELSEWHERE = ("adversarial", "cross", "ctc", "detection", "graph", "keypoint", "minilm", "own",
             "policy", "regression", "review", "segmentation", "sequence", "transformer",
             "crd")  # fmt: skip
ON_DIGITS = [name for name in LOSSES.names() if not name.startswith(ELSEWHERE)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_DIGITS)
def test_every_loss_goes_down_on_real_data(name, digits, teacher, tmp_path):
    few = Data("digits", *[Samples(p.x[:320], p.y[:320]) for p in (digits.train,) * 3], 10)
    table = {"name": name, **TABLES.get(name, {})}
    stage = Distill(
        epochs=4, batch_size=32, learning_rate=3e-3, label_weight=0.0, losses=(table,), keep="last"
    )
    torch.manual_seed(7)
    widths = (16, 32, 64) if name in SAME_WIDTH else (8, 16, 32)
    start = Candidate(resnet8(channels=1, widths=widths).eval(), digits.example)
    assert stage.check(start, context(few, teacher, tmp_path), "stages.1") == []
    stage.run(start, context(few, teacher, tmp_path))
    losses = [epoch["loss"] for epoch in read_tensors(tmp_path / CHECKPOINT)[1]["history"]]
    assert losses[-1] < losses[0]
