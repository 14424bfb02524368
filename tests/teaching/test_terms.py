"""A recipe's losses with schedules, pairs and all that they need, through a whole teaching."""

import copy
import re

import pytest
import torch
from torch import Tensor, nn

from edgekd.data.samples import Data, Samples
from edgekd.losses import DepthsLoss, FeatureLoss, OutputLoss, ResponseLoss
from edgekd.models.resnet import resnet8
from edgekd.models.transformer import transformer
from edgekd.registry import LOSSES
from edgekd.tasks.ctc import CTC
from edgekd.tasks.detection import Detection
from edgekd.tasks.keypoints import Keypoints
from edgekd.tasks.regression import Regression
from edgekd.tasks.segmentation import Segmentation
from edgekd.tasks.tokens import Tokens
from edgekd.teachers.module import ModuleTeacher
from edgekd.teachers.outputs import Outputs
from edgekd.teaching.distillation import Teaching, check_teaching, teach
from edgekd.teaching.terms import terms_of

torch.set_num_threads(1)
GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(24, 1, 8, 8, generator=GENERATOR)
LABELS = IMAGES.flatten(1)[:, :3].argmax(1)
LINEAR = {"schedule": "linear", "start": 8.0, "end": 2.0}


class Dense(nn.Module):
    """Maps for maps, as a detector, a segmenter or a network of heatmaps is built."""

    def __init__(self, outputs: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Conv2d(width, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.head(self.second(self.first(x).relu()).relu())
        return maps


class Rows(nn.Module):
    """(B, L) tokens -> (B, L, classes), each from its own token and those before it."""

    def __init__(self, width: int, classes: int = 4) -> None:
        super().__init__()
        self.embed, self.mix = nn.Embedding(classes, width), nn.Linear(width, width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        state = self.embed(x.long()).cumsum(1)
        return self.head(self.mix(state).relu())


class GraphNetwork(nn.Module):
    """(B, N, N) adjacency -> (B, classes), with its edges, nodes and pooled output as layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.edges, self.nodes, self.pooled = (
            nn.Softmax(2),
            nn.Linear(5, width),
            nn.Linear(width, 4),
        )
        self.weigh, self.head = nn.Linear(5, 5), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        nodes = self.nodes(self.edges(self.weigh(x)) @ x)
        return self.head(self.pooled(nodes.relu().mean(1)))


def seeded(make: type, *arguments: int) -> nn.Module:
    torch.manual_seed(sum(arguments))
    return make(*arguments).eval()


def resnet(width: int) -> nn.Module:
    torch.manual_seed(width)
    return resnet8(channels=1, classes=3, widths=(width, width, 2 * width)).eval()


def encoder(width: int) -> nn.Module:
    torch.manual_seed(width)
    return transformer(size=8, patch=4, width=width, depth=2, heads=2, classes=3).eval()


def data(x: Tensor = IMAGES, y: Tensor = LABELS, task=None, paired=None, classes: int = 3) -> Data:
    keys = {} if task is None else {"task": task}
    shown = {} if paired is None else {"paired": paired}
    train, rest = (
        Samples(x[:16], y[:16], **keys, **{k: v[:16] for k, v in shown.items()}),
        Samples(x[16:], y[16:], **keys, **{k: v[16:] for k, v in shown.items()}),
    )
    return Data("small", train, rest, rest, classes)


TOKEN_IDS = torch.randint(0, 4, (24, 6), generator=GENERATOR)
BOXES = torch.tensor([[[0.0, 0.3, 0.4, 0.4, 0.4]]]).repeat(24, 1, 1)
POINTS = torch.randint(0, 8, (24, 2, 2), generator=GENERATOR).float()
PIXELS = torch.randint(0, 3, (24, 8, 8), generator=GENERATOR)


def situation(name: str) -> tuple[nn.Module, nn.Module, Data]:
    """A student, a wider teacher, and samples of a task that the loss is for."""
    if name in ("transformer", "minilm"):
        return encoder(8), encoder(12), data()
    if name.startswith("detection"):
        return seeded(Dense, 6, 4), seeded(Dense, 6, 6), data(y=BOXES, task=Detection(), classes=1)
    if name.startswith("segmentation"):
        return seeded(Dense, 3, 4), seeded(Dense, 3, 6), data(y=PIXELS, task=Segmentation())
    if name == "keypoint":
        return seeded(Dense, 2, 4), seeded(Dense, 2, 6), data(y=POINTS, task=Keypoints(), classes=0)
    if name in ("ctc", "sequence"):
        task = CTC() if name == "ctc" else Tokens()
        y = torch.ones(24, 2, dtype=torch.int64) if name == "ctc" else TOKEN_IDS
        return seeded(Rows, 8), seeded(Rows, 12), data(TOKEN_IDS.float(), y, task, classes=4)
    if name == "cross-lingual":
        x, y = IMAGES.flatten(1), torch.randn(24, 5, generator=GENERATOR)
        made = data(x, y, Regression(), paired=x.flip(1), classes=0)
        return seeded(nn.Linear, 64, 5), seeded(nn.Linear, 64, 5), made
    if name == "graph":
        x = torch.rand(24, 5, 5, generator=GENERATOR)
        return seeded(GraphNetwork, 4), seeded(GraphNetwork, 6), data(x)
    return resnet(4), resnet(4 if name in ("gram", "fsp") else 8), data()


def table(name: str) -> dict:
    """The loss as a recipe gives it."""
    make = LOSSES.get(name).make
    if name == "graph":
        layers = ["nodes", "edges", "pooled"]
        return {"name": name, "student": layers, "teacher": layers, "edge_budget": 0.5}
    if name == "cross-modal" or issubclass(make, ResponseLoss | OutputLoss):
        return {"name": name}
    if issubclass(make, FeatureLoss) and make.outputs_will_do and name != "segmentation-pairs":
        return {"name": name}
    if name == "segmentation-pairs":
        return {"name": name, "student": "second"}
    return {"name": name, "layers": "auto"}


def teaching(*losses: dict, **keys) -> Teaching:
    given = {"epochs": 2, "batch_size": 8, "learning_rate": 0.01, "keep": "last", **keys}
    return Teaching(losses=losses, **given)


def teacher_of(network: nn.Module) -> ModuleTeacher:
    return ModuleTeacher("big", "k1", 1.0, network.requires_grad_(False), Outputs())


def state(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def faults(*losses: dict, on: tuple | None = None, **keys) -> str:
    student, teacher, samples = on or (resnet(4), resnet(8), data())
    found = check_teaching(
        teaching(*losses, **keys), student, data=samples, teachers=[teacher_of(teacher)]
    )
    return " | ".join(f"{fault} -> {fault.hint}" for fault in found)


@pytest.mark.parametrize("name", LOSSES.names())
def test_every_loss_teaches_and_leaves_nothing_behind(name, tmp_path):
    student, network, samples = situation(name)
    teacher, before, start = teacher_of(network), state(network), state(student)
    plan = teaching(table(name), label_weight=0.0, weight_decay=0.0)
    trained = teach(student, plan, data=samples, teachers=[teacher], work=tmp_path)
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
    whole = teach(copy.deepcopy(start), plan, work=tmp_path / "a", **places)

    def stop(done: int, total: int) -> None:
        if done == 5:  # of 6, in the third epoch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        teach(copy.deepcopy(start), plan, work=tmp_path / "b", on_step=stop, **places)
    steps: list[int] = []
    resumed = teach(
        copy.deepcopy(start),
        plan,
        work=tmp_path / "b",
        on_step=lambda done, total: steps.append(done),
        **places,
    )
    assert steps == [5, 6]
    assert same(state(whole), state(resumed))


def test_sequences_written_before_a_break_are_kept(tmp_path):
    student, network, samples = situation("sequence")
    plan = teaching({"name": "sequence"}, epochs=2)
    places = {"data": samples, "teachers": [teacher_of(network)]}
    whole = teach(copy.deepcopy(student), plan, work=tmp_path / "a", **places)

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        teach(copy.deepcopy(student), plan, work=tmp_path / "b", on_step=stop, **places)
    resumed = teach(copy.deepcopy(student), plan, work=tmp_path / "b", **places)
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
        ends.append(state(teach(resnet(4), plan, **keys)))
    assert same(*ends)


def test_auto_gives_a_loss_on_one_layer_a_regressor_for_each_pair_and_shares_its_weight(tmp_path):
    named = [{"name": "attention", "weight": 2.0, "student": f"stages.{n}.0"} for n in range(3)]
    auto = {"name": "attention", "weight": 6.0, "layers": "auto"}
    ends = []
    for number, losses in enumerate((named, [auto])):
        keys = {"data": data(), "teachers": [teacher_of(resnet(8))], "work": tmp_path / str(number)}
        ends.append(state(teach(resnet(4), teaching(*losses), **keys)))
    assert all(torch.allclose(ends[0][key], ends[1][key], atol=1e-6) for key in ends[0])


def test_equal_sample_weights_change_nothing_and_others_do(tmp_path):
    ends = {}
    for wish in ("equal", "inverse-frequency", "disagreement"):
        plan = teaching({"name": "kl"}, sample_weights=wish)
        keys = {"data": data(), "teachers": [teacher_of(resnet(8))], "work": tmp_path / wish}
        ends[wish] = state(teach(resnet(4), plan, **keys))
    plain = teaching({"name": "kl"})
    keys = {"data": data(), "teachers": [teacher_of(resnet(8))], "work": tmp_path / "plain"}
    assert same(ends["equal"], state(teach(resnet(4), plain, **keys)))
    assert not same(ends["equal"], ends["inverse-frequency"])
    assert not same(ends["equal"], ends["disagreement"])


def test_a_calibrated_teachers_logits_are_divided_by_its_temperature(tmp_path, monkeypatch):
    network = resnet(8)
    sharp = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in sharp.classifier.parameters():
            parameter.mul_(4.0)
    fitted = {"plain": 1.0, "sharp": 4.0}
    monkeypatch.setattr(
        "edgekd.teaching.lesson.teacher_temperature", lambda t, data: fitted[t.name]
    )
    ends = []
    for name, module in (("plain", network), ("sharp", sharp)):
        plan = teaching({"name": "mse-logits"}, calibrate_teachers=True)
        teacher = ModuleTeacher(name, name, 1.0, module.requires_grad_(False), Outputs())
        keys = {"data": data(), "teachers": [teacher], "work": tmp_path / name}
        ends.append(state(teach(resnet(4), plan, **keys)))
    assert all(torch.allclose(ends[0][key], ends[1][key], atol=1e-5) for key in ends[0])


KL = {"name": "kl"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({**KL, "temperature": {**LINEAR, "end": 0.0}}, "temperature must be above 0"),
        ({**KL, "temperature": {"schedule": "liner"}}, "unknown schedule 'liner'.*linear"),
        ({**KL, "weight": {**LINEAR, "end": -1.0}}, "a weight from -1 to 8"),
        ({**KL, "weight": {"start": 1.0}}, "a table without 'schedule'"),
        ({"name": "nst", "layers": "auto", "layout": LINEAR}, "no number 'layout' to schedule"),
        (
            {"name": "crd", "temperature": {"schedule": "spread"}},
            "one value a sample is for the temperature of a loss on logits",
        ),
        ({**KL, "layers": "auto"}, "compares logits and reads no layer"),
        ({"name": "hint", "layers": "auto", "student": "stem"}, "give either layers"),
        ({"name": "hint", "layers": "all"}, "'auto'"),
        ({"name": "hint", "student": "stem", "map": "back"}, "go with layers"),
        ({"name": "fsp", "layers": "auto"}, "as many channels on both sides"),
        ({"name": "minilm", "layers": "auto"}, "no attention weights within"),
        ({"name": "hint", "student": "stages.9"}, "no layer 'stages.9'"),
        ({**KL, "weight": {"schedule": "balanced", "layer": "nowhere"}}, "no layer 'nowhere'"),
        ({"name": "ctc"}, "needs logits \\(frames, classes\\)"),
        ({"name": "keypoint"}, "needs heatmaps"),
        ({"name": "detection-rank"}, "is for detection, the data's task is classification"),
        ({"name": "detection-features", "layers": "auto"}, "is for detection, the data's task"),
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
    assert found.count("the task keypoints has no logits with a label each") == 2


def test_depths_losses_are_all_listed_with_what_auto_takes():
    named = [n for n in LOSSES.names() if issubclass(LOSSES.get(n).make, DepthsLoss)]
    parts = {part for name in named for part in LOSSES.get(name).make.automatic}
    assert parts == {"block", "embedding", "attention", "value"}
