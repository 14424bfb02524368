"""Teaching: what the student learns, what is refused beforehand, and what is left untouched."""

import copy
import re
import threading
from dataclasses import dataclass, field

import pytest
import torch
from contexts import context
from states import same, state
from torch import Tensor, nn

from edgekd.data.samples import Augmentation, Data, Samples
from edgekd.errors import Faults, InputError
from edgekd.models.resnet import resnet8
from edgekd.network.evaluation import evaluate
from edgekd.training.distillation import check_teaching, teach
from edgekd.training.fusion import merge
from edgekd.training.losses.hint import Hint
from edgekd.training.losses.kl import KL
from edgekd.training.teaching import Teaching

torch.set_num_threads(1)


@dataclass
class Network:
    """A teacher that counts how many samples it was asked about."""

    module: nn.Module | None
    name: str = "big"
    key: str = "k1"
    weight: float = 1.0
    asked: list[int] = field(default_factory=list)

    def logits(self, x: Tensor) -> Tensor:
        self.asked.append(len(x))
        with torch.inference_mode():
            return self.module(x)


@dataclass
class BlackBox:
    """A teacher that only answers, with logits that favour the label hidden in the input."""

    name: str = "box"
    key: str = "k2"
    weight: float = 1.0
    module: None = None
    classes: int = 3

    def logits(self, x: Tensor) -> Tensor:
        return 8 * torch.eye(self.classes)[x.flatten(1)[:, : self.classes].argmax(1)]


def samples(count: int, seed: int) -> Samples:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 1, 8, 8, generator=generator)
    return Samples(x, x.flatten(1)[:, :3].argmax(1))


def data(augmentation: Augmentation | None = None, train: Samples | None = None) -> Data:
    parts = (train or samples(96, 0), samples(40, 1), samples(200, 2))
    return Data("hidden", *parts, 3, augmentation or Augmentation())


def network(seed: int = 0, classes: int = 3, width: int = 4) -> nn.Module:
    torch.manual_seed(seed)
    return resnet8(channels=1, classes=classes, widths=(width, width, 2 * width)).eval()


def teaching(*losses: dict, **keys) -> Teaching:
    table = {"epochs": 2, "batch_size": 32, "learning_rate": 0.01, **keys}
    return Teaching(**table, **({"losses": losses} if losses else {}))


HINT = {"name": "hint", "student": "stages.1", "weight": 0.5}
ATTENTION = {"name": "attention", "student": "stages.0", "teacher": "stages.0", "weight": 0.5}
KL_TABLE = {"name": "kl", "weight": 0.9, "temperature": 2.0}


def faults(student: nn.Module, plan: Teaching, on: Data | None = None, teachers=None) -> list[str]:
    teachers = [Network(network(1, width=8))] if teachers is None else teachers
    return [
        str(fault) + f" -> {fault.hint}"
        for fault in check_teaching(student, context(plan, data=on or data(), teachers=teachers))
    ]


def test_a_student_learns_from_a_black_box_alone(tmp_path):
    wrong = Samples(samples(96, 0).x, torch.zeros(96, dtype=torch.int64))
    plan = teaching(KL_TABLE, label_weight=0.0, epochs=30, keep="last")
    module = teach(
        network(), context(plan, data=data(train=wrong), teachers=[BlackBox()], work=tmp_path)
    )
    assert evaluate(module, samples(96, 0)) > 0.9
    assert not any(part.training for part in module.modules())


def test_teachers_stay_as_they_are_and_no_hook_stays(tmp_path):
    teacher = Network(network(1, width=8))
    before, student = state(teacher.module), network()
    gradients = [value.requires_grad for value in teacher.module.parameters()]
    plan = teaching(KL_TABLE, HINT, ATTENTION)
    trained = teach(student, context(plan, data=data(), teachers=[teacher], work=tmp_path))
    assert trained is student
    assert same(before, state(teacher.module))
    assert gradients == [value.requires_grad for value in teacher.module.parameters()]
    for module in (trained, teacher.module):
        assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
        assert not any(part.training for part in module.modules())
    assert set(state(trained)) == set(state(network()))


