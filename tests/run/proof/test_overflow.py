"""A precision whose arithmetic overflows is shown without numbers where others are compared with
it, and ends the run where it is the only one."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from edgekd.data.samples import Data, Samples
from edgekd.errors import ToolError
from edgekd.run.compiled import Compiled
from edgekd.run.proof import outputs
from edgekd.run.proof.outputs import TeacherOutputs, proof_of
from edgekd.run.proof.place import Place
from edgekd.values.artifact import Artifact, TensorInfo
from edgekd.values.progress import silent
from edgekd.values.target import load_target

SAMPLES = Samples(torch.zeros(8, 2), torch.zeros(8, dtype=torch.int64))
INFO = TensorInfo(name="x", shape=(-1, 2), dtype="float32")


@pytest.fixture
def proved(monkeypatch: pytest.MonkeyPatch) -> Any:
    artifact = Artifact(
        path=Path("model_fp16.onnx"), format="onnx", runtime="onnxruntime", target="x86", bytes=1,
        precision="fp16", sha256="0", inputs=(INFO,), outputs=(INFO,),
    )  # fmt: skip
    device = SimpleNamespace(name="host", kind="measured", can_run=lambda artifact: "")
    given = [np.full((8, 2), np.inf, np.float32)]
    monkeypatch.setattr(outputs, "infer_samples", lambda *arguments: given)
    plan = SimpleNamespace(
        data=Data("own", SAMPLES, SAMPLES, SAMPLES, classes=2), output_form=torch.zeros(1, 2)
    )
    original = TeacherOutputs(torch.zeros(8, 2), np.zeros(8, np.int64))
    file = Compiled(artifact, None)

    def prove(is_compared: bool) -> Any:
        each = replace(file, is_compared=is_compared)
        place: Any = Place(device)  # type: ignore[arg-type]
        return proof_of(plan, load_target("x86"), place, each, original, silent)  # type: ignore[arg-type]

    return prove


def test_of_several_precisions_it_has_no_accuracy_and_the_reason(proved: Any) -> None:
    proof = proved(is_compared=True)
    assert (proof.accuracy.value, proof.parity) == (None, None)
    assert proof.reason == "the outputs contain NaN or infinity"


def test_alone_it_ends_the_run(proved: Any) -> None:
    with pytest.raises(ToolError, match="the outputs contain NaN or infinity"):
        proved(is_compared=False)
