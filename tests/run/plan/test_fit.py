"""The plan refuses a model that can't fit, and none that fits when it is computed in patches."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from edgekd.errors import Collector
from edgekd.run.plan.checks import check_fit
from edgekd.values.candidate import Candidate
from edgekd.values.target import load_target

TARGET = load_target("cortex-m7")  # 320 KiB of memory


def faults(target, size):
    """For a convolution of one channel to eight over an image."""
    module = nn.Conv2d(1, 8, 3, padding=1)
    plan = SimpleNamespace(
        start=Candidate(module, torch.zeros(1, 1, size, size)),
        request=SimpleNamespace(recipe=SimpleNamespace(stages=[])),
    )
    collect = Collector()
    check_fit(plan, target, collect)
    return [str(one) for one in collect.faults]


@pytest.mark.parametrize(("size", "patched", "refused"), [(180, 0, 0), (200, 0, 1), (600, 1, 1)])
def test_a_backend_that_computes_in_patches_needs_room_for_the_input_alone(size, patched, refused):
    """180 * 180 * (1 + 8) is 291,600 values, 200 * 200 * 9 is 360,000, 600 * 600 as many."""
    assert "c" in TARGET.backends
    assert len(faults(TARGET, size)) == patched
    without = TARGET.model_copy(update={"backends": {"tflite": {}}})
    assert len(faults(without, size)) == refused
    assert all("of activations; cortex-m7 has 320.0 KiB" in one for one in faults(without, size))
