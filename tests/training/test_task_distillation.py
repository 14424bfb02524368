"""Distillation of every kind of task: what losses see, and what is refused before training."""

from types import SimpleNamespace

import pytest
import torch
from contexts import context
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.data.samples import Data, Samples
from edgekd.data.tasks import NO_LABEL, Task
from edgekd.data.tasks.ctc import CTC
from edgekd.data.tasks.own import own
from edgekd.data.tasks.regression import Regression
from edgekd.data.tasks.segmentation import Segmentation
from edgekd.data.tasks.tokens import Tokens
from edgekd.network.evaluation import evaluate
from edgekd.registry import LOSSES
from edgekd.training.distillation import check_teaching, teach
from edgekd.training.distillation_loss import Compared
from edgekd.training.teaching import Teaching

KL = {"name": "kl", "weight": 1.0, "temperature": 2.0}


class Net(nn.Module):
    """Images (B, 1, 4, 4) to a map of three classes."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(1, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def teacher(module: nn.Module) -> SimpleNamespace:
    def logits(x: Tensor) -> Tensor:
        with torch.no_grad():
            return module(x)

    return SimpleNamespace(name="big", key="k", weight=1.0, module=module.eval(), logits=logits)


def data(task: Task, y: Tensor, x: Tensor | None = None, classes: int = 3, **more) -> Data:
    samples = Samples(torch.rand(len(y), 1, 4, 4) if x is None else x, y, task=task, **more)
    return Data("own", samples, samples, samples, classes)


def faults(task: Task, y: Tensor, student: nn.Module, losses: list, **more) -> list[str]:
    given = data(task, y, more.pop("x", None), more.pop("classes", 3))
    teaching = Teaching(losses=losses, **more)
    found = check_teaching(
        student.eval(), context(teaching, data=given, teachers=[teacher(student)])
    )
    return [f"{each} -> {each.hint}" for each in found]


def test_losses_on_logits_see_a_row_a_labelled_pixel():
    mine, theirs = torch.randn(2, 3, 2, 2), torch.randn(2, 3, 2, 2)
    y = torch.tensor([[[0, 1], [NO_LABEL, 2]], [[NO_LABEL, NO_LABEL], [1, 1]]])
    seen = Compared.of(Segmentation(), mine, [theirs], y)
    places = [(0, 0, 0), (0, 0, 1), (0, 1, 1), (1, 1, 0), (1, 1, 1)]
    assert seen.labels.tolist() == [0, 1, 2, 1, 1]
    assert torch.equal(seen.logits, torch.stack([mine[b, :, i, j] for b, i, j in places]))
    assert torch.equal(seen.answers[0], torch.stack([theirs[b, :, i, j] for b, i, j in places]))


def test_rows_without_any_alignment_are_all_kept_and_have_no_label():
    outputs, y = torch.randn(2, 5, 4), torch.tensor([[1, 2], [3, NO_LABEL]])
    seen = Compared.of(CTC(), outputs, [outputs], y)
    assert seen.logits.shape == (10, 4)
    assert seen.labels.tolist() == [NO_LABEL] * 10
    whole = Compared.of(Regression(), outputs, [outputs], outputs)
    assert whole.logits is outputs


def test_a_student_learns_a_teachers_pixels_without_labels(tmp_path):
    torch.manual_seed(1)
    big, student = Net(0), Net(9)
    big.conv.weight.data *= 10
    x = torch.rand(64, 1, 4, 4)
    given = data(Segmentation(), big(x).argmax(1), x)
    before = evaluate(student, given.test)
    teaching = Teaching(losses=[KL], label_weight=0.0, epochs=30, batch_size=16, learning_rate=0.1)
    state = {name: value.clone() for name, value in big.state_dict().items()}
    teach(student, context(teaching, data=given, teachers=[teacher(big)], work=tmp_path))
    assert evaluate(student, given.test) > max(0.8, before)
    assert all(torch.equal(value, state[name]) for name, value in big.state_dict().items())


def test_a_student_of_another_view_learns_from_what_its_teacher_sees(tmp_path):
    torch.manual_seed(0)
    big, student = nn.Linear(3, 2), nn.Linear(5, 2)
    seen = torch.randn(200, 3)
    heard = torch.cat([seen, torch.randn(200, 2)], 1).flip(1)
    labels = big(seen).argmax(1)
    samples = Samples(heard, labels, paired=seen)
    given = Data("views", samples, samples, samples, 2)
    teaching = Teaching(losses=[KL], label_weight=0.0, epochs=40, batch_size=50, learning_rate=0.05)
    assert check_teaching(student, context(teaching, data=given, teachers=[teacher(big)])) == []
    teach(student, context(teaching, data=given, teachers=[teacher(big)], work=tmp_path))
    assert evaluate(student, given.test) > 0.95


@pytest.mark.parametrize(
    ("task", "y", "losses", "more", "fault"),
    [
        (
            Regression(), torch.rand(4, 3, 4, 4), [KL], {},
            "'kl' compares logits of classes; regression has none -> use a loss for this task",
        ),
        (
            Regression(), torch.rand(4, 3, 4, 4), [], {"label_smoothing": 0.1},
            "the targets of regression can't be smoothed",
        ),
        (
            Segmentation(), torch.full((4, 4, 4), 3), [KL], {},
            "label 3 of sample 0 is out of range (allowed: 0 to 2, or -1 for none)",
        ),
        (
            Segmentation(), torch.zeros(4, 5, 5).long(), [KL], {},
            "outputs of shape (1, 3, 4, 4) (allowed: (1, 3, 5, 5)",
        ),
    ],
)  # fmt: skip
def test_what_has_no_meaning_for_a_task_is_refused(task, y, losses, more, fault):
    found = faults(task, y, Net(0), losses, **more)
    assert any(fault in each for each in found), found


@pytest.mark.parametrize(
    ("task", "y", "names"),
    [
        (Segmentation(), torch.zeros(4, 4, 4).long(), ["kl"]),
        (Regression(), torch.rand(4, 3, 4, 4), ["regression"]),
        (own(torch.dist), torch.zeros(4).long(), ["kl"]),
        (own(torch.dist), torch.rand(4), ["regression"]),
    ],
)
def test_a_stage_without_losses_has_those_of_its_task(task, y, names):
    found = context(Teaching(), data=data(task, y)).losses
    assert [table["name"] for table in found] == names
    assert context(Teaching(losses=()), data=data(task, y)).losses == ()


def test_a_network_of_real_numbers_learns_from_its_teacher_by_default(tmp_path):
    torch.manual_seed(1)
    big, student = Net(0), Net(9)
    x = torch.rand(64, 1, 4, 4)
    given = data(Regression(), big(x).detach(), x)
    teaching = Teaching(label_weight=0.0, epochs=30, batch_size=16, learning_rate=0.1)
    learning = context(teaching, data=given, teachers=[teacher(big)], work=tmp_path)
    assert check_teaching(student, learning) == []
    before = F.mse_loss(student(x), big(x)).item()
    teach(student, learning)
    assert F.mse_loss(student(x), big(x)).item() < before / 10


def test_a_loss_that_reads_labels_is_refused_where_rows_have_none():
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x.squeeze(1))

    found = faults(CTC(), torch.ones(4, 2).long(), Reader(), [{"name": "dkd"}])
    assert any(
        "'dkd' needs a label for every row of logits; ctc has none" in each for each in found
    )
    assert faults(CTC(), torch.ones(4, 2).long(), Reader(), [KL]) == []


def test_unlabelled_tokens_are_left_out_of_the_distillation():
    torch.manual_seed(0)
    y = torch.tensor([[0, NO_LABEL], [NO_LABEL, 1]])
    mine, theirs = torch.randn(2, 2, 3), torch.randn(2, 2, 3)
    seen = Compared.of(Tokens(), mine, [theirs], y)
    by_hand = F.kl_div(
        F.log_softmax(torch.stack([mine[0, 0], mine[1, 1]]), 1),
        F.log_softmax(torch.stack([theirs[0, 0], theirs[1, 1]]), 1),
        reduction="batchmean",
        log_target=True,
    )
    loss = LOSSES.get("kl").make(temperature=1.0)
    found = loss(seen.logits, seen.answers[0], seen.labels)
    assert float(found) == pytest.approx(float(by_hand))


@pytest.mark.parametrize("name", ["kl", "dkd", "dist", "logit-standardized"])
@pytest.mark.parametrize("weights", ["equal", "inverse-frequency", "disagreement"])
def test_a_batch_without_any_label_teaches_nothing_and_breaks_nothing(name, weights, tmp_path):
    y = torch.full((6, 4, 4), NO_LABEL)
    y[:2] = torch.randint(0, 3, (2, 4, 4), generator=torch.Generator().manual_seed(0))
    teaching = Teaching(
        losses=[{"name": name}], sample_weights=weights, epochs=1, batch_size=2, keep="last"
    )
    teachers = [teacher(Net(0)), teacher(Net(1))]
    student = Net(9)
    teach(
        student, context(teaching, data=data(Segmentation(), y), teachers=teachers, work=tmp_path)
    )
    assert all(bool(value.isfinite().all()) for value in student.parameters())
