"""Every branch of every registered loss: no choice and no weight that a recipe may set escapes.

The cases come from the constructors' signatures: each value of a choice, each weight set to zero,
each number doubled.
"""

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import pytest
import torch
from loss_inputs import NEVER_ZERO, case
from test_every_loss import RESPONSES, TEMPERED

from edgekd.registry import LOSSES
from edgekd.training.losses.crd import CRD, _Bank

torch.set_num_threads(1)

BY_HAND = {
    "adversarial": "its terms train either side alone",
    "segmentation-holistic": "its terms train either side alone, and it draws mixtures",
    "crd": "draws negatives and keeps them: below, with both held",
    "own-samples": "draws tokens: in test_own_samples",
    "cross-lingual": "reads the student's network: in test_paired_losses",
}
"""Whose gradients are no derivative of their value; each has them by hand in its own test."""

TOGETHER: dict[str, list[dict[str, Any]]] = {
    "graph": [{"parts": ("nodes",)}, {"edge_budget": 0.5, "pooled": 0.0}],
    "policy": [{"form": "mse", "value": 2.0}, {"form": "nll", "value": 2.0}],
    "regression": [{"form": "bounded", "margin": 1.0}],
    "detection-features": [{"foreground": 0.0, "background": 1.0}],
    "cross-modal": [{"contrast": 1.0, "temperature": 0.3}],
    "correlation": [{"order": 1}, {"order": 4}],
    "segmentation-pairs": [{"patch": 1}],
    "transformer": [{"hidden": 0.0, "attention": 0.0, "temperature": 3.0}],
    "review": [{"width": 3}],
}
"""Branches that take more than one key, or a number that is no float."""


SHIFTED = {
    "cross-modal": ["contrast"],  # other samples' share stays
    "graph": ["edge_budget"],  # edges beyond the budget are taught to be zero
    "hint": ["regressor"],  # which starts anywhere
    "regression": ["margin"],  # by which the teacher is to be beaten
}
"""Keys with which equal sides are not the least."""


def branches() -> Iterator[tuple[str, dict[str, Any]]]:
    for name in LOSSES.names():
        entry = LOSSES.get(name)
        for key, parameter in entry.parameters.items():
            if get_origin(parameter.annotation) is Literal:
                values = [v for v in get_args(parameter.annotation) if v != parameter.default]
            elif parameter.annotation is float:
                values = [0.0, 2 * parameter.default or 1.0]
            else:
                continue
            yield from ((name, {key: value}) for value in values if allowed(entry.make, key, value))
        yield from ((name, keys) for keys in TOGETHER.get(name, ()))


def allowed(make: Any, key: str, value: Any) -> bool:
    try:
        make(**{key: value})
    except ValueError:
        return False
    return True


def derivable(name: str, keys: dict[str, Any]) -> bool:
    """Whether the student's gradient is the derivative of the value."""
    held = name == "mmd" and "layout" in keys  # the Gaussian's width gets no gradient
    return name not in BY_HAND and not held and (name != "sequence" or "decode" in keys)


def least_where_equal(name: str, keys: dict[str, Any]) -> bool:
    """Whether equal sides give zero."""
    never = name in NEVER_ZERO or (name == "policy" and keys != {"form": "mse"})
    return not never and not set(keys) & set(SHIFTED.get(name, ()))


def shown(cases: list[tuple[str, dict[str, Any]]]) -> Any:
    ids = [f"{name} {keys}" for name, keys in cases]
    return pytest.mark.parametrize(("name", "keys"), cases, ids=ids)


ALL = list(branches())


def made(name: str, keys: dict[str, Any], dtype: torch.dtype = torch.float64):
    if name == "graph" and "parts" in keys:
        keys = {**keys, "parts": ("nodes", "nodes", "pooled")}
    ready = case(name, 2, dtype, **keys)
    ready.loss.eval()
    return ready


def test_no_choice_of_any_loss_is_left_out():
    for name in LOSSES.names():
        for key, parameter in LOSSES.get(name).parameters.items():
            for value in get_args(parameter.annotation):
                if value != parameter.default and get_origin(parameter.annotation) is Literal:
                    assert (name, {key: value}) in ALL


@shown([each for each in ALL if derivable(*each)])
def test_the_gradient_of_each_branch_agrees_with_finite_differences(name, keys):
    ready = made(name, keys)

    def value(*sides: torch.Tensor) -> torch.Tensor:
        ready.student = list(sides)
        return ready.value()

    assert torch.autograd.gradcheck(value, tuple(ready.student), atol=1e-4)


@shown([each for each in ALL if least_where_equal(*each)])
def test_equal_sides_give_zero_on_each_branch(name, keys):
    value = made(name, keys, torch.float32).equal().value()
    assert value.item() == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("dense", [0, 8])
def test_the_contrastive_gradient_agrees_where_negatives_and_memory_are_held(dense, monkeypatch):
    monkeypatch.setattr("edgekd.training.losses.crd.DENSE", dense)
    monkeypatch.setattr(_Bank, "update", lambda *_: None)
    torch.manual_seed(0)
    loss = CRD(negatives=4, width=3, temperature=0.5)
    loss.prepare((5,), (2,))
    loss.remember(7)
    loss.double()
    teacher, index = torch.randn(3, 2, dtype=torch.float64), torch.tensor([0, 3, 6])

    def value(student: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)
        return loss(student, teacher, index=index)

    value(torch.randn(3, 5, dtype=torch.float64))  # sets the scale
    assert torch.autograd.gradcheck(value, torch.randn(3, 5, dtype=torch.float64).requires_grad_())


GROWS_AS: dict[str, int] = {
    "dist": 2,  # correlations do not shrink with T, and T^2 stands before them
}
"""With which power of T the value grows where T is large: 0 for T^2 KL, and where the student stays
at 1 (ttm, wttm, policy), since it goes to the student's distance from even."""


UNSOFTENED = {"crd", "cross-modal", "own-samples"}
"""Whose temperature softens nothing."""


@pytest.mark.parametrize("name", [name for name in TEMPERED if name not in UNSOFTENED])
def test_t_squared_keeps_the_size_of_what_is_softened(name):
    power = GROWS_AS.get(name, 0)
    few = {"transformer": {"hidden": 0.0, "attention": 0.0}, "keypoint": {"sharpness": 0.0},
           "detection-scores": {"classes": 1e6}}.get(name, {})  # fmt: skip
    values = [made(name, {**few, "temperature": t}).value().item() for t in (100.0, 200.0)]
    assert values[0] > 0
    assert values[1] / values[0] == pytest.approx(2.0**power, rel=0.05)


@pytest.mark.parametrize("name", RESPONSES)
def test_one_class_alone_has_nothing_to_tell(name):
    loss = LOSSES.get(name).make()
    student = torch.tensor([[3.0], [-1.0], [0.5]], requires_grad=True)
    teacher = torch.tensor([[1.0], [0.0], [2.0]])
    value = loss(student, teacher, torch.zeros(3, dtype=torch.int64))
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()
    if name not in ("mse-logits", "huber-logits"):  # which compare the logits themselves
        assert value.item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("name", RESPONSES)
def test_a_batch_of_one_class_is_as_good_as_any(name):
    ready = made(name, {}, torch.float32)
    ready.labels = torch.ones_like(ready.labels)
    value = ready.value()
    value.backward()
    assert value.isfinite()
    assert ready.student[0].grad.isfinite().all()
    assert value.item() > 0
