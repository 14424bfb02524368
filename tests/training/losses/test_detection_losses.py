"""The losses of grid detectors against numbers computed by hand."""

import math

import pytest
import torch

from edgekd.data.tasks.detection import Detection
from edgekd.training.losses._binary import binary_divergence
from edgekd.training.losses._grid import answering_cells, inside_boxes, scores_of
from edgekd.training.losses.detection_boxes import DetectionBoxes
from edgekd.training.losses.detection_distribution import DetectionDistribution
from edgekd.training.losses.detection_features import DetectionFeatures
from edgekd.training.losses.detection_localization import DetectionLocalization
from edgekd.training.losses.detection_rank import DetectionRank
from edgekd.training.losses.detection_scores import DetectionScores

NONE = torch.zeros(1)
TARGET = torch.tensor([[[1.0, 0.75, 0.25, 0.5, 0.5], [-1.0, 0.0, 0.0, 0.0, 0.0]]])


def grid(classes: int = 2, height: int = 1, width: int = 2, count: int = 1) -> torch.Tensor:
    """Outputs of nothing but zeros."""
    return torch.zeros(count, 5 + classes, height, width)


def test_the_ranks_are_a_distribution_over_an_images_proposals():
    student, teacher = grid().requires_grad_(), grid()
    teacher[0, 0] = torch.tensor([2.0, 0.0])
    # Both cells' classes are even: their log-probability drops out, and kl at T = 2 is left.
    loss = DetectionRank(temperature=2.0)(student, teacher, NONE)
    loss.backward()
    assert loss.item() == pytest.approx(0.4437763, abs=1e-6)
    assert torch.allclose(
        student.grad[0, 0], 2 * torch.tensor([[0.5 - 0.7310586, 0.5 - 0.2689414]])
    )
    sure = grid()
    sure[0, 5, 0, 0] = math.log(3.0)
    expected = torch.tensor([[math.log(0.75), math.log(0.5)]])
    assert torch.allclose(scores_of(sure), expected)


def test_two_yes_or_no_answers_diverge_by_the_hand_computed_number():
    found = binary_divergence(torch.tensor(math.log(3.0)), torch.tensor(0.0)).item()
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert found == pytest.approx(expected, abs=1e-6)


def test_classes_count_as_far_as_the_teacher_sees_an_object():
    student, teacher = grid(width=1), grid(width=1)
    teacher[0, 0], teacher[0, 5] = math.log(3.0), 2.0
    objects = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    named = 0.4437763  # T^2 kl of (2, 0) against (0, 0) at T = 2
    loss = DetectionScores(classes=2.0, temperature=2.0)
    assert loss(student, teacher, NONE).item() == pytest.approx(objects + 2 * 0.75 * named)


def test_the_answering_cells_are_the_tasks_own():
    outputs = grid(height=3, width=4)
    present, boxes = answering_cells(outputs, TARGET)
    own_present, own_boxes, _ = Detection()._cells(outputs, TARGET)
    assert torch.equal(present, own_present)
    assert torch.allclose(boxes.movedim(1, -1), own_boxes)


@pytest.mark.parametrize(("margin", "worse"), [(0.0, False), (0.5, True)])
def test_a_box_better_than_the_teachers_is_good_enough(margin, worse):
    # The target lies in the right cell at (0.5, 0.25), half as wide and high as the image.
    student, teacher = grid().requires_grad_(), grid()
    with torch.no_grad():
        student[0, 2, 0, 1] = math.log(1 / 3)  # sigmoid 0.25, exact
        student[0, 1, 0, 1] = math.log(3.0)  # sigmoid 0.75, off by 0.25
    teacher[0, 1, 0, 1] = 50.0  # off by 0.5, and by 0.25 in y
    loss = DetectionBoxes(margin=margin)(student, teacher, TARGET)
    loss.backward()
    assert loss.item() == pytest.approx(0.0625 if worse else 0.0, abs=1e-6)
    # 2 * 0.25 * sigmoid' where it counts
    assert student.grad[0, 1, 0, 1].item() == pytest.approx(0.09375 if worse else 0.0, abs=1e-6)
    assert student.grad[0, 1, 0, 0].item() == 0.0


