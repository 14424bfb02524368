"""A backend of another package, which nothing in edgekd names: its own format, options and runner.

The package stands on sys.path with the dist-info folder that pip would have made.
"""

import importlib.util
import json
import sys

import pytest

from edgekd.registry import BACKENDS

BACKEND = '''
from pathlib import Path

from edgekd.backends import Backend
from edgekd.values.artifact import Artifact, TensorInfo, sha256_of
from edgekd.values.backend import BackendInfo, FileKind, Needs, Package, Tool
from edgekd.values.inspection import Inspection
from edgekd.values.tables import Value


class AcmeOptions(Value):
    """`gain` is what the outputs are multiplied by when the file runs."""

    gain: float = 1.0


class Acme(Backend):
    """One matrix in a file of its own."""

    info = BackendInfo(
        title="Acme's compiler",
        files=(FileKind(format="acme", runtime="acme-vm", suffixes=(".acme",), plot_mark="*"),),
        precisions=("fp32",),
        options=AcmeOptions,
        needs=Needs(
            packages=(
                Package(name="acme-edgekd", module="acme_backend", purpose="the Acme backend"),
            ),
            tools=(Tool(command="acme-cc", purpose="Acme chips", hint="ask Acme"),),
        ),
        runner=Path(__file__).with_name("acme_runner.py"),
    )

    def check(self, candidate, target, options):
        return ()

    def compile(self, candidate, target, options, folder):
        import numpy as np

        layer = candidate.module[1]
        path = folder / "model.acme"
        matrix = np.vstack([layer.weight.detach().numpy().T, layer.bias.detach().numpy()])
        matrix.astype("<f4").tofile(path)
        return [
            Artifact(
                path=path, format="acme", runtime="acme-vm", precision="fp32", target=target.name,
                sha256=sha256_of(path), bytes=path.stat().st_size,
                inputs=(TensorInfo(name="x", shape=(1, 1, 8, 8), dtype="float32"),),
                outputs=(TensorInfo(name="y", shape=(1, 10), dtype="float32"),),
                lineage=candidate.lineage, facts={"input_layout": "NCHW"},
            )
        ]

    def inspect(self, path, target):
        return Inspection(
            path=path, format="acme", file_bytes=path.stat().st_size, ops={"MATMUL": 1},
            dtypes={"float32": 1}, parameter_bytes=path.stat().st_size,
            reasons={"activation_bytes": "it keeps none"},
        )
'''

RUNNER = """
import numpy as np

MODULES = ["numpy"]
INSTALL = "pip install numpy"


class Runner:
    def __init__(self, path, options):
        self.matrix = np.fromfile(path, "<f4").reshape(65, 10)
        self.gain = options.get("gain", 1.0)
        self.inputs = [{"name": "x", "shape": [1, 1, 8, 8], "dtype": "float32"}]
        self.outputs = [{"name": "y", "shape": [1, 10], "dtype": "float32"}]
        self.notes = {}

    def feed(self, arrays):
        self.x = arrays[0].reshape(len(arrays[0]), 64)

    def run(self):
        self.y = self.gain * (self.x @ self.matrix[:64] + self.matrix[64])

    def fetch(self):
        return [self.y]
"""

NETWORK = """
import torch
from torch import nn


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""

TARGET = """
name = "acme-board"
title = "Acme's board"
summary = "a board with Acme's chip"
[hardware]
architecture = "x86_64"
cpu = "acme"
cores = 1
memory_bytes = 1_000_000_000
[quantization]
activations = "uint8-affine"
[backends.acme]
gain = {gain}
"""

RECIPE = """
[model]
factory = "acme_model:network"
[data]
source = "digits"
"""


@pytest.fixture
def acme(tmp_path, monkeypatch):
    """The package's folder, on sys.path for one test; a recipe and a target stand beside it."""
    site = tmp_path / "site"
    info = site / "acme_edgekd-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-edgekd\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[edgekd.backends]\nacme = acme_backend:Acme\n")
    (site / "acme_backend.py").write_text(BACKEND)
    (site / "acme_runner.py").write_text(RUNNER)
    (site / "acme_model.py").write_text(NETWORK)
    (tmp_path / "acme-board.toml").write_text(TARGET.format(gain=1.0))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    monkeypatch.syspath_prepend(str(site))
    yield tmp_path
    for module in ("acme_backend", "acme_model"):
        sys.modules.pop(module, None)
    BACKENDS._entries.pop("acme", None)  # the next test's package is another one


