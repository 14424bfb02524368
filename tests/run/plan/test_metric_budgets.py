"""A budget on what a task measures beside its accuracy, which other tasks don't measure."""

import pytest
import torch
from torch import nn

import edgekd
from edgekd.data.tasks import TASKS, metric_directions, task_of
from edgekd.errors import InputError

STAGES = [{"kind": "distill", "epochs": 1, "batch_size": 8}]


def planned(task, y, **budgets):
    x = torch.randn(40, 4)
    parts = {"train": (x, y), "test": (x, y), "task": task}
    return edgekd.plan(
        nn.Linear(4, 2), data=parts, target="x86", backends=("onnx",), stages=STAGES,
        budgets=budgets,
    )  # fmt: skip


def test_a_metric_of_another_task_is_refused_before_training():
    with pytest.raises(InputError) as caught:
        planned("classification", torch.arange(40) % 2, bleu=0.3)
    assert caught.value.message == "the task classification does not measure 'bleu'"
    assert caught.value.where == "--budget bleu"
    assert caught.value.allowed == "accuracy, accuracy_drop"


def test_an_environment_that_nothing_acts_in_returns_nothing():
    with pytest.raises(InputError, match="policy does not measure 'episode_return'"):
        planned("policy", torch.arange(40) % 2, episode_return=100.0)


def test_a_metric_of_the_task_is_a_line_of_the_plan():
    plan = planned("regression", torch.randn(40, 2), absolute_error=0.5)
    assert "x86: budget absolute_error <= 0.5" in plan.lines()


def test_tasks_that_share_a_metric_agree_which_values_are_better():
    found = metric_directions()
    assert found["word_error_rate"] == "lower"
    assert found["exact_match"] == "higher"
    for name in TASKS.names():
        if name not in ("own", "boxes"):
            make = TASKS.get(name).make
            task = task_of({"name": name, **getattr(make, "example", {})}, "data.task")
            assert {metric: found[metric] for metric in task.directions} == task.directions
