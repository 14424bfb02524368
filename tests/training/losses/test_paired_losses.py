"""Cross-modal and cross-lingual distillation against numbers computed by hand."""

import math

import pytest
import torch
from torch import nn

from edgekd.training.losses.cross_lingual import CrossLingual
from edgekd.training.losses.cross_modal import CrossModal


def test_paired_embeddings_are_compared_and_contrasted():
    student = torch.tensor([[2.0, 0.0], [0.0, 3.0]], requires_grad=True)
    teacher = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    plain = CrossModal()(student, teacher)
    plain.backward()
    assert plain.item() == pytest.approx((1 + 4) / 4)
    assert torch.allclose(student.grad, torch.tensor([[0.5, 0.0], [0.0, 1.0]]))
    # Cosines 1 with the own pair and 0 with the other, at T = 0.5: log(1 + e^-2) on both sides.
    both = CrossModal(contrast=3.0, temperature=0.5)(student, teacher)
    assert both.item() == pytest.approx(1.25 + 3 * math.log1p(math.exp(-2.0)), rel=1e-6)


def test_other_widths_are_bridged_and_maps_averaged():
    loss = CrossModal()
    loss.prepare((3, 2, 2), (5,))
    features, target = torch.randn(2, 3, 2, 2), torch.randn(2, 5)
    expected = ((loss.bridge(features.mean((2, 3))) - target) ** 2).mean()
    assert torch.allclose(loss(features, target), expected)


def test_a_sentence_and_its_translation_are_both_drawn_to_the_teachers_embedding():
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(2.0)
    translated, shown = torch.tensor([[3.0]]), torch.tensor([[1.0]])
    loss = CrossLingual(source=0.5)(
        network(translated), torch.tensor([[5.0]]), torch.zeros(1), shown=shown,
        student_network=network,
    )  # fmt: skip
    loss.backward()
    # (6 - 5)^2 + 0.5 (2 - 5)^2; d/dw = 2 * 1 * 3 + 0.5 * 2 * (-3) * 1
    assert loss.item() == pytest.approx(1.0 + 4.5)
    assert network.weight.grad.item() == pytest.approx(6.0 - 3.0)
    with pytest.raises(ValueError, match="needs embeddings"):
        CrossLingual().prepare((4, 8), (), (4,))
