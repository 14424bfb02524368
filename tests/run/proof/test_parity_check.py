"""What a file's difference is due to: its layer, its export, its compiler, or rounding alone."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.data.samples import Samples
from edgekd.data.tasks.classification import CLASSIFICATION
from edgekd.errors import ToolError
from edgekd.measure.divergence import Divergence
from edgekd.measure.parity import Parity
from edgekd.quant.constants import constant_of
from edgekd.quant.export import export_graph
from edgekd.run.compiled import Compiled
from edgekd.run.proof import parity_check
from edgekd.run.proof.place import Place
from edgekd.values.artifact import Artifact, TensorInfo
from edgekd.values.candidate import Candidate
from edgekd.values.target import load_target

CLEAN = Divergence("no single layer: each of 9 is within 2 LSB", clean=True)
WRONG = Divergence("stem (conv2d): 40 LSB from the reference on the same input")


def judged(
    module: nn.Module, outputs: np.ndarray, reference: np.ndarray, x: np.ndarray, scale: Any = None
) -> Parity:
    info = TensorInfo(name="x", shape=(-1, 4), dtype="float32", scale=scale)
    artifact = Artifact(
        path=Path("m.onnx"), format="onnx", runtime="onnxruntime", target="x86", sha256="0",
        precision="int8" if scale else "fp32", bytes=1, inputs=(info,), outputs=(info,),
    )  # fmt: skip
    place = Place(SimpleNamespace(name="host"))  # type: ignore[arg-type]
    each = Compiled(artifact, Candidate(module, torch.from_numpy(x[:1])))
    target = load_target("x86")
    expected = torch.from_numpy(reference)
    inputs = Samples(torch.from_numpy(x), torch.zeros(len(x), dtype=torch.int64))
    return parity_check.parity_of(target, place, each, inputs, [outputs], expected, CLASSIFICATION)


@pytest.fixture
def float_case() -> tuple[nn.Module, np.ndarray, np.ndarray]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    x = torch.randn(6, 4)
    with torch.no_grad():
        return module, x.numpy(), module(x).numpy()


def test_a_float_file_whose_export_is_wrong_has_the_layer_named(float_case, monkeypatch):
    module, x, reference = float_case

    def spoilt(*arguments: Any) -> Any:
        graph = export_graph(*arguments)
        layer = [node for node in graph.graph.nodes if "linear" in str(node.target)][1]
        with torch.no_grad():
            constant_of(graph, layer.args[2]).add_(1.0)
        return graph

    monkeypatch.setattr(parity_check, "export_graph", spoilt)
    parity = judged(module, reference + 1.0, reference, x)
    assert parity.verdict == "fail"
    assert "differs from the network at layer '2'" in parity.first_difference


def test_a_float_file_whose_export_is_right_is_the_compilers_fault(float_case):
    module, x, reference = float_case
    parity = judged(module, reference + 1.0, reference, x)
    assert parity.verdict == "fail"
    assert parity.first_difference.endswith("so the file's compiler changed it")
    assert judged(module, reference, reference, x).first_difference == ""


@pytest.mark.parametrize(
    ("divergence", "count", "verdict"),
    [(CLEAN, 5, "pass"), (CLEAN, 50, "fail"), (WRONG, 5, "fail")],
)
def test_rounding_that_adds_up_passes_where_no_layer_strays(
    monkeypatch, divergence, count, verdict
):
    """3 LSB where 2 are allowed, in `count` of 10,000 outputs."""
    monkeypatch.setattr(parity_check, "divergence_of", lambda *_: divergence)
    reference = np.zeros((1000, 10), np.float32)
    reference[:, 3] = 9.0
    outputs = reference.copy()
    outputs[:count, 5] = 0.3
    parity = judged(nn.Identity(), outputs, reference, np.zeros((1000, 4), np.float32), 0.1)
    assert (parity.verdict, round(parity.max_lsb or 0)) == (verdict, 3)
    assert parity.first_difference == divergence.sentence


class TwoOutputs(nn.Module):
    """Logits and boxes of a tree of two inputs."""

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"boxes": inputs["x"] * 2, "logits": inputs["x"] + inputs["ids"]}


def test_every_output_is_compared_and_the_main_one_stands_in_front():
    info = TensorInfo(name="x", shape=(-1, 4), dtype="float32")
    artifact = Artifact(
        path=Path("m.onnx"), format="onnx", runtime="onnxruntime", target="x86", sha256="0",
        precision="fp32", bytes=1, inputs=(info, info), outputs=(info, info),
    )  # fmt: skip
    place = Place(SimpleNamespace(name="host"))  # type: ignore[arg-type]
    inputs = {"x": torch.randn(6, 4), "ids": torch.arange(24).reshape(6, 4)}
    each = Compiled(artifact, Candidate(TwoOutputs(), inputs["x"][:1]))
    reference = TwoOutputs()(inputs)
    boxes, logits = reference["boxes"].numpy(), reference["logits"].numpy()
    target = load_target("x86")
    samples = Samples(inputs, torch.zeros(6, dtype=torch.int64))

    def judge(*outputs: np.ndarray) -> Parity:
        return parity_check.parity_of(
            target, place, each, samples, outputs, reference, CLASSIFICATION
        )

    parity = judge(boxes, logits)
    assert (parity.verdict, list(parity.outputs)) == ("pass", ["boxes", "logits"])
    assert parity.max_relative == 0.0
    parity = judge(boxes + 1, logits)
    assert (parity.verdict, parity.max_relative) == ("fail", 0.0)
    assert parity.first_difference.startswith("output 'boxes': ")
    with pytest.raises(ToolError, match="has 1 outputs, its reference 2"):
        judge(boxes)
