"""The plan judges the samples that ranges will be calibrated on."""

import numpy as np
import pytest

from edgekd.errors import EdgekdError
from edgekd.run.plan.make import make_plan
from edgekd.run.request import make_request

RECIPE = """
[model]
factory = "edgekd.models.resnet:resnet8"
arguments = {{ channels = 1, widths = [8, 16, 16] }}
[data]
source = "few.npz"
[calibration]
samples = {samples}
[[stages]]
kind = "{kind}"
"""


def plan(folder, samples, kind="quantize", x=None):
    y = np.arange(80) % 10
    x = np.random.default_rng(0).random((80, 1, 8, 8), dtype=np.float32) if x is None else x
    np.savez(folder / "few.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    (folder / "r.toml").write_text(RECIPE.format(samples=samples, kind=kind))
    return make_plan(make_request(folder / "r.toml", {"target": "x86", "out": folder / "out"}))


def test_one_sample_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(EdgekdError, match="one sample can't show the ranges") as caught:
        plan(tmp_path, 1)
    assert "calibration.samples = 256" in caught.value.hint


@pytest.mark.slow
def test_few_samples_are_a_note_of_the_plan(tmp_path):
    lines = plan(tmp_path, 8).lines()
    assert "note: calibration: 8 samples are few; 32 or more show rare values" in lines
