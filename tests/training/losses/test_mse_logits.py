"""Regression on logits against numbers computed by hand."""

import torch

from edgekd.training.losses.mse_logits import MSELogits


def test_the_value_and_the_gradient_are_the_hand_computed_ones():
    student = torch.tensor([[1.0, 2.0], [0.0, 4.0]], requires_grad=True)
    loss = MSELogits()(student, torch.tensor([[0.0, 4.0], [0.0, 1.0]]), torch.tensor([0, 1]))
    loss.backward()
    assert loss.item() == 3.5  # (1 + 4 + 0 + 9) / 4
    assert student.grad.tolist() == [[0.5, -1.0], [0.0, 1.5]]
