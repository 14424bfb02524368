"""Weights of samples and teachers' own temperatures against numbers computed by hand."""

import pytest
import torch
from torch.nn import functional as F

from edgekd.training.sample_weights import disagreement, inverse_frequency, weighted_cross_entropy
from edgekd.training.temperature import fitted_temperature


def test_rare_classes_count_as_much_as_frequent_ones_together():
    labels = torch.tensor([0, 0, 0, 1])
    weights = inverse_frequency(labels, 3)
    assert weights.tolist() == pytest.approx([4 / 6, 2.0, 0.0])  # class 2 has no sample
    assert weights[labels].mean().item() == pytest.approx(1.0)


def test_samples_that_both_see_otherwise_count_more():
    student = torch.tensor([[0.0, 0.0], [50.0, 0.0], [0.0, 0.0]])
    teacher = torch.tensor([[50.0, 0.0], [0.0, 50.0], [0.0, 0.0]])
    # apart by 1/2, 1 and 0, the mean 1/2
    assert disagreement(student, teacher).tolist() == pytest.approx([1.0, 2.0, 0.0])
    assert disagreement(teacher, teacher).tolist() == [1.0, 1.0, 1.0]


def test_weights_of_one_leave_the_cross_entropy_as_it_is():
    rows, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    found = weighted_cross_entropy(rows, labels, torch.ones(5), 0.1)
    assert torch.allclose(found, F.cross_entropy(rows, labels, label_smoothing=0.1))


@pytest.mark.parametrize("truth", [0.5, 1.0, 3.0])
def test_the_fitted_temperature_is_the_one_that_labels_were_drawn_at(truth):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(40000, 4, generator=generator)
    labels = torch.multinomial(torch.softmax(logits / truth, 1), 1, generator=generator).squeeze(1)
    assert fitted_temperature(logits, labels) == pytest.approx(truth, rel=0.04)


def test_no_other_temperature_gives_a_lower_cross_entropy():
    logits = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    labels = torch.tensor([0, 1, 1])
    best = fitted_temperature(logits, labels)
    values = [float(F.cross_entropy(logits / t, labels)) for t in (best, 0.97 * best, 1.03 * best)]
    assert values[0] == min(values)


def test_a_teacher_that_is_always_right_stays_within_the_bounds():
    assert fitted_temperature(torch.eye(3), torch.arange(3)) == pytest.approx(0.05, rel=1e-3)
