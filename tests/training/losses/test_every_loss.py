"""What holds for every registered loss, whatever its formula; each formula has its own test."""

import inspect

import pytest
import torch
from loss_inputs import NEVER_ZERO, case

from edgekd.registry import LOSSES
from edgekd.training.losses import DepthsLoss, FeatureLoss, OutputLoss, ResponseLoss

torch.set_num_threads(1)
NAMES = LOSSES.names()
ZERO = [name for name in NAMES if name not in NEVER_ZERO]
RANDOM = {"crd": "draws negatives", "segmentation-holistic": "draws mixtures",
          "adversarial": "its terms train either side alone"}  # fmt: skip
NETWORKS = {"sequence", "own-samples", "cross-lingual"}
TEMPERED = [name for name in NAMES if "temperature" in LOSSES.get(name).parameters]
RESPONSES = [name for name in NAMES if issubclass(LOSSES.get(name).make, ResponseLoss)]


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_is_of_one_of_the_four_kinds_and_says_where_it_comes_from(name):
    entry = LOSSES.get(name)
    kinds = [k for k in (ResponseLoss, OutputLoss, FeatureLoss, DepthsLoss)
             if issubclass(entry.make, k)]  # fmt: skip
    assert len(kinds) == 1
    assert entry.paper.startswith("https://")
    assert len(entry.summary) > 20
    assert inspect.getdoc(entry.make) != inspect.getdoc(kinds[0])


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("name", NAMES)
def test_the_value_is_one_number_and_its_gradients_are_finite(name, count):
    made = case(name, count)
    value = made.value()
    assert value.shape == ()
    assert value.isfinite()
    value.backward()
    gradients = [side.grad for side in made.student if side.grad is not None]
    assert gradients or name in NETWORKS
    learned = [p.grad for p in made.loss.parameters() if p.requires_grad and p.grad is not None]
    assert all(each.isfinite().all() for each in [*gradients, *learned])
    assert not any(side.requires_grad for side in made.teacher)


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("name", ZERO)
def test_equal_teacher_and_student_give_zero_and_a_finite_gradient(name, count):
    made = case(name, count).equal()
    value = made.value()
    value.backward()
    assert value.item() == pytest.approx(0.0, abs=1e-5)
    found = [side.grad for side in made.student if side.grad is not None]
    assert all(each.isfinite().all() for each in found)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in RANDOM and n not in NETWORKS])
def test_the_gradient_agrees_with_finite_differences(name):
    keys = {"kernel": "polynomial"} if name == "mmd" else {}  # the Gaussian's width is no variable
    made = case(name, 3, torch.float64, **keys)
    for buffer in made.loss.modules():
        buffer.eval()

    def value(*sides: torch.Tensor) -> torch.Tensor:
        made.student = list(sides)
        return made.value()

    assert torch.autograd.gradcheck(value, tuple(made.student), atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_but_zeros_gives_finite_numbers(name):
    made = case(name, 3)
    made.student = [torch.zeros_like(side).requires_grad_() for side in made.student]
    made.teacher = [torch.zeros_like(side) for side in made.teacher]
    value = made.value()
    value.backward()
    assert value.isfinite()
    found = [side.grad for side in made.student if side.grad is not None]
    assert all(each.isfinite().all() for each in found)


@pytest.mark.parametrize("name", RESPONSES)
def test_huge_logits_stay_finite(name):
    made = case(name, 2)
    made.student = [torch.tensor([[1e4, 0, 0, 0], [0, 0, 0, -1e4]], requires_grad=True)]
    made.teacher = [torch.tensor([[0, 1e4, 0, 0], [0, 0, 1e4, 0.0]])]
    value = made.value()
    value.backward()
    assert value.isfinite()
    assert made.student[0].grad.isfinite().all()


@pytest.mark.parametrize("name", RESPONSES)
def test_the_rows_of_a_loss_on_logits_average_to_its_value_and_may_be_weighted(name):
    made = case(name, 4)
    student, teacher = made.student[0], made.teacher[0]
    each = made.loss.each(student, teacher, made.labels)
    assert each.shape == (4,)
    assert torch.allclose(each.mean(), made.value())
    weights = torch.tensor([4.0, 0.0, 0.0, 0.0])
    assert torch.allclose(made.loss(student, teacher, made.labels, weights), each[0])


@pytest.mark.parametrize("name", [name for name in RESPONSES if name in TEMPERED])
def test_a_temperature_for_each_row_gives_what_each_would_give_alone(name):
    made = case(name, 3)
    if name == "dist":  # within a class, rows depend on each other
        made.loss.gamma = 0.0
    temperatures = torch.tensor([[0.5], [2.0], [5.0]])
    made.loss.temperature = temperatures
    together = made.loss.each(made.student[0], made.teacher[0], made.labels)
    for row, temperature in enumerate(temperatures.flatten().tolist()):
        made.loss.temperature = temperature
        one = slice(row, row + 1)
        alone = made.loss.each(made.student[0][one], made.teacher[0][one], made.labels[one])
        assert torch.allclose(together[one], alone, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
@pytest.mark.parametrize("name", TEMPERED)
def test_a_temperature_that_is_not_above_zero_is_refused(name, temperature):
    with pytest.raises(ValueError, match="temperature must be above 0"):
        LOSSES.get(name).make(temperature=temperature)


@pytest.mark.parametrize("name", [n for n in NAMES
                                  if issubclass(LOSSES.get(n).make, FeatureLoss)])  # fmt: skip
def test_features_that_can_not_be_brought_together_are_refused_or_flattened(name):
    loss = LOSSES.get(name).make()
    relations = {"correlation", "pkt", "rkd-angle", "rkd-distance", "similarity"}
    pooling = {"crd", "cross-modal"}
    if name in relations | pooling:
        loss.prepare((4, 2, 2), (4,))
        return
    with pytest.raises(ValueError, match=r"can't be matched|needs maps"):
        loss.prepare((4, 2, 2), (4,))
