"""A stage's own entry in the report: its accuracy with the interval that files have too."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from edgekd.accuracy import accuracy_measurement
from edgekd.candidate import Candidate
from edgekd.data.samples import Data, Samples
from edgekd.pipeline import run_stage
from edgekd.store import Store


class Guess(nn.Module):
    """Tells class 1 where the first value is positive."""

    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        type(self).calls += len(x)
        return torch.stack([-x[:, 0], x[:, 0]], 1)


@pytest.fixture
def plan(tmp_path):
    x = torch.ones(80, 2)
    x[60:] = -1.0
    samples = Samples(x, torch.ones(80, dtype=torch.int64))
    return SimpleNamespace(
        data=Data("own", samples, samples, samples, classes=2),
        store=Store(tmp_path / "store"),
        request=SimpleNamespace(resume=True),
        context=lambda *given: None,
        start=SimpleNamespace(example=x[:1]),
    )


def test_a_stages_accuracy_has_its_bootstrap_interval_and_the_test_set_runs_once(plan):
    stage = SimpleNamespace(run=lambda candidate, context: candidate)
    planned = SimpleNamespace(kind="prune", key="0" * 64, stage=stage)
    candidate = Candidate(Guess(), plan.data.example)
    Guess.calls = 0
    _, report = run_stage(plan, None, planned, candidate, lambda what, done, total: None)
    assert 80 <= Guess.calls < 160, "once, and an example whose cost is counted"
    right = torch.tensor([1.0] * 60 + [0.0] * 20).double().numpy()
    assert report.accuracy == 0.75
    assert report.accuracy_ci == accuracy_measurement(right, "host").ci
    assert report.accuracy_ci == pytest.approx((0.655, 0.845), abs=0.02)
    _, again = run_stage(plan, None, planned, candidate, lambda what, done, total: None)
    assert again == report.model_copy(update={"cached": True})
