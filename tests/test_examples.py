"""The example of each task, from its recipe to the compiled files."""

import re
import runpy
from pathlib import Path

import pytest

from edgekd.registry import TASKS
from edgekd.run.compress import run_plan
from edgekd.run.plan.make import make_plan
from edgekd.run.request import make_request
from edgekd.values.recipe import load_recipe

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted(path.parent.name for path in (ROOT / "examples").glob("*/recipe.toml"))
METRICS = {
    "detection": "F1 at IoU 0.5", "segmentation": "mean IoU", "keypoints": "PCK", "ctc": "1 - CER",
    "language_model": "token accuracy", "regression": "within tolerance", "graph": "top-1",
    "policy": "action agreement", "cross_modal": "top-1", "time_series": "top-1",
    "translation": "token accuracy", "ranking": "AUROC",
}  # fmt: skip
FURTHER = {
    "segmentation": "pixel_accuracy", "keypoints": "distance_cells", "ctc": "exact_match",
    "language_model": "cross_entropy_nats", "regression": "absolute_error",
    "policy": "episode_return", "translation": "character_error_rate",
}  # fmt: skip
FLOAT = ("language_model", "graph", "translation", "ranking")
"""Attention and products of two activations stay in float between int8 layers."""

ROUNDED = ("translation",)
"""T5's attention does not scale its logits: a softmax this steep makes several steps of one."""


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> str:
    """This machine with the ONNX and TFLite backends, without TVM and without budgets."""
    text = (ROOT / "targets" / "x86.toml").read_text()
    text = re.sub(r"\[backends\.tvm\][^\[]*", "", text).split("[budgets]")[0]
    path = tmp_path_factory.mktemp("targets") / "pc.toml"
    path.write_text(text.replace('name = "x86"', 'name = "pc"'))
    return str(path)


def request_of(name: str, target: str, out: Path, *settings: str):
    recipe = ROOT / "examples" / name / "recipe.toml"
    return make_request(recipe, {"target": target, "out": out, "settings": settings, "quick": True})


def test_every_task_has_an_example():
    used = {METRICS[name] for name in EXAMPLES} - {"AUROC"}  # a metric of the example's own
    assert sorted(EXAMPLES) == sorted(METRICS)
    shown = set(TASKS.names()) - {
        "own",
        "multilabel",
        "boxes",
        "seq2seq",
        "embedding",
    }  # run by other tests
    assert used == {TASKS.get(name).make.metric for name in shown}


def test_the_script_that_trains_the_teachers_knows_the_examples():
    script = runpy.run_path(str(ROOT / "examples" / "train_teachers.py"))
    assert set(EXAMPLES) >= {*script["EPOCHS"], *script["RATES"]}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_read_and_its_teacher_lies_beside_it(name):
    recipe = load_recipe(ROOT / "examples" / name / "recipe.toml")
    assert recipe.model.weights is not None
    assert (recipe.folder / recipe.model.weights).is_file()
    assert [stage["kind"] for stage in recipe.stages] == ["distill", "quantize"]


@pytest.mark.long
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_from_its_recipe_to_the_compiled_files(name, target, tmp_path):
    # One epoch on graphs leaves outputs within so small a range that rounding is many steps of it.
    epochs = 40 if name == "graph" else 1
    request = request_of(name, target, tmp_path, f"stage.distill.epochs={epochs}")
    planned = make_plan(request)
    assert planned.data.task.metric == METRICS[name]
    report = run_plan(planned, lambda *_: None)
    assert report.data.metric == METRICS[name]
    (found,) = report.targets
    assert {one.format for one in found.artifacts} == {"onnx", "tflite"}
    for one in found.artifacts:
        assert one.precision == "int8"
        assert one.accuracy is not None
        assert one.accuracy_ci is not None
        assert one.agreement_with_teacher is not None
        assert one.parity is not None
        rounded = name in ROUNDED and "no single layer" in str(one.parity.reason)
        assert one.parity.verdict == "pass" or rounded, one.parity
        metrics = {each.metric: each.value for each in one.measurements}
        if name in FURTHER:
            assert metrics[FURTHER[name]] is not None
        islands = " in float" in " ".join(one.lineage)
        assert islands == (name in FLOAT), one.lineage
    assert (tmp_path / "report.html").read_text().count(METRICS[name]) >= (METRICS[name] != "top-1")
