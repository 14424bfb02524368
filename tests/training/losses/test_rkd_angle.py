"""Relational distillation by angles against numbers computed by hand."""

import pytest
import torch

from edgekd.training.losses.rkd_angle import RKDAngle


def test_the_value_is_the_hand_computed_one():
    # A right-angled triangle has cosines 0, 0.7071, 0.7071; an equilateral one 0.5 three times.
    student = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    teacher = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 3**0.5 / 2]])
    expected = (0.5**2 / 2 + 2 * (0.5**0.5 - 0.5) ** 2 / 2) / 3
    assert RKDAngle()(student, teacher).item() == pytest.approx(expected, abs=1e-6)


def test_scale_and_size_do_not_matter():
    features = torch.randn(5, 3)
    wide = torch.cat([7 * features, torch.zeros(5, 4)], dim=1)
    assert RKDAngle()(features, wide).item() == pytest.approx(0, abs=1e-6)


def directly(features: torch.Tensor) -> torch.Tensor:
    """The cosines by the paper's equation: normalized edges, multiplied out."""
    flat = features.flatten(1)
    edges = flat.unsqueeze(0) - flat.unsqueeze(1)
    lengths = edges.norm(dim=2, keepdim=True)
    edges = torch.where(lengths > 0, edges / lengths.clamp_min(1e-30), 0.0)
    return edges @ edges.mT


def expected_of(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    apart, count = directly(student) - directly(teacher), len(student)
    each = torch.where(apart.abs() < 1, apart**2 / 2, apart.abs() - 0.5)
    different = torch.ones(count, count, count, dtype=torch.bool)
    for n in range(count):
        different[n, n, :] = different[n, :, n] = different[:, n, n] = False
    return each[different].mean()


CLOUDS = {
    "spread out": lambda: torch.randn(9, 20),
    "far from zero": lambda: 1000 + torch.randn(9, 20),
    "some a thousandth apart": lambda: torch.randn(3, 20).repeat(3, 1) + 1e-3 * torch.randn(9, 20),
    "in the plane": lambda: torch.randn(9, 2),
}


@pytest.mark.parametrize("cloud", CLOUDS)
def test_float32_is_as_near_to_the_truth_as_the_direct_formula_in_double(cloud):
    torch.manual_seed(3)
    student, teacher = CLOUDS[cloud]().requires_grad_(), CLOUDS[cloud]()
    exact = expected_of(student.double(), teacher.double())
    (wanted,) = torch.autograd.grad(exact, student)
    value = RKDAngle()(student, teacher)
    (found,) = torch.autograd.grad(value, student)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(exact.item(), rel=2e-6)
    assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_the_same_sample_twice_has_no_direction_and_no_wild_gradient():
    student = torch.randn(4, 3)
    student[3] = student[0]
    student.requires_grad_()
    value = RKDAngle()(student, torch.randn(4, 3))
    value.backward()
    assert value.isfinite()
    assert student.grad.abs().max() < 10


def test_two_samples_in_one_place_have_no_angle_between_them_on_that_side_only():
    student = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    teacher = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    # Cosines at the three samples: 0 and 0; 0 and 1 / sqrt 2; 1 and 1 / sqrt 2.
    expected = (0.5 * 0.5 + 0.5 * (1 - 0.5**0.5) ** 2) / 3
    assert float(RKDAngle()(student, teacher)) == pytest.approx(expected, abs=1e-6)