def test_a_teacher_in_train_mode_is_used_in_eval_mode_and_given_back_in_train_mode(tmp_path):
    teacher = Network(network(1, width=8))
    teacher.module.train()
    before = state(teacher.module)
    teach(network(), context(teaching(HINT), data=data(), teachers=[teacher], work=tmp_path))
    assert same(before, state(teacher.module))
    assert all(part.training for part in teacher.module.modules())


class Dropping(nn.Module):
    """Leaves its block out of every second batch of training, as layer drop does at random."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, padding=1)
        self.head, self.batches = nn.Linear(4, 3), 0

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        self.batches += self.training
        if not self.training or self.batches % 2:
            x = x + self.block(x)
        return self.head(x.mean((2, 3)))


def test_a_layer_that_training_leaves_out_of_a_batch_is_not_compared_there(tmp_path):
    torch.manual_seed(0)
    student, teacher = Dropping().eval(), Network(network(1, width=8))
    plan = teaching({**HINT, "student": "block", "teacher": "stages.1"}, KL_TABLE)
    before = state(student)
    teach(student, context(plan, data=data(), teachers=[teacher], work=tmp_path))
    assert student.batches == 6
    assert not torch.equal(before["block.weight"], student.block.weight)


def test_the_same_seed_gives_the_same_bits_regressors_included(tmp_path):
    plan, ends = teaching(KL_TABLE, HINT), []
    for run in ("a", "b"):
        torch.manual_seed(len(run) + ord(run))
        teachers = [Network(network(1, width=8))]
        torch.manual_seed(ord(run))
        student = copy.deepcopy(network())
        torch.manual_seed(ord(run))
        teach(student, context(plan, data=data(), teachers=teachers, work=tmp_path / run, seed=3))
        ends.append(state(student))
    assert same(*ends)


def test_a_teaching_broken_off_continues_with_its_regressor_to_the_same_bits(tmp_path):
    plan = teaching(KL_TABLE, HINT, epochs=4)
    teachers = [Network(network(1, width=8))]
    whole = teach(network(), context(plan, data=data(), teachers=teachers, work=tmp_path / "a"))

    def stop(done: int, total: int) -> None:
        if done == 8:  # of 12, in the third epoch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        teach(
            network(),
            context(plan, data=data(), teachers=teachers, work=tmp_path / "b", on_step=stop),
        )
    assert not any(part._forward_hooks for part in teachers[0].module.modules())
    steps: list[int] = []
    broken = teach(
        network(),
        context(
            plan,
            data=data(),
            teachers=teachers,
            work=tmp_path / "b",
            on_step=lambda done, total: steps.append(done),
        ),
    )
    assert steps[0] == 7
    assert same(state(whole), state(broken))


def test_logits_are_computed_once_for_all_runs_that_share_a_cache(tmp_path):
    teacher, plan = Network(network(1)), teaching(KL_TABLE)
    for run in ("a", "b"):
        places = {"work": tmp_path / run, "cache": tmp_path / "cache"}
        teach(network(), context(plan, data=data(), teachers=[teacher], **places))
    assert [count for count in teacher.asked if count > 1] == [96]
    other = Network(network(1), key="another")
    teach(
        network(),
        context(plan, data=data(), teachers=[other], work=tmp_path, cache=tmp_path / "cache"),
    )
    assert [count for count in other.asked if count > 1] == [96]
    assert len(list((tmp_path / "cache").glob("logits-*.npy"))) == 2


def test_fixed_views_are_cached_and_free_draws_are_not(tmp_path):
    for views, expected in ((2, [96, 96]), (0, [32] * 12)):
        teacher, plan = Network(network(1)), teaching(KL_TABLE, epochs=4)
        where = tmp_path / str(views)
        on = data(Augmentation(flip=True, shift=1, views=views))
        teach(network(), context(plan, data=on, teachers=[teacher], work=where))
        assert [count for count in teacher.asked if count > 1] == expected
        assert len(list(where.glob("logits/*"))) == views


def test_cached_and_live_logits_teach_the_same(tmp_path):
    """A tapped teacher runs live; with the hint's weight at almost nothing the rest is equal."""
    teacher = Network(network(1))
    tiny = {**HINT, "weight": 1e-30, "student": "stages.0"}
    cached = teach(
        network(), context(teaching(KL_TABLE), data=data(), teachers=[teacher], work=tmp_path / "a")
    )
    live = teach(
        network(),
        context(teaching(KL_TABLE, tiny), data=data(), teachers=[teacher], work=tmp_path / "b"),
    )
    for key, value in state(cached).items():
        assert torch.allclose(value, state(live)[key], atol=1e-5), key