def test_images_without_a_target_count_nothing():
    nothing = torch.full((1, 2, 5), -1.0)
    assert DetectionBoxes()(grid(), torch.randn(1, 7, 1, 2), nothing).item() == 0.0


def test_the_doubt_about_a_box_is_weighted_by_the_object():
    student, teacher = grid(), grid()
    teacher[0, 0] = torch.tensor([[50.0, -50.0]])
    teacher[0, 1] = torch.tensor([[2 * math.log(3.0), 9.0]])
    each = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)  # at T = 2, of one of four logits
    loss = DetectionLocalization(temperature=2.0)(student, teacher, NONE)
    assert loss.item() == pytest.approx(4 * each / 4, abs=1e-6)


def test_the_teachers_distribution_over_an_edges_places_goes_over_where_it_is_sure():
    # Two positions, two places an edge: logits (4 x 2, 2).
    student, teacher = torch.zeros(2, 1, 8, 2)
    teacher[0, 0, 0] = 2 * math.log(3.0)  # at T = 2 0.75 and 0.25, at T = 1 0.9 and 0.1
    divergence = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5)) / 4  # T^2, one edge of four
    sure = (0.9 + 3 * 0.5) / 4
    loss = DetectionDistribution(temperature=2.0, places=2)
    expected = sure * divergence / (sure + 0.5)
    assert loss(student, teacher, NONE).item() == pytest.approx(expected, abs=1e-6)
    # A map (4 places, H, W) is read in the same order; without sharpness positions count alike.
    alike = DetectionDistribution(temperature=2.0, places=2, sharpness=0.0)
    found = alike(student[..., None], teacher[..., None], NONE)
    assert found.item() == pytest.approx(divergence / 2, abs=1e-6)


def test_outputs_that_are_no_distributions_over_places_are_refused():
    loss = DetectionDistribution()
    loss.prepare((64, 84), (), (3, 64, 64))
    loss.prepare((64, 8, 8), (), (3, 64, 64))
    for outputs in ((8, 84), (64,)):
        with pytest.raises(ValueError, match="needs 4 x 16 logits at each position"):
            loss.prepare(outputs, (), (3, 64, 64))
    for keys in ({"places": 1}, {"sharpness": -1.0}, {"temperature": 0.0}):
        with pytest.raises(ValueError, match=next(iter(keys))):
            DetectionDistribution(**keys)


def test_features_are_compared_where_the_objects_are():
    # The box covers the right half's upper part of a 2 x 2 grid: one cell.
    assert inside_boxes(TARGET, 2, 2).tolist() == [[[0.0, 1.0], [0.0, 0.0]]]
    features = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]], requires_grad=True)
    loss = DetectionFeatures(foreground=1.0, background=0.5)
    loss.prepare((1, 2, 2), (1, 2, 2))
    value = loss(features, torch.zeros(1, 1, 2, 2), targets=TARGET)
    value.backward()
    assert value.item() == pytest.approx(4.0 + 0.5 * (1 + 9 + 16) / 3)
    assert torch.allclose(
        features.grad.flatten(), torch.tensor([1 / 3, 4.0, 1.0, 4 / 3]), atol=1e-6
    )
    empty = loss(features, torch.zeros(1, 1, 2, 2), targets=torch.full((1, 1, 5), -1.0))
    assert empty.item() == pytest.approx(0.5 * 30 / 4)


def test_other_widths_and_sizes_are_bridged_and_other_outputs_refused():
    loss = DetectionFeatures()
    loss.prepare((2, 4, 4), (3, 2, 2))
    assert loss(torch.randn(1, 2, 4, 4), torch.randn(1, 3, 2, 2), targets=TARGET).ndim == 0
    with pytest.raises(ValueError, match="foreground, background: all zero"):
        DetectionFeatures(foreground=0.0)
    for make in (DetectionRank, DetectionScores, DetectionBoxes, DetectionLocalization):
        with pytest.raises(ValueError, match="needs a grid of boxes"):
            make().prepare((10,), (), (1, 8, 8))
    with pytest.raises(ValueError, match="needs targets"):
        DetectionBoxes().prepare((8, 4, 4), (), (1, 8, 8))
