"""Tasks of the user's own: functions that a recipe names."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from edgekd.data.tasks import task_of
from edgekd.data.tasks.own import own
from edgekd.errors import InputError
from edgekd.factories import importable
from edgekd.installed import has_module

OUTPUTS = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [1.0, 0.0]])
Y = torch.tensor([0, 1, 1, 0])


def right(outputs: Tensor, y: Tensor) -> Tensor:
    return (outputs.argmax(1) == y).double()


def f1(outputs: Tensor, y: Tensor) -> float:
    found = outputs.argmax(1)
    hits = float(((found == 1) & (y == 1)).sum())
    return 2 * hits / float((found == 1).sum() + (y == 1).sum())


def errors(outputs: Tensor, y: Tensor) -> float:
    return float((outputs.argmax(1) != y).double().mean())


def test_a_metric_may_score_each_sample():
    assert own(right).judged(OUTPUTS, Y).tolist() == [1, 1, 0, 1]
    assert own(right).score(OUTPUTS, Y).tolist() == [1, 1, 0, 1]


def test_a_metric_may_be_one_number_for_all_samples():
    task = own(f1)
    assert float(task.judged(OUTPUTS, Y)) == pytest.approx(2 / 3)  # 1 found of 2, none wrong
    with pytest.raises(InputError, match="f1 is one number for all samples"):
        task.score(OUTPUTS, Y)


def test_of_an_error_rate_the_rest_is_reported():
    task = own(errors, better="lower")
    assert float(task.judged(OUTPUTS, Y)) == 0.75
    assert task.metric == "1 - errors"


def test_a_metric_above_one_is_refused_with_what_to_do():
    with pytest.raises(InputError, match="the metric gives 75") as caught:
        own(lambda outputs, y: 75.0).judged(OUTPUTS, Y)
    assert 'better = "lower"' in caught.value.hint


def test_a_metric_of_another_length_is_refused():
    with pytest.raises(InputError, match=r"a tensor of shape \(3,\) for 4 samples"):
        own(lambda outputs, y: torch.ones(3)).judged(OUTPUTS, Y)


def test_the_metric_sees_what_the_decoder_gives():
    task = own(lambda classes, y: (classes == y).double(), decode=lambda outputs: outputs.argmax(1))
    assert task.judged(OUTPUTS, Y).tolist() == [1, 1, 0, 1]


def test_a_class_with_update_and_compute_is_a_metric():
    class Share:
        def __init__(self, of: int) -> None:
            self.of, self.hits, self.count = of, 0, 0

        def update(self, found: Tensor, y: Tensor) -> None:
            self.hits += int((found.argmax(1) == self.of).sum())
            self.count += len(y)

        def compute(self) -> Tensor:
            return torch.tensor(self.hits / self.count)

    assert float(own(Share, metric_arguments={"of": 0}).judged(OUTPUTS, Y)) == 0.75


def test_functions_get_the_named_output_or_all_of_them():
    outputs = {"a": OUTPUTS, "b": OUTPUTS.flip(1)}
    assert own(right).main(outputs) is outputs
    assert own(right, output="b").main(outputs) is outputs["b"]


def test_without_a_loss_the_targets_teach_nothing():
    outputs = OUTPUTS.clone().requires_grad_()
    loss = own(right).label_loss(outputs, Y)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0
    assert outputs.grad is not None
    assert not outputs.grad.any()


def test_a_loss_that_is_no_scalar_is_refused():
    with pytest.raises(InputError, match=r"the loss gives a tensor of shape \(4,\)"):
        own(right, loss=lambda outputs, y: outputs[:, 0]).label_loss(OUTPUTS, Y)


def test_what_the_functions_raise_is_found_before_training():
    fault = own(lambda outputs, y: outputs["logits"]).output_fault(OUTPUTS, Y, 0, "model")
    assert fault is not None
    assert "the metric fails on the network's outputs" in fault.message


def test_a_recipe_names_functions_beside_it(tmp_path: Path):
    code = "def right(outputs, y):\n    return (outputs.argmax(1) == y).double()\n"
    (tmp_path / "mine_of_recipe.py").write_text(code)
    with importable(tmp_path):
        task = task_of({"metric": "mine_of_recipe:right"}, "data.task")
        assert task.judged(OUTPUTS, Y).tolist() == [1, 1, 0, 1]
        before = repr(task)
        with pytest.raises(InputError, match="has no 'rigt'"):
            task_of({"metric": "mine_of_recipe:rigt"}, "data.task")
    (tmp_path / "mine_of_recipe.py").write_text(code + "# changed\n")
    assert repr(task) != before  # results depend on the file


def test_networks_agree_by_the_cosine_of_their_outputs():
    task = own(right)
    others = torch.tensor([[4.0, 0.0], [0.0, -1.0], [3.0, 3.0], [0.0, 1.0]])
    assert task.agreement(OUTPUTS, others).tolist() == pytest.approx([1, 0, 0.5**0.5, 0])


@pytest.mark.skipif(not has_module("torchmetrics"), reason="torchmetrics is not installed")
def test_a_metric_may_be_a_class_of_torchmetrics():
    arguments = {"task": "multiclass", "num_classes": 2, "average": "macro"}
    task = task_of({"metric": "F1Score", "metric_arguments": arguments}, "data.task")
    # class 0: 2 hits, 1 wrong: 4 / 5; class 1: 1 hit, 1 missed: 2 / 3
    assert float(task.judged(OUTPUTS, Y)) == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert task.metric == "F1Score"


def test_torchmetrics_that_is_missing_gives_the_pip_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("edgekd.data.tasks.own.has_module", lambda name: False)
    with pytest.raises(InputError, match="torchmetrics is not installed") as caught:
        task_of({"metric": "F1Score"}, "data.task")
    assert "edgekd[metrics]" in caught.value.hint
