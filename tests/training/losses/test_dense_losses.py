"""Losses on segmentations, heatmaps and real numbers against numbers computed by hand."""

import math

import pytest
import torch

from edgekd.training.losses.keypoint import Keypoint
from edgekd.training.losses.regression import Regression
from edgekd.training.losses.segmentation_pairs import SegmentationPairs
from edgekd.training.losses.segmentation_pixels import SegmentationPixels

NONE = torch.zeros(1)


def test_pixels_are_compared_one_by_one_or_each_class_over_the_image():
    student, teacher = torch.zeros(1, 2, 1, 2), torch.zeros(1, 2, 1, 2)
    teacher[0, 0, 0, 0] = 2.0
    # Over the classes one pixel of two differs; over the positions one class of two.
    for over in ("classes", "positions"):
        found = SegmentationPixels(over=over, temperature=2.0)(student, teacher, NONE).item()
        assert found == pytest.approx(0.4437763 / 2, abs=1e-6)
    teacher[0, 0, 0, 1] = 2.0  # now every pixel differs, and no class's distribution
    assert SegmentationPixels(temperature=2.0)(student, teacher, NONE).item() == pytest.approx(
        0.4437763, abs=1e-6
    )
    flat = SegmentationPixels(over="positions", temperature=2.0)(student, teacher, NONE).item()
    assert flat == pytest.approx(0.0, abs=1e-7)


def test_pairs_of_places_are_compared_by_their_cosine():
    student = torch.tensor([[[[1.0, 0.0]], [[0.0, 2.0]]]], requires_grad=True)  # cosine 0
    teacher = torch.tensor([[[[3.0, 3.0]]]])  # cosine 1
    loss = SegmentationPairs(patch=1)(student, teacher)
    loss.backward()
    assert loss.item() == pytest.approx(0.5)  # two of four pairs are off by one
    # d(a_12)/df_1 = f_2 / |f_1| |f_2| = (0, 1); twice, times 2 (0 - 1) / 4
    assert torch.allclose(student.grad[0, :, 0, 0], torch.tensor([0.0, -1.0]))


def test_a_patch_is_averaged_to_one_node():
    features = torch.randn(2, 3, 4, 4)
    means = torch.nn.functional.avg_pool2d(features, 2)
    found = SegmentationPairs(patch=2)(features, torch.randn(2, 3, 4, 4).mul(0).add(1))
    assert torch.allclose(found, SegmentationPairs(patch=1)(means, torch.ones(2, 3, 2, 2)))


def test_softened_heatmaps_and_their_sharpness_add_up():
    student, teacher = torch.zeros(1, 1, 1, 4, requires_grad=True), torch.zeros(1, 1, 1, 4)
    teacher[..., 0] = math.log(3.0)
    # softmax(t) = (1/2, 1/6, 1/6, 1/6); within 1.5 cells of the peak are two: 2/3 against 1/2.
    kl = 0.5 * math.log(2.0) + 0.5 * math.log(2.0 / 3.0)
    plain = Keypoint(sharpness=0.0)(student, teacher, NONE)
    assert plain.item() == pytest.approx(kl, abs=1e-6)
    both = Keypoint(sharpness=3.0)(student, teacher, NONE)
    assert both.item() == pytest.approx(kl + 3.0 / 36, abs=1e-6)
    both.backward()
    # p_s - p_t, and 2 * 3 (m_s - m_t) p (near - m_s) = -1 * 0.25 * (+-0.5)
    expected = torch.tensor([-0.25 - 0.125, 1 / 12 - 0.125, 1 / 12 + 0.125, 1 / 12 + 0.125])
    assert torch.allclose(student.grad.flatten(), expected, atol=1e-6)
    # Sharpness is that of the heatmaps as they are, whatever T is.
    soft, sharp = (Keypoint(2.0, weight)(student, teacher, NONE).item() for weight in (0.0, 3.0))
    assert sharp - soft == pytest.approx(3.0 / 36, abs=1e-6)
    near = Keypoint(temperature=20.0, sharpness=0.0)(student, teacher, NONE).item()
    assert near == pytest.approx(((teacher - teacher.mean()) ** 2).mean().item() / 2, rel=0.05)


def test_the_sharpness_of_a_heatmap_is_taken_around_the_teachers_peak():
    # Around the teacher's cell the student has 1/4 of its mass and the teacher 1/2; around the
    # student's own they would have 1/2 and 1/6.
    teacher = torch.tensor([3.0, 1.0, 1.0, 1.0]).log().view(1, 1, 1, 4)
    student = torch.tensor([2.0, 1.0, 4.0, 1.0]).log().view(1, 1, 1, 4)
    parts = [Keypoint(1.0, weight, radius=0.5)(student, teacher, NONE).item() for weight in (0, 1)]
    assert parts[1] - parts[0] == pytest.approx((1 / 4) ** 2, abs=1e-6)


@pytest.mark.parametrize(
    ("form", "value", "slope"),
    [("mse", 4.5, (3.0, 0.0)), ("huber", 1.25, (0.5, 0.0)), ("bounded", 0.5, (1.0, 0.0))],
)
def test_the_forms_of_regression_are_the_hand_computed_ones(form, value, slope):
    student = torch.tensor([[1.0, 2.0]], requires_grad=True)
    teacher, target = torch.tensor([[-2.0, 2.0]]), torch.tensor([[0.0, 2.0]])
    margin = {"bounded": 3.0}.get(form, 0.0)  # the student's 0.5 is better than the teacher's 2
    loss = Regression(form=form, margin=margin)(student, teacher, target)
    loss.backward()
    assert loss.item() == pytest.approx(value)
    assert torch.allclose(student.grad.flatten(), torch.tensor(slope))


def test_a_student_better_than_its_teacher_by_the_margin_has_no_loss():
    student, teacher, target = torch.tensor([[1.0]]), torch.tensor([[2.0]]), torch.tensor([[0.0]])
    assert Regression("bounded", margin=2.9)(student, teacher, target).item() == 0.0
    assert Regression("bounded", margin=3.1)(student, teacher, target).item() == 1.0


def test_outputs_that_are_not_what_they_read_are_refused():
    with pytest.raises(ValueError, match="needs targets like the outputs"):
        Regression("bounded").prepare((4,), (), (4,))
    with pytest.raises(ValueError, match="needs heatmaps"):
        Keypoint().prepare((10,), (), (4,))
    with pytest.raises(ValueError, match="needs logits"):
        SegmentationPixels().prepare((10,), (), (4,))
