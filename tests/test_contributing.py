"""A loss, a criterion, a task, a backend and a target in one file each, as CONTRIBUTING says."""

import json
import os
import re
import subprocess
import sys
import tomllib
import zlib
from pathlib import Path

import numpy as np
import pytest
from pages import ROOT, blocks_of
from sklearn.datasets import load_digits

PAGE = ROOT / "CONTRIBUTING.md"
RECIPE = """
[model]
factory = "edgekd.models.resnet:resnet8"
arguments = { channels = 1 }

[data]
source = "grades.npz"
task = "grades"

[calibration]
samples = 16

[[stages]]
kind = "distill"
epochs = 1
losses = [{ name = "absolute", weight = 1.0, temperature = 2.0 }]

[[stages]]
kind = "prune"
criterion = "spread"
amount = 0.5
epochs = 1
losses = [{ name = "absolute" }]

[[stages]]
kind = "quantize"
"""


@pytest.fixture
def edgekd(tmp_path):
    """The package of the page, installed into a folder; runs edgekd where the target lies."""
    for block in blocks_of(PAGE):
        if block.title:
            path = tmp_path / block.title
            path.parent.mkdir(exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
    (tmp_path / "edgekd_kiosk/__init__.py").touch()
    install(tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"], tmp_path)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        "EDGEKD_CACHE": str(tmp_path / "cache"),
    }

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "edgekd", *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def install(project: dict, folder: Path) -> None:
    """What an installer leaves of a package beside its modules."""
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    names = {"Metadata-Version": "2.1", "Name": project["name"], "Version": project["version"]}
    (info / "METADATA").write_text("".join(f"{key}: {value}\n" for key, value in names.items()))
    groups = [
        f"[{group}]\n" + "".join(f"{name} = {place}\n" for name, place in points.items())
        for group, points in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(groups))


def test_methods_lists_and_explains_what_another_package_adds(edgekd):
    listed = edgekd("methods")
    for kind, name in (("loss", "absolute"), ("criterion", "spread"), ("task", "grades")):
        assert re.search(rf"^{kind} +{name} ", listed, re.MULTILINE)
    assert "|z_t - z_s| / T, the mean over classes and batch." in listed
    explained = edgekd("methods", "absolute")
    assert "Author 2026, equation 3" in explained
    assert "temperature" in explained
    assert "kiosk" in edgekd("targets")


@pytest.mark.slow
def test_a_run_uses_the_loss_criterion_task_backend_and_target_of_another_package(edgekd, tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    digits = load_digits()
    x, y = digits.images[:, None].astype(np.float32) / 16, digits.target
    np.savez(
        tmp_path / "grades.npz",
        x_train=x[:200], y_train=y[:200], x_test=x[1700:], y_test=y[1700:],
    )  # fmt: skip
    edgekd("compress", "recipe.toml", "--target", "kiosk", "--quick", "--out", "run")
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert report["data"]["metric"] == "grade points"
    assert report["data"]["task"] == "grades"
    assert "absolute" in report["stages"][0]["line"]
    assert "spread" in report["stages"][1]["line"]
    (target,) = report["targets"]
    assert target["title"] == "The ticket kiosk"
    files = {artifact["format"]: artifact for artifact in target["artifacts"]}
    assert set(files) == {"onnx", "checked"}
    original = (tmp_path / "run" / files["onnx"]["path"]).read_bytes()
    checked = (tmp_path / "run" / files["checked"]["path"]).read_bytes()
    assert checked == zlib.crc32(original).to_bytes(4, "little") + original
    assert "the boot loader unpacks it" in files["checked"]["reasons"]["accuracy"]
    assert 0.0 <= files["onnx"]["accuracy"] <= 1.0
    edgekd("verify", "run")
    assert "model.onnx.checked" in edgekd("report", "run")
    edgekd("doctor")