def test_two_teachings_side_by_side_do_not_disturb_each_other(tmp_path):
    teacher, plan = Network(network(1)), teaching(KL_TABLE, HINT, ATTENTION)
    alone = [
        state(
            teach(
                network(s), context(plan, data=data(), teachers=[teacher], work=tmp_path / f"a{s}")
            )
        )
        for s in (0, 1)
    ]
    together: dict[int, nn.Module] = {s: network(s) for s in (0, 1)}

    def run(seed: int) -> None:
        where = tmp_path / f"b{seed}"
        teach(together[seed], context(plan, data=data(), teachers=[teacher], work=where))

    threads = [threading.Thread(target=run, args=(s,)) for s in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in (0, 1):
        found = state(together[seed])
        assert all(torch.equal(alone[seed][k], found[k]) for k in found)


def test_several_teachers_are_averaged_as_softened_probabilities():
    first, second = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    # At T = 2: softmax(1, 0) = (0.731059, 0.268941), softmax(0, 2) = (0.119203, 0.880797);
    # weights 3 and 1 give (0.578095, 0.421905).
    merged = merge([first, second], [3.0, 1.0], KL(temperature=2.0))
    probabilities = torch.softmax(merged / 2, dim=1)
    assert torch.allclose(probabilities, torch.tensor([[0.578095, 0.421905]]), atol=1e-6)
    assert torch.equal(merge([first], [0.3], KL()), first)


def test_a_loss_without_temperature_gets_the_mean_of_the_logits():
    first, second = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    merged = merge([first, second], [3.0, 1.0], Hint())
    assert torch.allclose(merged, torch.tensor([[1.5, 1.0]]))


def test_two_teachers_one_of_them_a_black_box_teach_together(tmp_path):
    teachers = [BlackBox(), Network(network(1, width=8))]
    plan = teaching(KL_TABLE, {**HINT, "network": "big"}, epochs=20)
    module = teach(network(), context(plan, data=data(), teachers=teachers, work=tmp_path))
    assert evaluate(module, data().train) > 0.5


def test_labels_alone_need_no_teacher(tmp_path):
    plan = teaching(label_weight=1.0, epochs=30).model_copy(update={"losses": ()})
    module = teach(network(), context(plan, data=data(), teachers=[], work=tmp_path))
    assert evaluate(module, data().train) > 0.9


def test_a_sound_teaching_has_no_fault():
    assert faults(network(), teaching(KL_TABLE, HINT, ATTENTION)) == []
    assert faults(network(), Teaching()) == []


def test_checking_changes_nothing():
    student, teacher = network().train(), Network(network(1, width=8))
    before = state(student)
    assert faults(student, teaching(KL_TABLE, HINT), teachers=[teacher]) == []
    assert same(before, state(student))
    assert all(part.training for part in student.modules())
    assert not any(part._forward_hooks for part in student.modules())


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"name": "klm"}, "unknown loss 'klm'.*did you mean 'kl'"),
        ({"name": "kl", "temperature": 0}, "temperature must be above 0, found 0"),
        ({"name": "kl", "temperature": -2.0}, "temperature must be above 0, found -2"),
        (
            {"name": "kl", "temperature": float("nan")},
            "temperature: needs a finite number, found nan",
        ),
        ({"name": "kl", "temprature": 2.0}, "unknown key 'temprature'.*'temperature'"),
        ({"name": "kl", "weight": -1}, "weight: .*greater than or equal to 0"),
        ({"name": "kl", "student": "stem"}, "'kl' compares logits and reads no layer"),
        ({"name": "hint"}, "'hint' needs 'student' and 'teacher' layers"),
        ({"name": "hint", "student": ["stem", "pool"]}, "one layer on each side, found 2 and 2"),
        (
            {**HINT, "student": "stages.7", "teacher": "stages.1"},
            "student: no layer 'stages.7'.*did you mean",
        ),
        ({**HINT, "teacher": "stages.l"}, "teacher: no layer 'stages.l'.*did you mean 'stages."),
        ({**HINT, "teacher": "classifier"}, r"\(4, 4, 4\) and teacher features \(3,\) can't be"),
        ({**HINT, "network": "bug"}, "no teacher 'bug' .allowed: big.*did you mean 'big'"),
        ({**HINT, "regressor": "never"}, "regressor: .*'auto' or 'always'"),
        ({"weight": 1.0}, "name: required, but missing"),
    ],
)
def test_each_wrong_loss_is_refused_by_name(table, expected):
    found = faults(network(), teaching(table))
    assert len(found) == 1, found
    assert re.search(expected, found[0], re.DOTALL), found
    assert "losses.1" in found[0]


