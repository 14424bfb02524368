"""One build in two folders, byte by byte, and what `verify` says when one of its files changes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekd.firmware.emulation import missing_tools

pytestmark = pytest.mark.slow

RECIPE = """
seed = 7
[model]
factory = "edgekd.models.resnet:resnet8"
arguments = { channels = 1, classes = 4, widths = [8, 8, 8] }
[data]
source = "data.npz"
[metadata]
name = "crane hook"
version = "1.0"
licence_file = "LICENCE.txt"
labels = ["none", "left", "right", "both"]
[[stages]]
kind = "quantize"
method = "calibrate"
"""
SHIPPED = Path(__file__).parents[3] / "targets"


def edgekd(*arguments, cwd):
    command = [sys.executable, "-m", "edgekd", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment)


def write_inputs(folder):
    folder.mkdir(parents=True)
    numbers = np.random.default_rng(0)
    rows = {
        name: numbers.random((count, 1, 8, 8), dtype=np.float32)
        for name, count in (("x_train", 80), ("x_test", 40))
    }
    labels = {"y_train": np.arange(80) % 4, "y_test": np.arange(40) % 4}
    np.savez(folder / "data.npz", **rows, **labels)
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "LICENCE.txt").write_text("Do as you like.\n")
    text = (SHIPPED / "ethos-u55.toml").read_text()
    text = text.replace('name = "ethos-u55"', 'name = "npu"', 1)
    (folder / "targets").mkdir()
    (folder / "targets" / "npu.toml").write_text(text + "\n[backends.c]\n")


def build(folder, out):
    return edgekd(
        "compress", "recipe.toml", "--target", "npu", "--out", out, "--quick", "--offline",
        "--no-progress", "--depfile", "deps.d", cwd=folder,
    )  # fmt: skip


@pytest.fixture(scope="module")
def builds(tmp_path_factory):
    first = tmp_path_factory.mktemp("one") / "project"
    second = tmp_path_factory.mktemp("two") / "a deeper folder" / "elsewhere"
    results = []
    for folder, out in ((first, "run"), (second, "build/out/run")):
        write_inputs(folder)
        done = build(folder, out)
        # Nothing here runs on the target, so the budgets are not verified; nothing else is wrong.
        assert done.returncode == 4, done.stderr
        results.append((folder, folder / out))
    return results


def files_of(run):
    return sorted(path for path in (run / "artifacts").rglob("*") if path.is_file())


def test_every_file_and_the_lock_are_the_same_bytes(builds):
    (_, first), (_, second) = builds
    names = [[path.relative_to(run) for path in files_of(run)] for run in (first, second)]
    assert names[0] == names[1]
    made = {path.name for path in names[0]}
    assert {"model.tflite", "model_vela.tflite", "model.c", "model.h", "teacher.tflite"} <= made
    for path in (*names[0], Path("edgekd.lock")):
        assert (first / path).read_bytes() == (second / path).read_bytes(), path


def test_sources_made_of_them_are_the_same_bytes(builds, tmp_path):
    for number, (_, run) in enumerate(builds):
        for kind in ("tflm", "c"):
            out = tmp_path / str(number) / kind
            model = run / "artifacts" / "npu" / "model.tflite"
            done = edgekd(
                "firmware", kind, str(model), "--out", str(out), "--name", "hook", cwd=tmp_path
            )
            assert done.returncode == 0, done.stderr
            headers = "".join(each.read_text() for each in out.glob("hook*.h"))
            assert '#define HOOK_NAME "crane hook"' in headers
    for kind in ("tflm", "c"):
        first, second = (tmp_path / str(number) / kind for number in (0, 1))
        for path in sorted(first.iterdir()):
            assert path.read_bytes() == (second / path.name).read_bytes(), path


def test_no_path_time_or_address_gets_into_what_is_made(builds):
    for folder, run in builds:
        for path in (*files_of(run), run / "edgekd.lock"):
            content = path.read_bytes()
            for word in (str(folder), str(folder.parent), "site-packages", "/usr/lib/python"):
                assert word.encode() not in content, (path, word)


def test_the_lock_names_inputs_tools_and_outputs(builds):
    (_, run), _ = builds
    lock = json.loads((run / "edgekd.lock").read_text())
    assert set(lock["inputs"]) == {"data.source", "metadata.licence_file"}
    assert set(lock["targets"]) == {"npu"}
    assert {"edgekd", "python", "torch", "litert-torch", "ethos-u-vela"} <= set(lock["tools"])
    made = {f"artifacts/npu/{name}" for name in ("model.tflite", "model.c", "model.h")}
    assert set(lock["outputs"]) >= made
    assert lock["seed"] == 7


def test_the_dependency_file_names_every_input(builds):
    folder, _ = builds[0]
    text = (folder / "deps.d").read_text()
    assert text.startswith("run/edgekd.lock:")
    for name in ("recipe.toml", "data.npz", "LICENCE.txt", "npu.toml"):
        assert name in text


def test_verify_holds_the_run_against_its_lock(builds):
    folder, run = builds[0]
    done = edgekd("verify", str(run), cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "inputs (2) and targets (1) verified" in done.stdout
    assert "artifacts/npu/model.tflite: parity verified over 40 samples" in done.stdout
    if not missing_tools():
        assert "artifacts/npu/model.c: parity verified over 40 samples" in done.stdout
    for path, words in (
        (run / "artifacts" / "npu" / "model_vela.tflite", "model_vela.tflite'"),
        (run / "artifacts" / "npu" / "model.h", "the output 'artifacts/npu/model.h'"),
        (folder / "data.npz", "the input 'data.source'"),
        (folder / "LICENCE.txt", "the input 'metadata.licence_file'"),
        (run / "recipe.toml", "the recipe 'recipe.toml'"),
    ):
        before = path.read_bytes()
        changed = before.replace(b"crane hook", b"tower hook")
        path.write_bytes(changed if path.name == "recipe.toml" else before + b"\0")
        done = edgekd("verify", str(run), cwd=folder)
        path.write_bytes(before)
        assert done.returncode == 2, path
        assert words in done.stderr
    left = run / "artifacts" / "npu" / "of_an_earlier_run.tflite"
    left.write_bytes(b"")
    done = edgekd("verify", str(run), cwd=folder)
    left.unlink()
    assert done.returncode == 2
    assert "the lock doesn't list 'artifacts/npu/of_an_earlier_run.tflite'" in done.stderr


def test_the_report_tells_measured_simulated_and_estimated_apart(builds):
    _, run = builds[0]
    (target,) = json.loads((run / "report.json").read_text())["targets"]
    found = {
        (artifact["format"], one["metric"]): one["kind"]
        for artifact in target["artifacts"]
        for one in artifact["measurements"]
    }
    assert found["tflite", "memory_bytes"] == "measured"  # by the micro runtime
    assert found["vela", "memory_bytes"] == "simulated"
    assert found["vela", "latency_ms_p90"] == "simulated"
    assert found["vela", "accuracy"] == "estimated"  # that of the file it was made of
    assert found["tflite", "accuracy"] == "simulated"
    budgets = {
        (artifact["format"], one["metric"])
        for artifact in target["artifacts"]
        for one in artifact["budgets"]
    }
    assert {("vela", "size_bytes"), ("vela", "memory_bytes")} <= budgets  # although nobody asked


def test_a_budget_that_is_broken_fails_the_build_with_its_numbers(builds):
    folder, _ = builds[0]
    done = edgekd(
        "compress", "recipe.toml", "--target", "npu", "--out", "run", "--quick",
        "--budget", "size_kib=4", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 1
    assert "size_kib" in done.stdout
    (line,) = [one for one in done.stderr.splitlines() if ": size_kib" in one]
    assert line.startswith("error: npu: model_vela.tflite: size_kib = ")
    assert "over its limit of 4; try a smaller student" in line
