"""Each backend compiles every precision that is asked for, each into a file of its own."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from edgekd.backends import Backend
from edgekd.data.samples import Data, Samples
from edgekd.errors import InputError, ToolError
from edgekd.run.compiling import compile_candidate
from edgekd.run.pipeline import Staged
from edgekd.run.plan.planned import PlannedTarget
from edgekd.run.plan.rehearsal import Rehearsed, rehearse_backends
from edgekd.run.precisions import candidates_for, taken_by
from edgekd.store import Store
from edgekd.values.artifact import Artifact, sha256_of
from edgekd.values.backend import BackendInfo, FileKind
from edgekd.values.candidate import Candidate
from edgekd.values.target import load_target

FLOAT = Candidate(nn.Identity(), torch.zeros(1, 2))
INT8 = replace(FLOAT, form="int8", also=("fp16", "float"))


def test_a_candidate_that_asks_for_none_gives_one() -> None:
    int8 = replace(INT8, also=())
    assert candidates_for(int8, FLOAT, {"int8", "float"}) == {"": int8}
    assert candidates_for(int8, FLOAT, {"float"}) == {"": FLOAT}


def test_each_precision_is_compiled_that_the_backend_takes() -> None:
    found = candidates_for(INT8, FLOAT, {"int8", "fp16", "float"})
    assert {name: each.form for name, each in found.items()} == {
        "int8": "int8", "fp16": "fp16", "fp32": "float",
    }  # fmt: skip
    assert list(candidates_for(INT8, FLOAT, {"fp16", "float"})) == ["fp16", "fp32"]


class Writes(Backend):
    """Writes the form of the candidate; fails for one."""

    info = BackendInfo(
        title="a compiler",
        files=(FileKind(format="onnx", runtime="onnxruntime", not_run="not a real file"),),
        precisions=("fp32", "fp16", "int8"),
    )

    def __init__(self, fails: str = "") -> None:
        self.fails = fails

    def check(self, candidate, target, options):
        return ()

    def compile(self, candidate, target, options, folder):
        if candidate.form == self.fails:
            raise ToolError("it overflows", hint="take another")
        path = folder / "model.onnx"
        path.write_text(candidate.form)
        precision = "fp32" if candidate.form == "float" else candidate.form
        return [
            Artifact(
                path=path, format="other", runtime="other", precision=precision, target="t",
                sha256=sha256_of(path), bytes=1, inputs=(), outputs=(),
            )
        ]  # fmt: skip


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.setattr("edgekd.run.compiling.metadata_of", lambda plan, accuracy: {})
    x = torch.zeros(8, 2)
    samples = Samples(x, torch.zeros(8, dtype=torch.int64))
    return SimpleNamespace(
        data=Data("own", samples, samples, samples, classes=2),
        store=Store(tmp_path / "store"),
        request=SimpleNamespace(device=None),
    )


def compile_with(plan, backend):
    target = load_target("x86").model_copy(update={"backends": {"onnx": {}}})
    planned = PlannedTarget(target, (), {"onnx": backend}, {})
    return compile_candidate(plan, planned, Staged(INT8, FLOAT, "1", "0", ()), lambda *_: None)


def test_the_files_are_called_after_their_precision_and_are_compared(plan) -> None:
    made = compile_with(plan, Writes())
    paths = [each.artifact.path for each in made.files]
    assert [path.name for path in paths] == [
        "model_int8.onnx", "model_fp16.onnx", "model_fp32.onnx",
    ]  # fmt: skip
    assert [path.read_text() for path in paths] == ["int8", "fp16", "float"]
    assert all(each.is_compared for each in made.files)


def test_a_precision_that_fails_is_named_and_does_not_stop_the_others(plan) -> None:
    made = compile_with(plan, Writes(fails="fp16"))
    assert [each.artifact.precision for each in made.files] == ["int8", "fp32"]
    assert {name: each.message for name, each in made.failures.items()} == {
        "onnx in fp16": "it overflows"
    }


def test_the_plan_tries_every_precision_and_names_the_one_that_fails() -> None:
    errors, expected = rehearse_backends(
        Rehearsed(INT8, FLOAT), load_target("x86"), {"onnx": Writes(fails="fp16")}
    )
    assert {name: each.message for name, each in errors.items()} == {"onnx in fp16": "it overflows"}
    assert len(expected) == 2


def test_a_follower_gets_the_files_of_its_precisions_or_all_to_refuse_them(tmp_path) -> None:
    info = BackendInfo(title="", files=(), precisions=("int8",), follows="tflite")
    path = tmp_path / "model.tflite"
    path.write_bytes(b"1")
    int8 = Artifact(path=path, format="tflite", runtime="litert", precision="int8", target="t",
                    sha256=sha256_of(path), bytes=1, inputs=(), outputs=())  # fmt: skip
    fp32 = int8.model_copy(update={"precision": "fp32"})
    onnx = int8.model_copy(update={"format": "onnx"})
    assert taken_by(info, [int8, fp32, onnx]) == [int8]
    assert taken_by(info, [fp32, onnx]) == [fp32]


def test_a_target_that_nothing_here_measures_is_refused(tmp_path) -> None:
    import edgekd

    asked = {
        "target": "raspberry-pi-5", "data": "digits", "out": tmp_path,
        "stages": [{"kind": "quantize", "dtype": "auto"}], "backends": ["tflite"],
    }  # fmt: skip
    model = {"factory": "edgekd.models.resnet:resnet8", "arguments": {"channels": 1}}
    with pytest.raises(InputError) as caught:
        edgekd.plan(model, **asked)
    (fault,) = caught.value.faults
    assert fault.message.startswith("auto compares latencies, and nothing here measures any for")
    assert fault.where == "target raspberry-pi-5: quantize.dtype"
    assert "--device" in fault.hint
    assert "--accept estimated" in fault.hint


@pytest.mark.slow
def test_a_run_chooses_a_precision_and_its_files_verify(tmp_path) -> None:
    import edgekd
    from edgekd.run.verification import verify_run

    model = {"factory": "edgekd.models.resnet:resnet8", "arguments": {"channels": 1}}
    report = edgekd.compress(
        model, target="x86", data="digits", out=tmp_path, backends=["onnx"], quick=True,
        stages=[{"kind": "quantize", "dtype": "auto"}], budgets={"latency_ms": 50}, progress=False,
    )  # fmt: skip
    (target,) = report.targets
    names = [artifact.path.rpartition("/")[2] for artifact in target.artifacts]
    assert names == ["model_int8.onnx", "model_fp16.onnx", "model_fp32.onnx"]
    (choice,) = target.choices
    assert [each.path for each in target.artifacts if each.delivered] == [choice.path]
    assert all(f"{precision} " in choice.reason for precision in ("int8", "fp16", "fp32"))
    assert len(verify_run(tmp_path)) >= 2 * len(names)
