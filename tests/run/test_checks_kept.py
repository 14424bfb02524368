"""What the plan asks, and what it need not ask again."""

from dataclasses import replace

import numpy as np
import pytest

from edgekd.errors import EdgekdError, InputError
from edgekd.run.lock.inputs import recipe_inputs
from edgekd.run.plan import keep_plan
from edgekd.run.plan.make import make_plan
from edgekd.run.reporting import resolved_recipe
from edgekd.run.request import make_request
from edgekd.stages.quantize import Quantize

RECIPE = """
[model]
factory = "edgekd.models.resnet:resnet8"
arguments = {{ channels = 1, widths = [8, 16, 16] }}
[data]
source = "few.npz"
[calibration]
samples = 8
[[stages]]
kind = "quantize"
ranges = "{ranges}"
"""


@pytest.fixture
def planned(tmp_path):
    """Plans the recipe for x86, its ranges and other words of the command line given."""
    y = np.arange(20) % 10
    x = np.random.default_rng(0).random((20, 1, 8, 8), dtype=np.float32)
    np.savez(tmp_path / "few.npz", x_train=x, y_train=y, x_test=x, y_test=y)

    def plan(ranges: str = "minmax", target: str = "x86", **words: object):
        (tmp_path / "r.toml").write_text(RECIPE.format(ranges=ranges))
        asked = {"target": target, "out": tmp_path / "out", **words}
        return make_plan(make_request(tmp_path / "r.toml", asked))

    return plan


@pytest.fixture
def refusing(monkeypatch):
    """From here on the stage refuses whatever it is asked."""

    def begin() -> None:
        fault = InputError("asked again", where="stages.1")
        monkeypatch.setattr(Quantize, "check", lambda *_: [fault])

    return begin


def test_checks_that_were_passed_are_not_run_again_for_the_same_plan(planned, refusing):
    keep_plan(planned())
    refusing()
    assert planned().targets[0].stages[0].kind == "quantize"


@pytest.mark.parametrize(
    "other",
    [{"ranges": "mean-minmax"}, {"target": "raspberry-pi-5"}, {"resume": False}, {"seed": 1}],
)
def test_whatever_the_checks_depend_on_has_them_run_again(planned, refusing, other):
    keep_plan(planned())
    refusing()
    with pytest.raises(EdgekdError, match="asked again"):
        planned(**other)


def test_a_plan_alone_leaves_nothing_behind(planned, tmp_path):
    planned()
    assert not (tmp_path / "out" / "stages").exists()


def test_a_budget_of_the_command_line_takes_the_recipes_place_in_recipe_toml(planned):
    plan = planned(settings=["budgets.latency_ms=5"], budgets=["latency_us=300", "accuracy=0.9"])
    assert plan.request.resolved.budgets == {"latency_us": 300.0, "accuracy": 0.9}


def test_the_plan_says_which_budgets_are_lower_limits(planned):
    lines = planned(budgets=["latency_us=300", "accuracy=0.9"]).lines()
    assert {"x86: budget latency_us <= 300", "x86: budget accuracy >= 0.9"} <= set(lines)


def test_other_samples_to_calibrate_with_are_noticed_in_a_set_of_the_same_name(planned, tmp_path):
    def key(ids: list[int]) -> str:
        known = f'name = "own"\ndata = "few.npz"\npreprocessing = "none"\nids = {ids}\n'
        (tmp_path / "own.toml").write_text(known)
        (stage,) = planned(settings=["calibration.set=own.toml"]).targets[0].stages
        return stage.key

    assert key([1, 2, 3]) == key([1, 2, 3]) != key([1, 2, 4])


def test_recipe_toml_plans_the_same_from_the_folder_of_the_run(planned, tmp_path):
    known = 'name = "own"\ndata = "few.npz"\npreprocessing = "none"\nids = [1, 2]\n'
    (tmp_path / "own.toml").write_text(known)
    np.save(tmp_path / "g.npy", np.arange(20) % 2)
    groups = '[{ name = "groups", groups = "g.npy" }]'
    first = planned(settings=["calibration.set=own.toml", f"report.diagnostics={groups}"])
    run = tmp_path / "out" / "deeper"
    run.mkdir(parents=True)
    request = replace(first.request, out=run)
    (run / "recipe.toml").write_text(resolved_recipe(request))
    second = make_plan(make_request(run / "recipe.toml", {"target": "x86", "out": run}))
    assert second.targets[0].stages[0].key == first.targets[0].stages[0].key
    assert report_files(second) == report_files(first) == [tmp_path / "g.npy"]


def report_files(plan):
    found = recipe_inputs(plan.request.recipe)
    return [path.resolve() for place, path in found.items() if place.startswith("report")]


def test_a_file_of_groups_that_is_not_there_is_refused_by_the_plan(planned):
    groups = '[{ name = "groups", groups = "g.npy" }]'
    with pytest.raises(EdgekdError, match=r"g\.npy: no such file"):
        planned(settings=[f"report.diagnostics={groups}"])
