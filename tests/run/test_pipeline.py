"""A stage's own entry in the report: its accuracy with the interval that files have too."""

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from edgekd.backends import Backend, Follower
from edgekd.data.samples import Data, Samples
from edgekd.errors import MissingTool, ToolError
from edgekd.measure.accuracy import accuracy_measurement
from edgekd.run.compiled import Compiled
from edgekd.run.compiling import compile_candidate, follow_files
from edgekd.run.pipeline import Staged, run_stage
from edgekd.run.plan.planned import PlannedTarget
from edgekd.store import Store
from edgekd.values.artifact import Artifact, sha256_of
from edgekd.values.backend import BackendInfo, FileKind, Needs, Tool
from edgekd.values.candidate import Candidate
from edgekd.values.target import load_target


class Guess(nn.Module):
    """Tells class 1 where the first value is positive."""

    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        type(self).calls += len(x)
        return torch.stack([-x[:, 0], x[:, 0]], 1)


@dataclass(frozen=True)
class Nothing:
    """A context of which the stage uses nothing."""

    time_layers: Any = None


@pytest.fixture
def plan(tmp_path):
    x = torch.ones(80, 2)
    x[60:] = -1.0
    samples = Samples(x, torch.ones(80, dtype=torch.int64))
    return SimpleNamespace(
        data=Data("own", samples, samples, samples, classes=2),
        store=Store(tmp_path / "store"),
        request=SimpleNamespace(device=None),
        context=lambda *given: Nothing(),
        start=SimpleNamespace(example=x[:1], open=()),
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


class Vendor(Follower):
    """Makes nothing where its compiler is not on the PATH."""

    info = BackendInfo(
        title="a vendor's compiler",
        files=(),
        precisions=("int8",),
        follows="tflite",
        needs=Needs(tools=(Tool(command="vendors-compiler", purpose="", hint=""),)),
    )
    asked = 0

    def follow(self, artifact, target, options, folder, board=None):
        self.asked += 1
        return []

    def check_artifact(self, artifact, target, options):
        return (), {}


def test_a_vendors_compiler_that_was_installed_since_is_asked(plan, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    backend = Vendor()
    made = [Compiled(file_of("model.tflite", tmp_path), None)]
    for _ in range(2):
        follow_files(plan, load_target("coral-usb"), "edgetpu", backend, made)
    assert backend.asked == 1
    (tmp_path / "vendors-compiler").touch(mode=0o755)
    for _ in range(2):
        follow_files(plan, load_target("coral-usb"), "edgetpu", backend, made)
    assert backend.asked == 2


def file_of(name, folder):
    (folder / name).write_bytes(b"1")
    return Artifact(
        path=folder / name, format="tflite", runtime="litert", precision="int8", target="t",
        sha256=sha256_of(folder / name), bytes=1, inputs=(), outputs=(),
    )  # fmt: skip


class Reliable(Backend):
    """Writes one file."""

    info = BackendInfo(
        title="a compiler",
        files=(FileKind(format="onnx", runtime="onnxruntime"),),
        precisions=("fp32",),
    )

    def check(self, candidate, target, options):
        return ()

    def compile(self, candidate, target, options, folder):
        return [file_of("model.onnx", folder).model_copy(update={"format": "onnx"})]


class Broken(Reliable):
    """Fails for every candidate."""

    def compile(self, candidate, target, options, folder):
        raise ToolError("the compiler crashed", hint="report it")


def test_a_backend_that_fails_does_not_stop_the_others(plan, tmp_path, monkeypatch):
    monkeypatch.setattr("edgekd.run.compiling.metadata_of", lambda plan, accuracy: {})
    candidate = Candidate(Guess(), plan.data.example)
    staged = Staged(candidate, candidate, "0", "0", ())
    followed = BackendInfo(title="", files=(), precisions=("fp32",), follows="onnx")
    follower = type("Next", (Vendor,), {"info": followed})()
    backends = {"onnx": Broken(), "tensorrt": follower, "tvm": Reliable()}
    missing = {"tflite": MissingTool("litert-torch is not installed", hint="pip install it")}
    planned = PlannedTarget(load_target("x86"), (), backends, {}, "", missing)
    with_options = {"onnx": {}, "tensorrt": {}, "tvm": {}}
    planned = replace(planned, target=planned.target.model_copy(update={"backends": with_options}))
    made = compile_candidate(plan, planned, staged, lambda *_: None)
    assert [file.artifact.path.name for file in made.files] == ["model.onnx"]
    assert {name: error.message for name, error in made.failures.items()} == {
        "tflite": "litert-torch is not installed",
        "onnx": "the compiler crashed",
        "tensorrt": "it starts from the files of 'onnx', which could not be built",
    }


def test_a_run_in_which_every_backend_fails_ends_with_their_errors(plan, monkeypatch):
    monkeypatch.setattr("edgekd.run.compiling.metadata_of", lambda plan, accuracy: {})
    candidate = Candidate(Guess(), plan.data.example)
    staged = Staged(candidate, candidate, "0", "0", ())
    planned = PlannedTarget(load_target("x86"), (), {"onnx": Broken()}, {})
    with pytest.raises(ToolError, match="the compiler crashed") as caught:
        compile_candidate(plan, planned, staged, lambda *_: None)
    assert caught.value.exit_code == 3