def test_all_faults_are_found_at_once(tmp_path):
    plan = teaching({"name": "klm"}, {"name": "kl", "temperature": 0}, {**HINT, "student": "no"})
    with pytest.raises(Faults) as caught:
        teach(network(), context(plan, data=data(), teachers=[Network(network(1))], work=tmp_path))
    assert len(caught.value.faults) == 4  # the wrong layer is wrong on both sides
    assert list(tmp_path.iterdir()) == []


def test_features_of_a_black_box_are_refused():
    found = faults(network(), teaching(HINT), teachers=[BlackBox()])
    assert len(found) == 1
    assert "'hint' reads layers, but the teacher box is a black box" in found[0]


def test_no_teacher_and_no_weight_are_refused():
    assert "there is no teacher" in faults(network(), teaching(KL_TABLE), teachers=[])[0]
    zero = teaching({**KL_TABLE, "weight": 0.0}, label_weight=0.0)
    assert "every weight is zero" in faults(network(), zero)[0]


def test_teacher_and_student_of_different_classes_are_refused():
    found = faults(network(), teaching(KL_TABLE), teachers=[Network(network(1, classes=5))])
    assert len(found) == 1
    assert "gives logits of shape (1, 5), but the student gives (1, 3)" in found[0]


def test_a_student_with_too_few_outputs_or_wrong_inputs_is_refused():
    found = faults(network(classes=2), teaching(KL_TABLE))
    assert "student: the network gives outputs of shape (1, 2)" in found[0]
    colour = resnet8(channels=3, classes=3).eval()
    assert "can't run on the data's samples of shape (1, 8, 8)" in faults(colour, Teaching())[0]


def test_labels_out_of_range_and_nan_in_data_and_weights_are_refused():
    x, y = samples(96, 0).x.clone(), samples(96, 0).y.clone()
    x[3, 0, 0, 0], x[5, 0, 1, 1], y[7] = float("nan"), float("inf"), 3
    student, teacher = network(), Network(network(1))
    student.stem[0].weight.data[0, 0, 0, 0] = float("nan")
    teacher.module.classifier.bias.data[0] = float("inf")
    found = faults(student, Teaching(), data(train=Samples(x, y)), [teacher])
    assert len(found) == 4
    assert "train: 2 samples contain NaN or infinity" in found[0]
    assert "label 3 of sample 7 is out of range (allowed: 0 to 2, or -1 for none)" in found[1]
    assert "student: NaN or infinity in the weights 'stem.0.weight'" in found[2]
    assert "teacher big: NaN or infinity in the weights 'classifier.bias'" in found[3]


def test_mirroring_what_is_no_image_is_refused():
    flat = Samples(torch.zeros(8, 5), torch.zeros(8, dtype=torch.int64))
    only = Data("flat", flat, flat, flat, 3, Augmentation(flip=True))
    student = nn.Linear(5, 3).eval()
    found = faults(student, teaching(KL_TABLE), only, [Network(nn.Linear(5, 3))])
    assert "flip and shift need images, but the samples have shape (5,)" in found[0]


def test_a_layer_that_is_not_reached_is_refused():
    student = network()
    student.spare = nn.Linear(2, 2)
    found = faults(student, teaching({**HINT, "student": "spare", "teacher": "stages.1"}))
    assert "the layer 'spare' does not output a single tensor" in found[0]


def test_a_teacher_whose_logits_are_no_numbers_is_named(tmp_path):
    class Broken(BlackBox):
        def logits(self, x: Tensor) -> Tensor:
            return super().logits(x) * (float("nan") if len(x) > 1 else 1.0)

    with pytest.raises(InputError, match="teacher box: gives logits that are not numbers"):
        teach(
            network(), context(teaching(KL_TABLE), data=data(), teachers=[Broken()], work=tmp_path)
        )
