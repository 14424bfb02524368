"""What would fail after training fails in the plan: stages and backends are tried without it."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from small_target import SMALL_TARGET
from torch import nn

import edgekd
from edgekd.backends import Backend
from edgekd.errors import Collector, InputError, ToolError
from edgekd.quant.export import export_graph
from edgekd.run.plan import rehearsal
from edgekd.run.plan.rehearsal import Rehearsed, rehearse_backends, rehearse_stages
from edgekd.stages import Stage
from edgekd.training.context import Context
from edgekd.values.backend import BackendInfo
from edgekd.values.candidate import Candidate
from edgekd.values.target import load_target


class Fails(Stage):
    kind: str = "fails"
    text: str = ""

    def check(self, candidate, context, where):
        return []

    def cost(self, context):
        return ""

    def run(self, candidate, context):
        raise AssertionError("the plan must not run a stage")

    def rehearse(self, candidate, context):
        if self.text:
            raise InputError(self.text, where="stages.1")
        raise IndexError("index 64 is out of bounds")


class Keeps(Fails):
    def rehearse(self, candidate, context):
        assert len(context.data.train) <= rehearsal.SAMPLES
        assert context.work.is_dir()
        return candidate.after(candidate.module, "kept", "fp16")


class Compiles(Backend):
    info = BackendInfo(title="Compiles", files=(), precisions=())

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.options: dict = {}

    def check(self, candidate, target, options):
        return []

    def rehearsal_options(self, options):
        return {**options, "hurried": True}

    def compile(self, candidate, target, options, folder):
        self.options = options
        assert folder.is_dir()
        if self.error is not None:
            raise self.error
        return []


@pytest.fixture
def context(tmp_path: Path) -> Context:
    target = tmp_path / "small.toml"
    target.write_text(SMALL_TARGET)
    x, y = torch.rand(200, 1, 8, 8), torch.arange(200) % 4
    plan = edgekd.plan(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 4)),
        data=((x, y), (x, y)), target=target, out=tmp_path / "run",
    )  # fmt: skip
    return plan.context(plan.request.targets[0], tmp_path, lambda *_: None)


@pytest.fixture
def start() -> Candidate:
    return Candidate(nn.Flatten(), torch.rand(1, 1, 8, 8))


def test_a_stage_sees_few_samples_and_its_result_goes_on(context, start):
    collect = Collector()
    found = rehearse_stages(start, [Keeps()], context, collect)
    assert collect.faults == []
    assert found.candidate.form == "fp16"
    assert found.floating is found.candidate


def test_an_unexpected_error_of_a_stage_names_the_stage_and_keeps_the_traceback(context, start):
    collect = Collector()
    assert rehearse_stages(start, [Keeps(), Fails()], context, collect) is None
    (fault,) = collect.faults
    assert str(fault) == (
        "stages.2 (fails): 'fails' fails on this network: IndexError: index 64 is out of bounds"
    )
    assert isinstance(fault, ToolError)
    assert "Traceback" in fault.detail


def test_an_error_of_edgekds_own_is_kept_as_it_is(context, start):
    collect = Collector()
    assert rehearse_stages(start, [Fails(text="no layer left")], context, collect) is None
    assert [str(fault) for fault in collect.faults] == ["stages.1: no layer left"]


def test_a_backend_that_fails_does_not_stop_the_next_one(start):
    target = load_target("x86")
    last = Compiles()
    errors, _ = rehearse_backends(
        Rehearsed(start, start),
        target,
        {"a": Compiles(ToolError("no kernel")), "b": Compiles(KeyError("x")), "c": last},
    )
    assert {name: error.message for name, error in errors.items()} == {
        "a": "no kernel",
        "b": "the backend 'b' fails on this network: KeyError: 'x'",
    }
    assert last.options["hurried"] is True


def test_a_file_that_the_runtime_refuses_is_an_error_of_its_backend(start, monkeypatch):
    class Host:
        def can_run(self, artifact):
            return "" if artifact.format == "onnx" else "no such runtime"

        def infer(self, artifact, arrays, options):
            assert [array.shape for array in arrays] == [(1, 1, 8, 8)]
            raise ToolError("node 10 failed to prepare")

        def close(self):
            pass

    class Writes(Compiles):
        def __init__(self, format: str) -> None:
            super().__init__()
            self.format = format

        def compile(self, candidate, target, options, folder):
            return [SimpleNamespace(format=self.format, bytes=10, path=folder / "none")]

    monkeypatch.setattr(rehearsal, "open_device", lambda name: Host())
    backends = {"onnx": Writes("onnx"), "tvm": Writes("tvm-so")}
    errors, _ = rehearse_backends(Rehearsed(start, start), load_target("x86"), backends)
    assert {name: error.message for name, error in errors.items()} == {
        "onnx": "node 10 failed to prepare"
    }


def test_each_stage_of_edgekd_has_a_rehearsal_that_changes_what_the_stage_would(tmp_path):
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip
    target = tmp_path / "small.toml"
    target.write_text(SMALL_TARGET)
    x, y = torch.rand(80, 1, 8, 8), torch.arange(80) % 4
    plan = edgekd.plan(
        model, data=((x, y), (x, y)), target=target, out=tmp_path / "run",
        settings={"calibration.samples": 8},
    )  # fmt: skip
    base = plan.context(plan.request.targets[0], tmp_path, lambda *_: None)
    stages = [
        edgekd.Distill(epochs=50),
        edgekd.Prune(amount=0.5, criterion="taylor", epochs=50),
        edgekd.Quantize(method="qat", epochs=50),
    ]
    collect = Collector()
    found = rehearse_stages(plan.start, stages, base, collect)
    assert collect.faults == []
    assert found.candidate.form == "int8"
    channels = [m.out_channels for m in found.floating.module.modules() if isinstance(m, nn.Conv2d)]
    assert channels[0] == 4


def test_a_network_of_the_same_structure_is_rehearsed_once_however_it_is_trained(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path / "cache"))
    target = tmp_path / "small.toml"
    target.write_text(SMALL_TARGET)
    x, y = torch.rand(40, 1, 4, 4), torch.arange(40) % 4
    tried = []
    real = rehearsal.rehearse_stages
    monkeypatch.setattr(
        "edgekd.run.plan.targets.rehearse_stages", lambda *a: tried.append(1) or real(*a)
    )

    def plan(width: int, folder: str, epochs: int = 2, amount: float = 0.2) -> None:
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, width), nn.ReLU(), nn.Linear(width, 4))
        stages = [
            edgekd.Distill(epochs=epochs, learning_rate=epochs / 1000),
            edgekd.Prune(granularity="weights", amount=amount, epochs=epochs),
        ]
        edgekd.plan(
            model, data=((x, y), (x, y)), target=target, stages=stages, out=tmp_path / folder
        )

    plan(3, "one")
    plan(3, "two")
    plan(3, "longer", epochs=4)
    assert len(tried) == 1
    plan(5, "wider")
    assert len(tried) == 2
    plan(5, "sparser", amount=0.4)
    assert len(tried) == 3


def test_a_network_whose_export_computes_something_else_is_refused(context, monkeypatch):
    """Without a quantize stage too, and with the layer's name."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).eval()
    candidate = Candidate(module, torch.rand(1, 1, 8, 8))

    def spoilt(*arguments):
        graph = export_graph(*arguments)
        with torch.no_grad():
            dict(graph.named_parameters())["1.bias"].add_(1.0)
        return graph

    monkeypatch.setattr(rehearsal, "export_graph", spoilt)
    collect = Collector()
    assert rehearse_stages(candidate, [], context, collect) is None
    (fault,) = collect.faults
    assert (fault.where, fault.exit_code) == ("model", 3)
    assert "differs from the network at layer '1'" in fault.message


def test_a_network_that_can_not_be_exported_is_left_to_the_backends(context, monkeypatch):
    def refusing(*_arguments):
        raise InputError("forward() branches on values")

    monkeypatch.setattr(rehearsal, "export_graph", refusing)
    collect = Collector()
    candidate = Candidate(nn.Flatten(), torch.rand(1, 1, 8, 8))
    assert rehearse_stages(candidate, [], context, collect) is not None
    assert collect.faults == []
