"""Tasks: losses, scores and decoded outputs against numbers worked out by hand, and every fault."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from edgekd.data.tasks import NO_LABEL, Task, task_of
from edgekd.data.tasks._boxes import overlaps
from edgekd.data.tasks.boxes import boxes
from edgekd.data.tasks.classification import CLASSIFICATION
from edgekd.data.tasks.ctc import CTC, edits
from edgekd.data.tasks.detection import Detection
from edgekd.data.tasks.embedding import Embedding
from edgekd.data.tasks.keypoints import Keypoints
from edgekd.data.tasks.multilabel import Multilabel
from edgekd.data.tasks.own import own
from edgekd.data.tasks.policy import Policy
from edgekd.data.tasks.regression import Regression
from edgekd.data.tasks.segmentation import Segmentation
from edgekd.data.tasks.seq2seq import Seq2Seq
from edgekd.data.tasks.tokens import Tokens
from edgekd.errors import InputError
from edgekd.registry import TASKS


def sure(y: Tensor, classes: int) -> Tensor:
    """Logits (..., classes) whose largest is at the label by far; anything where there is none."""
    return 20.0 * F.one_hot(y.clamp(min=0), classes).float()


def boxes_at(cells: dict[tuple[int, int], tuple[int, tuple[float, ...]]]) -> Tensor:
    """Detector outputs (1, 7, 2, 2): in these cells a box (shares) of a class, elsewhere none."""
    outputs = torch.full((1, 7, 2, 2), -20.0)
    for (row, column), (name, box) in cells.items():
        outputs[0, 0, row, column] = 20.0
        outputs[0, 1:5, row, column] = torch.logit(torch.tensor(box))
        outputs[0, 5 + name, row, column] = 20.0
    return outputs


def nothing(count: int) -> tuple[Tensor, Tensor]:
    """The test samples of a task that reads none to act."""
    raise AssertionError(count)


def close(outputs: Tensor, y: Tensor) -> Tensor:
    return (outputs - y).abs().amax(1).double() < 0.1


PERFECT: list[tuple[Task, Tensor, Tensor]] = [
    (CLASSIFICATION, sure(torch.tensor([2, 0]), 3), torch.tensor([2, 0])),
    (Policy(), sure(torch.tensor([1, 0]), 2), torch.tensor([1, 0])),
    (
        Segmentation(),
        sure(torch.tensor([[[0, 1], [2, 2]]]), 3).movedim(3, 1),
        torch.tensor([[[0, 1], [2, 2]]]),
    ),
    (Tokens(), sure(torch.tensor([[1, 0, -1]]), 2), torch.tensor([[1, 0, -1]])),
    (Seq2Seq(end=1), sure(torch.tensor([[2, 0, 1]]), 3), torch.tensor([[2, -1, 1]])),
    (CTC(), sure(torch.tensor([[1, 1, 0, 1, 2]]), 3), torch.tensor([[1, 1, 2, -1]])),
    (Regression(), torch.tensor([[1.0, -2.0]]), torch.tensor([[1.0, -2.0]])),
    (Multilabel(), torch.tensor([[2.0, -2.0], [-2.0, 2.0]]), torch.tensor([[1, 0], [0, 1]])),
    (Embedding(), torch.eye(4)[[0, 0, 1, 2]], torch.tensor([[1, 1.0], [1, 1], [2, 0], [2, 0]])),
    (own(close, loss=F.mse_loss), torch.eye(3), torch.eye(3)),
    (
        Keypoints(),
        0.15 * sure(torch.tensor([[5, 0]]), 12).view(1, 2, 3, 4),
        torch.tensor([[[1.0, 1.0], [0.0, 0.0]]]),
    ),
    (
        Detection(),
        boxes_at({(0, 1): (1, (0.5, 0.5, 0.3, 0.4))}),
        torch.tensor([[[1, 0.75, 0.25, 0.3, 0.4], [-1, 0, 0, 0, 0]]]),
    ),
    (
        boxes(decode=torch.clone, loss=lambda outputs, y: (outputs[..., :5] - y).square().mean()),
        torch.tensor([[[1, 0.75, 0.25, 0.3, 0.4, 0.9]]]),
        torch.tensor([[[1, 0.75, 0.25, 0.3, 0.4]]]),
    ),
]
IDS = [task.name for task, _, _ in PERFECT]


@pytest.mark.parametrize(("task", "outputs", "y"), PERFECT, ids=IDS)
def test_right_outputs_score_one_and_agree_with_themselves(task, outputs, y):
    assert task.score(outputs, y).tolist() == [1.0] * len(y)
    assert task.agreement(outputs, outputs).tolist() == [1.0] * len(y)
    classes = {
        "keypoints": 0,
        "regression": 0,
        "detection": 2,
        "boxes": 2,
        "own": 0,
        "embedding": 0,
    }.get(task.name, task.classes_in(y))
    assert task.target_faults(y, classes, "here") == []
    assert task.output_fault(outputs, y, classes, "here") is None


@pytest.mark.parametrize(("task", "outputs", "y"), PERFECT, ids=IDS)
def test_the_loss_falls_along_its_gradient_and_is_least_where_outputs_are_right(task, outputs, y):
    torch.manual_seed(0)
    wrong = (torch.randn_like(outputs) * 2).requires_grad_()
    loss = task.label_loss(wrong, y)
    loss.backward()
    assert wrong.grad is not None
    step = wrong.detach() - 1e-3 * wrong.grad
    assert float(task.label_loss(step, y)) < loss.item()
    assert float(task.label_loss(outputs, y)) < loss.item()


@pytest.mark.parametrize(("task", "outputs", "y"), PERFECT, ids=IDS)
def test_rows_are_sample_by_sample_and_labelled_where_the_task_says(task, outputs, y):
    rows, labels = task.rows(outputs), task.row_labels(y)
    assert (rows is not None) == task.has_rows
    assert (labels is not None) == task.labels_rows
    if rows is not None:
        doubled = task.rows(torch.cat([outputs, 3 * outputs]))
        assert torch.equal(doubled, torch.cat([rows, 3 * rows]))
    if labels is not None:
        known = labels != NO_LABEL
        assert torch.equal(rows.argmax(1)[known], labels[known])


def test_every_task_of_a_recipe_is_tested_here():
    assert sorted(set(IDS)) == TASKS.names()
    assert all(TASKS.get(name).summary for name in TASKS.names())


def test_iou_counts_classes_of_truth_and_prediction_and_skips_unlabelled_pixels():
    y = torch.tensor([[[0, 0], [1, NO_LABEL]]])
    outputs = sure(torch.tensor([[[0, 1], [1, 2]]]), 4).movedim(3, 1)
    # class 0: 1 of 2 pixels, class 1: 1 shared of 2, class 2 only where nothing is labelled.
    assert Segmentation().score(outputs, y).tolist() == [pytest.approx((1 / 2 + 1 / 2) / 2)]
    extra = Segmentation().extra_metrics(outputs, y)
    assert extra["pixel_accuracy"].tolist() == [pytest.approx(2 / 3)]
    nothing = torch.full_like(y, NO_LABEL)
    assert Segmentation().score(outputs, nothing).tolist() == [1.0]
    assert float(Segmentation().label_loss(outputs, nothing)) == 0.0


def test_unlabelled_tokens_neither_count_nor_teach():
    logits = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]])
    y = torch.tensor([[0, NO_LABEL]])
    expected = math.log(1 + math.exp(-2.0))
    assert float(Tokens().label_loss(logits, y)) == pytest.approx(expected)
    extra = Tokens().extra_metrics(logits, y)
    assert extra["cross_entropy_nats"].tolist() == [pytest.approx(expected)]
    assert Tokens().score(logits, torch.tensor([[1, 1]])).tolist() == [0.5]
    assert Tokens().score(logits, torch.full((1, 2), NO_LABEL)).tolist() == [1.0]


def test_ctc_adds_up_every_path_that_reads_as_the_labels():
    logits = torch.tensor([[[0.0, 1.0], [0.5, 0.0]]])
    p = logits.softmax(2)[0]
    # Paths of two frames that read "1": 1 1, 1 blank, blank 1.
    total = p[0, 1] * p[1, 1] + p[0, 1] * p[1, 0] + p[0, 0] * p[1, 1]
    found = CTC().label_loss(logits, torch.tensor([[1]]))
    assert float(found) == pytest.approx(-math.log(float(total)), rel=1e-5)


def test_the_best_path_drops_repeats_and_blanks():
    path = torch.tensor([[0, 1, 1, 0, 1, 2, 2]])
    decoded = CTC().decode(sure(path, 3))
    assert decoded.tolist() == [[1, 1, 2, -1, -1, -1, -1]]
    scores = CTC().score(sure(path, 3), torch.tensor([[1, 2, 2, 2]]))
    # 1 1 2 against 1 2 2 2: one substitution, one insertion.
    assert scores.tolist() == [pytest.approx(1 - 2 / 4)]
    empty = torch.full((1, 4), NO_LABEL)
    assert CTC().score(sure(path, 3), empty).tolist() == [0.0]
    assert CTC().score(sure(torch.zeros_like(path), 3), empty).tolist() == [1.0]


@pytest.mark.parametrize(
    ("found", "truth", "distance"),
    [([], [], 0), ([1], [], 1), ([1, 2, 3], [1, 3], 1), ([1, 2], [2, 1], 2), ([1], [2, 3, 4], 3)],
)
def test_edits_are_the_least_insertions_deletions_and_substitutions(found, truth, distance):
    assert edits(found, truth) == edits(truth, found) == distance


def test_regression_scores_outputs_within_the_tolerance():
    task = Regression(tolerance=0.5)
    outputs, y = torch.tensor([[0.5, 2.0], [9.0, 9.0]]), torch.tensor([[0.0, 0.0], [9.0, 9.2]])
    assert task.score(outputs, y).tolist() == [0.5, 1.0]
    assert task.extra_metrics(outputs, y)["absolute_error"].tolist() == pytest.approx([1.25, 0.1])
    assert float(task.label_loss(outputs, y)) == pytest.approx((0.25 + 4 + 0 + 0.04) / 4)
    huber = Regression(loss="huber")
    assert float(huber.label_loss(outputs, y)) == pytest.approx((0.125 + 1.5 + 0 + 0.02) / 4)


def test_keypoints_count_within_the_radius_and_absent_ones_not_at_all():
    y = torch.tensor([[[0.0, 0.0], [3.0, 2.0], [-1.0, -1.0]]])
    outputs = sure(torch.tensor([[1, 0, 7]]), 12).view(1, 3, 3, 4)
    assert Keypoints(radius=1.0).score(outputs, y).tolist() == [0.5]
    assert Keypoints(radius=0.5).score(outputs, y).tolist() == [0.0]
    far = math.hypot(3, 2)
    assert Keypoints().extra_metrics(outputs, y)["distance_cells"].tolist() == [
        pytest.approx((1 + far) / 2)
    ]


def test_a_heatmap_is_trained_towards_a_gaussian_around_its_point():
    outputs = torch.zeros(1, 1, 1, 3, requires_grad=True)
    task = Keypoints(sigma=1.0)
    task.label_loss(outputs, torch.tensor([[[0.0, 0.0]]])).backward()
    weights = torch.tensor([1.0, math.exp(-0.5), math.exp(-2.0)])
    assert outputs.grad is not None
    assert torch.allclose(outputs.grad.flatten(), 1 / 3 - weights / weights.sum(), atol=1e-6)


def test_overlaps_are_intersections_over_unions():
    first = torch.tensor([[0.5, 0.5, 1.0, 1.0]])
    second = torch.tensor([[1.0, 0.5, 1.0, 1.0], [0.5, 0.5, 0.5, 0.5], [3.0, 3.0, 1.0, 1.0]])
    assert overlaps(first, second)[0].tolist() == pytest.approx([1 / 3, 1 / 4, 0.0])


def test_boxes_match_one_target_of_their_class_each():
    box = (0.5, 0.5, 0.3, 0.4)
    outputs = boxes_at({(0, 1): (1, box), (1, 0): (0, box)})
    right, other = [1, 0.75, 0.25, 0.3, 0.4], [1, 0.25, 0.75, 0.3, 0.4]
    # Both boxes lie on a target, one has the wrong class: 1 match of 2 boxes and 2 targets.
    assert Detection().score(outputs, torch.tensor([[right, other]])).tolist() == [0.5]
    # The second target is taken only once.
    assert Detection().score(outputs, torch.tensor([[right, right]])).tolist() == [0.5]
    nothing = torch.full((1, 2, 5), -1.0)
    assert Detection().score(outputs, nothing).tolist() == [0.0]
    assert Detection().score(boxes_at({}), nothing).tolist() == [1.0]


def test_of_boxes_of_one_class_that_cover_each_other_the_surest_stays():
    # Both cells' boxes reach across the image's middle: centre x 0.49 and 0.51, size 0.8.
    outputs = boxes_at({(0, 0): (1, (0.98, 0.5, 0.8, 0.4)), (0, 1): (1, (0.02, 0.5, 0.8, 0.4))})
    outputs[0, 0, 0, 1] = 1.0
    assert Detection().decode(outputs)[0, :, 0].tolist() == [1.0, -1.0, -1.0, -1.0]
    outputs[0, 5:, 0, 1] = torch.tensor([20.0, -20.0])
    assert Detection().decode(outputs)[0, :, 0].tolist() == [1.0, 0.0, -1.0, -1.0]
    assert Detection(confidence=0.8).decode(outputs)[0, :, 0].tolist() == [1.0, -1.0, -1.0, -1.0]


def test_the_detection_loss_is_redmons_with_logits():
    outputs = torch.zeros(1, 7, 1, 1)
    y = torch.tensor([[[1.0, 0.25, 0.5, 0.25, 1.0]]])
    # BCE log 2; centre (0.5 - 0.25)^2 + 0; sides (sqrt .5 - .5)^2 + (sqrt .5 - 1)^2; CE log 2.
    root = math.sqrt(0.5)
    expected = 2 * math.log(2) + 5 * (0.0625 + (root - 0.5) ** 2 + (root - 1) ** 2)
    assert float(Detection().label_loss(outputs, y)) == pytest.approx(expected, rel=1e-5)
    empty = torch.full((1, 1, 5), -1.0)
    assert float(Detection().label_loss(outputs, empty)) == pytest.approx(math.log(2))


def test_a_policy_is_let_loose_in_its_environment():
    task = Policy(environment="cart-pole", episodes=8, steps=50)

    def always_left(state: Tensor) -> Tensor:
        return torch.tensor([1.0, 0.0]).expand(len(state), 2)

    lost = task.rollout_metrics(always_left, nothing)["episode_return"]
    assert lost.shape == (8,)
    assert float(lost.max()) < 15, "a cart that is pushed to one side only drops its pole soon"
    from edgekd.data.sets.cart_pole import pushes, regulator

    gain = regulator()

    def regulated(state: Tensor) -> Tensor:
        return F.one_hot(pushes(state, gain), 2).float()

    held = task.rollout_metrics(regulated, nothing)["episode_return"]
    assert held.tolist() == [50.0] * 8
    assert Policy().rollout_metrics(always_left, nothing) == {}


@pytest.mark.parametrize(
    ("task", "y", "classes", "fault"),
    [
        (CLASSIFICATION, torch.tensor([0, 3]), 3, "label 3 of sample 1 is out of range"),
        (CLASSIFICATION, torch.zeros(2, 2, dtype=torch.int64), 3, "integers with 1 dimensions"),
        (Segmentation(), torch.full((2, 2, 2), -2), 3, "label -2 of sample 0"),
        (Tokens(), torch.zeros(2, 3), 3, "in floating point"),
        (CTC(), torch.tensor([[1, 0]]), 3, "label 0, which is the blank"),
        (CTC(), torch.tensor([[-1, 1]]), 3, "a label after its end"),
        (Regression(), torch.zeros(4), 0, "give single targets as (N, 1)"),
        (Regression(), torch.tensor([[math.nan]]), 0, "NaN or infinity"),
        (Keypoints(), torch.zeros(2, 3, 3), 0, "(N, K, 2)"),
        (Detection(), torch.zeros(2, 5), 2, "(N, M, 5)"),
        (
            Detection(),
            torch.tensor([[[2.0, 0.5, 0.5, 0.5, 0.5]]]),
            2,
            "class of a box is out of range",
        ),
        (Detection(), torch.tensor([[[1.0, 0.5, 1.5, 0.5, 0.5]]]), 2, "outside its image"),
    ],
)
def test_targets_that_do_not_fit_the_task_are_faults(task, y, classes, fault):
    found = task.target_faults(y, classes, "data")
    assert any(fault in f"{each} {each.hint}" for each in found), [str(each) for each in found]


@pytest.mark.parametrize(
    ("task", "outputs", "y", "classes", "fault"),
    [
        (CLASSIFICATION, torch.zeros(1, 2), torch.tensor([0]), 3, "(1, 3): one logit per class"),
        (CLASSIFICATION, "text", torch.tensor([0]), 3, "outputs of shape str"),
        (Segmentation(), torch.zeros(1, 3, 2, 2), torch.zeros(1, 4, 4).long(), 3, "(1, 3, 4, 4)"),
        (Tokens(), torch.zeros(1, 3, 2), torch.zeros(1, 3).long(), 3, "(1, 3, 3)"),
        (CTC(), torch.zeros(1, 2, 3), torch.ones(1, 4).long(), 3, "2 frames can't hold"),
        (CTC(), torch.zeros(1, 3), torch.ones(1, 4).long(), 3, "one logit per class and frame"),
        (Regression(), torch.zeros(1, 2), torch.zeros(1, 1), 0, "the shape of the targets"),
        (Keypoints(), torch.zeros(1, 2, 4, 4), torch.full((1, 2, 2), 7.0), 0, "not in pixels"),
        (Detection(), torch.zeros(1, 6, 4, 4), torch.zeros(1, 1, 5), 2, "(1, 7, height, width)"),
    ],
)
def test_outputs_that_do_not_fit_the_task_are_faults(task, outputs, y, classes, fault):
    found = task.output_fault(outputs, y, classes, "student")
    assert found is not None
    assert fault in f"{found} {found.hint}"


@pytest.mark.parametrize(
    ("wish", "fault"),
    [
        ("segmentatoin", "unknown task 'segmentatoin'"),
        ({"radius": 2.0}, "the task has no 'name'"),
        ({"name": "keypoints", "radius": -1.0}, "radius must be above 0"),
        ({"name": "keypoints", "radios": 1.0}, "unknown key 'radios'"),
        ({"name": "detection", "overlap": 1.0}, "overlap must lie between 0 and 1"),
        ({"name": "regression", "tolerance": 0.0}, "tolerance must be above 0"),
        ({"name": "policy", "episodes": 0}, "episodes must be at least 1"),
    ],
)
def test_a_task_that_a_recipe_spells_wrong_is_refused(wish, fault):
    with pytest.raises(InputError) as raised:
        task_of(wish, "data.task")
    assert fault in str(raised.value)