def test_its_options_are_checked_like_those_of_any_backend(acme, edgekd):
    target = acme / "acme-board.toml"
    code, shown, _ = edgekd("targets", target, "--json")
    assert (code, json.loads(shown)["backends"]) == (0, {"acme": {"gain": 1.0}})
    target.write_text(target.read_text().replace("gain", "gian"))
    code, _, told = edgekd("targets", target)
    assert code == 2
    assert "backends.acme: gian: unknown key 'gian' (allowed: gain)" in told


def test_doctor_has_a_line_for_its_package_and_its_tool(acme, edgekd):
    code, shown, _ = edgekd("doctor", "--json")
    lines = {line["name"]: line for line in json.loads(shown)}
    assert code == 0
    assert (lines["acme-edgekd"]["purpose"], lines["acme-edgekd"]["found"]) == (
        "the Acme backend",
        "1.2",
    )
    assert (lines["acme-cc"]["found"], lines["acme-cc"]["hint"]) == ("", "ask Acme")


def test_a_package_that_does_not_import_is_a_line_in_doctor_and_stops_nothing(acme, edgekd):
    (acme / "site" / "acme_backend.py").write_text("import no_such_module\n")
    code, shown, _ = edgekd("doctor", "--json")
    hint = next(line["hint"] for line in json.loads(shown) if line["name"] == "acme")
    assert code == 0
    assert "does not import from acme_backend:Acme: ModuleNotFoundError" in hint
    code, _, _ = edgekd("targets", "x86")
    assert code == 0
    code, _, told = edgekd("targets", acme / "acme-board.toml")
    assert code == 3
    assert "fix or uninstall the package that provides it" in told


def test_inspect_asks_it_about_its_files(acme, edgekd):
    path = acme / "model.acme"
    path.write_bytes(bytes(65 * 10 * 4))
    code, shown, _ = edgekd("inspect", path)
    assert code == 0
    assert "operators: 1 MATMUL" in shown
    code, _, told = edgekd("inspect", acme / "recipe.toml")
    assert code == 2
    assert ".acme" in told


@pytest.mark.slow
def test_a_model_is_compiled_with_it_measured_and_reported(acme, edgekd):
    out = acme / "out"
    target = acme / "acme-board.toml"
    arguments = ("--target", target, "--out", out, "--quick")
    code, _, told = edgekd("compress", acme / "recipe.toml", *arguments)
    assert code == 0, told
    report = json.loads((out / "report.json").read_text())
    (artifact,) = report["targets"][0]["artifacts"]
    assert (artifact["format"], artifact["runtime"]) == ("acme", "acme-vm")
    assert artifact["parity"]["verdict"] == "pass"
    latency = next(each for each in artifact["measurements"] if each["metric"] == "latency_ms_p50")
    assert latency["kind"] == "measured"
    assert latency["value"] > 0
    assert "model.acme" in (out / "report.html").read_text()
    path = out / artifact["path"]
    code, shown, told = edgekd("bench", path, "--target", target, "--quick")
    assert code == 0, told
    assert "model.acme" in shown
    code, shown, _ = edgekd("report", out)
    assert code == 0
    assert "model.acme" in shown


@pytest.mark.slow
def test_its_options_reach_its_runner(acme, edgekd):
    """With a gain of 2 the outputs are twice the reference's, so parity fails."""
    target, out = acme / "acme-board.toml", acme / "out"
    target.write_text(TARGET.format(gain=2.0))
    edgekd("compress", acme / "recipe.toml", "--target", target, "--out", out, "--quick")
    (artifact,) = json.loads((out / "report.json").read_text())["targets"][0]["artifacts"]
    assert artifact["parity"]["verdict"] == "fail"


@pytest.mark.slow
def test_it_makes_its_file_although_another_backend_is_missing(acme, edgekd, monkeypatch):
    target, out = acme / "acme-board.toml", acme / "out"
    target.write_text(TARGET.format(gain=1.0) + "[backends.onnx]\n")
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "edgekd.installed.find_spec",
        lambda name, *rest: None if name == "onnxscript" else real(name, *rest),
    )
    arguments = ("--target", target, "--out", out, "--quick")
    code, _, told = edgekd("compress", acme / "recipe.toml", *arguments)
    assert code == 3
    assert "acme-board: without onnx: onnxscript is not installed" in told
    assert "error: acme-board: no file of backend 'onnx': onnxscript is not installed" in told
    (report,) = json.loads((out / "report.json").read_text())["targets"]
    assert [artifact["format"] for artifact in report["artifacts"]] == ["acme"]
    assert report["failures"] == [
        {
            "backend": "onnx",
            "message": "onnxscript is not installed",
            "hint": "pip install 'edgekd[onnx]'",
        }
    ]
