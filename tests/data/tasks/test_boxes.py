"""Boxes of any detector: COCO's average precision, and the user's decoder and loss."""

import numpy as np
import pytest
import torch
from torch import Tensor

from edgekd.data.tasks import NO_LABEL, task_of
from edgekd.data.tasks._precision import IOUS, matches_of, mean_average_precision
from edgekd.data.tasks.boxes import boxes
from edgekd.errors import InputError

NONE = [NO_LABEL, 0.0, 0.0, 0.0, 0.0]
Y = torch.tensor([[[0, 0.5, 0.5, 0.2, 0.2], NONE], [[0, 0.3, 0.3, 0.2, 0.2], NONE]])
FOUND = [
    torch.tensor([[0, 0.5, 0.5, 0.2, 0.2, 0.9]]),
    torch.tensor([[0, 0.8, 0.8, 0.2, 0.2, 0.8], [0, 0.3, 0.3, 0.2, 0.2, 0.7]]),
]


def precision(found: list[Tensor], y: Tensor, ious=(0.5,)) -> float:
    return mean_average_precision(matches_of(found, y, ious), np.ones(len(y)))


def test_precision_is_read_at_101_recalls():
    # hit, miss, hit: precision 1 up to recall 0.5 (51 points), then 2/3 (50 points).
    assert precision(FOUND, Y) == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_a_target_is_taken_once_by_the_surest_box():
    twice = torch.tensor([[0, 0.5, 0.5, 0.2, 0.2, 0.9], [0, 0.5, 0.5, 0.2, 0.2, 0.8]])
    one = Y[:1]
    assert precision([twice], one) == 1.0  # the second is behind full recall
    assert precision([twice[:, [0, 1, 2, 3, 4, 5]].flip(0)], one) == 1.0
    lower = torch.tensor([[0, 0.9, 0.9, 0.1, 0.1, 0.9], [0, 0.5, 0.5, 0.2, 0.2, 0.8]])
    assert precision([lower], one) == pytest.approx(0.5)


def test_a_box_counts_at_the_overlaps_that_it_has():
    # A fifth of its width aside: 0.16 / 0.24 is an IoU of 2/3, right at 0.50, 0.55, 0.60, 0.65.
    aside = torch.tensor([[0, 0.54, 0.5, 0.2, 0.2, 0.9]])
    assert precision([aside], Y[:1], IOUS) == pytest.approx(0.4)
    assert precision([aside], Y[:1], (0.7,)) == 0.0


def test_classes_count_equally_and_those_without_targets_not_at_all():
    y = torch.tensor([[[0, 0.5, 0.5, 0.2, 0.2], [1, 0.2, 0.2, 0.1, 0.1]]])
    found = torch.tensor([[0, 0.5, 0.5, 0.2, 0.2, 0.9], [2, 0.5, 0.5, 0.2, 0.2, 0.9]])
    assert precision([found], y) == 0.5


def test_without_targets_nothing_is_right():
    y = torch.tensor([[NONE]])
    assert precision([torch.zeros(0, 6)], y) == 1.0
    assert precision([FOUND[0]], y) == 0.0


def test_drawing_an_image_twice_is_the_same_as_having_it_twice():
    torch.manual_seed(0)
    found = [torch.rand(6, 6) for _ in range(5)]
    for image in found:
        image[:, 0] = torch.randint(0, 2, (6,))
    y = torch.stack([image[:3, :5] + 0.02 * torch.randn(3, 5) for image in found])
    y[..., 0] = torch.stack([image[:3, 0] for image in found])
    draw = torch.tensor([0, 3, 3, 4, 4])
    task = boxes(decode=lambda outputs: list(outputs))
    again = precision([found[int(n)] for n in draw], y[draw], IOUS)
    assert 0 < again < 1
    assert task.redrawn(found, y, [draw]) == pytest.approx([again])


def test_agreement_is_the_f1_of_the_boxes_that_are_sure():
    task = boxes(decode=torch.clone, confidence=0.75)
    first = torch.tensor([[[0, 0.5, 0.5, 0.2, 0.2, 0.9], [0, 0.2, 0.2, 0.1, 0.1, 0.8]]])
    second = torch.tensor([[[0, 0.5, 0.5, 0.2, 0.2, 0.9], [0, 0.2, 0.2, 0.1, 0.1, 0.7]]])
    assert task.agreement(first, first).tolist() == [1.0]
    assert task.agreement(first, second).tolist() == [pytest.approx(2 / 3)]


