"""Maximum mean discrepancy against numbers computed by hand."""

import math

import pytest
import torch

from edgekd.training.losses.mmd import MMD

# Two channels of one sample each: (1, 0) and, once normalized, (0.6, 0.8).
STUDENT, TEACHER = torch.tensor([[[[2.0, 0.0]]]]), torch.tensor([[[[3.0, 4.0]]]])


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ("linear", 2 - 2 * 0.6),
        ("polynomial", 2 - 2 * 0.36),
        # |x - y|^2 = 0.8 is its own mean: exp(-1/2).
        ("gaussian", 2 - 2 * math.exp(-0.5)),
    ],
)
def test_the_value_is_the_hand_computed_one(kernel, expected):
    assert MMD(kernel=kernel)(STUDENT, TEACHER).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kernel", ["linear", "polynomial"])
def test_the_other_kernels_gradients_agree_with_finite_differences(kernel):
    student = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 4, 2, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: MMD(kernel=kernel)(s, teacher), (student,))


def test_the_gaussian_gradient_agrees_when_its_width_is_held():
    """The width is taken from the batch and gets no gradient, as in the authors' code."""
    from edgekd.training.losses._kernels import discrepancy, gaussian_for

    student = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 5, 4, dtype=torch.float64)
    kernel = gaussian_for(student, teacher)
    assert torch.autograd.gradcheck(lambda s: discrepancy(s, teacher, kernel), (student,))
