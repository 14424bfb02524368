"""The Python API: what `import edgekd` offers, and that objects go through a whole run."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small_target import SMALL_TARGET
from torch import nn
from torch.utils.data import TensorDataset

import edgekd
from edgekd.errors import EdgekdError
from edgekd.run.request import make_request

PUBLIC = [
    "Cluster", "Distill", "EdgekdError", "Factorize", "InputError", "Prune", "Quantize", "Report",
    "SearchOptions", "Target", "ToolError", "__version__", "bench", "compress", "diagnose",
    "inspect", "load_report", "load_target", "loss", "plan", "search",
]  # fmt: skip


def network(width: int = 8) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(width, 4),
    )  # fmt: skip


def samples(count: int, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 4
    x = torch.rand(count, 1, 8, 8, generator=generator) + y.view(-1, 1, 1, 1).float()
    return TensorDataset(x, y)


DATA = {"train": samples(80, 0), "test": samples(40, 1)}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SMALL_TARGET)
    return path


def test_the_public_names_are_these_and_each_is_there():
    assert sorted(edgekd.__all__) == sorted(PUBLIC)
    assert set(PUBLIC) <= set(dir(edgekd))
    for name in PUBLIC:
        assert getattr(edgekd, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'edgekd' has no attribute 'compres'"):
        _ = edgekd.compres


def test_importing_it_imports_nothing_heavy_and_sets_nothing():
    code = (
        "import os, sys, logging, warnings; before = dict(os.environ), list(warnings.filters); "
        "import edgekd; "
        "assert before == (dict(os.environ), list(warnings.filters)); "
        "print([name for name in ('torch', 'numpy', 'pydantic', 'typer', 'rich') "
        "if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_a_function_is_not_hidden_by_a_package_of_its_name():
    code = "import edgekd.benchmark.files, edgekd.api, edgekd; print(callable(edgekd.bench))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "True"


def test_a_plan_of_objects_says_what_would_run(target, tmp_path):
    plan = edgekd.plan(
        network(), data=DATA, target=target, stages=[edgekd.Quantize()], out=tmp_path / "run"
    )
    text = "\n".join(plan.lines())
    assert "72 training, 8 validation and 40 test samples" in text
    assert "teacher: Sequential" in text
    assert "small: 1. quantize" in text


class Fixed(nn.Module):
    """Two convolutions; a maximum over the channels fixes those of the second."""

    def __init__(self) -> None:
        super().__init__()
        self.free, self.fixed = nn.Conv2d(1, 16, 3), nn.Conv2d(16, 8, 3)
        self.last = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.fixed(self.free(x)).amax(1).flatten(1))


@pytest.mark.slow
def test_the_plan_and_the_report_say_what_pruning_leaves_alone(target, tmp_path):
    keys = {"data": DATA, "target": target, "out": tmp_path / "run"}
    stages = [edgekd.Prune(amount=0.5, epochs=0)]
    report = edgekd.compress(Fixed(), stages=stages, quick=True, **keys)
    # 16 * 9 * 8 + 8 of 16 * 10 + 16 * 9 * 8 + 8 + 17 * 4 parameters.
    note = "1 layer (84% of the parameters) is not pruned: 'fixed': their max is taken"
    assert report.stages[0].notes == (note,)
    plan = edgekd.plan(Fixed(), stages=stages, **keys)
    assert f"small: 1. prune: {note}" in plan.lines()


def test_a_module_and_data_sets_go_through_a_whole_run(target, tmp_path):
    model = network()
    before = [parameter.clone() for parameter in model.parameters()]
    report = edgekd.compress(
        model,
        data=DATA,
        target=target,
        student=network(4),
        stages=[
            edgekd.Distill(epochs=1, losses=[edgekd.loss("kl", 0.9, temperature=2.0)]),
            {"kind": "quantize", "method": "calibrate"},
        ],
        budgets={"size_kb": 100},
        out=tmp_path / "run",
        quick=True,
        settings={"calibration.samples": 16},
    )
    assert isinstance(report, edgekd.Report)
    assert report.folder == (tmp_path / "run").resolve()
    assert [stage.kind for stage in report.stages] == ["distill", "quantize"]
    (artifact,) = report.targets[0].artifacts
    assert (report.folder / artifact.path).is_file()
    assert artifact.precision == "int8"
    assert [(budget.metric, budget.verdict) for budget in artifact.budgets] == [("size_kb", "pass")]
    assert report.command == "edgekd.compress()"
    assert "<Report" in repr(report)
    assert report._repr_html_().startswith('<iframe srcdoc="')
    for parameter, kept in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(parameter, kept, rtol=0, atol=0)
    again = edgekd.load_report(report.folder)
    assert again.verdict == report.verdict
    found = edgekd.inspect(report.folder / artifact.path)
    assert found.ops["QuantizeLinear"] > 0
    (row,) = edgekd.bench(report.folder / artifact.path, quick=True)
    assert row.measurements[0].kind == "measured"


def test_a_changed_module_is_another_model_and_the_same_one_is_reused(target, tmp_path):
    def run(model: nn.Module) -> list[bool]:
        plan = edgekd.plan(
            model, data=DATA, target=target, stages=[edgekd.Distill(epochs=1)], out=tmp_path / "run"
        )
        return [stage.key for stage in plan.targets[0].stages]

    changed = network()
    with torch.no_grad():
        next(changed.parameters())[0, 0, 0, 0] += 0.5
    assert run(network()) == run(network())
    assert run(network()) != run(changed)


def test_a_recipe_of_a_run_with_objects_says_why_it_can_not_be_repeated(target, tmp_path):
    request = make_request(network(), {"data": DATA, "target": target, "out": tmp_path / "run"})
    from edgekd.run.reporting import resolved_recipe

    (tmp_path / "recipe.toml").write_text(resolved_recipe(request))
    with pytest.raises(EdgekdError) as caught:
        edgekd.plan(tmp_path / "recipe.toml", target=target, out=tmp_path / "again")
    said = str(caught.value)
    assert "the data was an object in Python, which a recipe can't hold" in said


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"data": 3}, "'the data' returned int"),
        ({"stages": [{"kind": "destil"}]}, "unknown stage 'destil'"),
        ({"budgets": {"latency": 5}}, "latency"),
        ({"seed": -1}, "-1 is not a valid seed"),
        ({"target": "x68"}, "x68"),
        ({"target": []}, "no target"),
        ({"accept": ["guessed"]}, "guessed"),
    ],
)
def test_wrong_arguments_are_input_errors(asked, words, target, tmp_path):
    given = {"data": DATA, "target": target, "out": tmp_path / "run", **asked}
    with pytest.raises(edgekd.InputError) as caught:
        edgekd.compress(network(), **given)
    assert words in str(caught.value)
    assert caught.value.exit_code == 2


def test_an_unknown_model_argument_is_refused_with_the_allowed_ones(target):
    with pytest.raises(edgekd.InputError, match=r"is not a model .*nn\.Module"):
        edgekd.plan(3.5, target=target)  # type: ignore[arg-type]


def test_a_pair_of_arrays_is_data_too(target, tmp_path):
    x, y = (tensor.numpy() for tensor in DATA["train"].tensors)
    data = {"source": ((x, y), (x[:8], y[:8])), "limit": 40}
    plan = edgekd.plan(network(), data=data, target=target, out=tmp_path / "run")
    assert len(plan.data.train) + len(plan.data.validation) == 40
    assert isinstance(x, np.ndarray)


def test_the_report_on_disk_is_the_one_that_is_returned(target, tmp_path):
    report = edgekd.compress(
        network(), data=DATA, target=target, out=tmp_path / "run", quick=True, progress=False
    )
    stored = json.loads((tmp_path / "run" / "report.json").read_text())
    assert stored["verdict"] == report.verdict
    assert stored["targets"][0]["artifacts"][0]["sha256"] == report.targets[0].artifacts[0].sha256