def test_the_decoder_has_to_give_boxes_with_scores():
    task = boxes(decode=torch.clone)
    fault = task.output_fault(torch.zeros(2, 3, 5), Y, 1, "model")
    assert fault is not None
    assert "the decoder gives a tensor of shape (3, 5) for 2 images" in str(fault)

    def broken_decoder(outputs: Tensor) -> Tensor:
        raise KeyError("scores")

    broken = boxes(decode=broken_decoder)
    assert "the decoder fails" in str(broken.output_fault(torch.zeros(2, 3), Y, 1, "model"))
    bad_loss = boxes(decode=lambda outputs: FOUND, loss=lambda outputs, y: outputs)
    fault = bad_loss.output_fault(torch.zeros(2, 3), Y, 1, "model")
    assert "the loss gives a tensor of shape (2, 3)" in str(fault)


def test_a_loss_is_tried_with_its_gradient_before_training():
    def undefined(outputs: Tensor, y: Tensor) -> Tensor:
        return torch.nn.functional.binary_cross_entropy(outputs.sigmoid(), outputs, outputs)

    def constant(outputs: Tensor, y: Tensor) -> Tensor:
        return torch.tensor(outputs.sum().item())

    outputs = torch.zeros(2, 3)
    fault = boxes(lambda outputs: FOUND, undefined).output_fault(outputs, Y, 1, "model")
    assert "the loss fails on the network's outputs" in str(fault)
    assert "not differentiable with respect to argument" in str(fault)
    fault = boxes(lambda outputs: FOUND, constant).output_fault(outputs, Y, 1, "model")
    assert "the loss has no gradient" in str(fault)


def test_a_recipe_names_the_functions():
    task = task_of({"name": "boxes", "decode": "torch:clone", "iou": 0.5}, "data.task")
    assert task.metric == "mAP at IoU 0.50"
    with pytest.raises(InputError, match="iou must lie between 0 and 1, found 2"):
        task_of({"name": "boxes", "decode": "torch:clone", "iou": 2.0}, "data.task")


def halves(outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs (B, n, 6) as candidates."""
    return outputs[..., 1:5], outputs[..., 5], outputs[..., 0].long()


def test_candidates_are_suppressed_as_a_file_would_do_it():
    given = torch.tensor([
        [0, 0.5, 0.5, 0.2, 0.2, 0.6], [0, 0.5, 0.52, 0.2, 0.2, 0.9], [1, 0.5, 0.5, 0.2, 0.2, 0.7],
        [0, 0.1, 0.1, 0.1, 0.1, 0.01],
    ])  # fmt: skip
    task = boxes(lambda outputs: outputs, candidates=halves, boxes_in_file=3)
    found = task.searched(given[None])
    none = [NO_LABEL, 0, 0, 0, 0, 0]
    torch.testing.assert_close(found[0], torch.stack([given[1], given[2], torch.tensor(none)]))
    y = torch.tensor([[[0, 0.5, 0.52, 0.2, 0.2], [1, 0.5, 0.5, 0.2, 0.2]]])
    assert float(task.of_boxes().judged(found, y)) == 1.0


def test_candidates_and_their_number_go_together():
    for wrong in ({"candidates": halves}, {"boxes_in_file": 5}):
        with pytest.raises(ValueError, match=r"candidates and boxes_in_file \(at least 1\) go"):
            boxes(lambda outputs: outputs, **wrong)


def test_candidates_of_another_shape_are_refused():
    task = boxes(lambda outputs: outputs[:, :, :6], candidates=lambda x: (x, x, x), boxes_in_file=5)
    fault = task.output_fault(torch.rand(2, 7, 6), Y, 1, "model")
    assert fault is not None
    assert "the candidates have the shapes (2, 7, 6)" in str(fault)
    assert "boxes (B, n, 4), scores (B, n) and integer classes (B, n)" in str(fault)
