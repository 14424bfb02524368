"""ONNX files that decode and suppress boxes by themselves, in ONNX Runtime."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import edgekd
from edgekd.backends.onnx.boxes import with_boxes
from edgekd.backends.onnx.export import tensors_of, to_onnx, write_onnx
from edgekd.data.tasks._search import boxes_found
from edgekd.data.tasks.detection import Detection
from edgekd.errors import InputError
from edgekd.models.grid_detector import grid_detector
from edgekd.quant.export import export_graph
from edgekd.run.boxes import boxes_parity
from edgekd.run.compress import run_plan
from edgekd.run.verification import verify_run
from edgekd.values.artifact import Artifact, sha256_of
from edgekd.values.box_search import BoxSearch
from edgekd.values.progress import silent

ROOT = Path(__file__).parents[2]
DETECTION = ROOT / "examples/detection"
CLASSES, PLACES = 3, 40


class Given(nn.Module):
    """Outputs that are the inputs: scores of classes, and boxes."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"scores": x[:, :CLASSES] * 1.0, "boxes": x[:, CLASSES:] * 1.0}


def candidates(outputs: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    sure, names = outputs["scores"].max(1)
    return outputs["boxes"].transpose(1, 2), sure, names


def scenes(count: int) -> Tensor:
    """Boxes that overlap much, half of them with equal scores."""
    random = torch.Generator().manual_seed(7)
    scores = torch.rand(count, CLASSES, PLACES, generator=random)
    scores[:, :, ::2] = (scores[:, :, ::2] * 8).round() / 8
    centres = torch.rand(count, 2, PLACES, generator=random) * 0.4 + 0.3
    sizes = torch.rand(count, 2, PLACES, generator=random) * 0.3 + 0.1
    return torch.cat([scores, centres, sizes], 1)


def built(folder: Path, module: nn.Module, x: Tensor, search: BoxSearch) -> Artifact:
    model = to_onnx(export_graph(module, x[:1], "test"), x[:1])
    path = folder / "model.onnx"
    write_onnx(model, path)
    inputs, outputs = tensors_of(model)
    plain = Artifact(
        path=path, format="onnx", runtime="onnxruntime", precision="fp32", target="x86",
        sha256=sha256_of(path), bytes=path.stat().st_size, inputs=inputs, outputs=outputs,
    )  # fmt: skip
    return with_boxes(plain, module(x[:1]), search, CLASSES, folder / "model_boxes.onnx")


def run(artifact: Artifact, x: Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(artifact.path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {artifact.inputs[0].name: x.numpy()})
    return found


@pytest.mark.parametrize(("confidence", "overlap"), [(0.3, 0.5), (0.05, 0.3), (0.9, 0.7)])
def test_a_file_finds_what_the_search_outside_of_it_finds(tmp_path, confidence, overlap) -> None:
    module, x = Given().eval(), scenes(9)
    search = BoxSearch(candidates, confidence, overlap, PLACES)
    artifact = built(tmp_path, module, x, search)
    assert artifact.outputs[0].name == "boxes"
    assert artifact.outputs[0].shape == (-1, PLACES, 6)
    assert artifact.facts["boxes"] == PLACES
    expected = boxes_found(search, module(x)).numpy()
    assert 0 < (expected[..., 0] >= 0).sum() < expected[..., 0].size
    np.testing.assert_allclose(run(artifact, x), expected, atol=1e-6)
    np.testing.assert_allclose(run(artifact, x[:1]), expected[:1], atol=1e-6)


def test_an_image_without_boxes_has_rows_of_class_minus_one(tmp_path) -> None:
    module, x = Given().eval(), scenes(2)
    x[0, :CLASSES] = 0.01
    found = run(built(tmp_path, module, x, BoxSearch(candidates, 0.3, 0.5, 4)), x)
    assert found[0].tolist() == [[-1.0, 0.0, 0.0, 0.0, 0.0, 0.0]] * 4
    assert found[1, 0, 0] >= 0


def test_an_overlap_of_exactly_the_limit_suppresses_in_both(tmp_path) -> None:
    module = Given().eval()
    x = torch.zeros(1, CLASSES + 4, 2)
    x[0, 0] = torch.tensor([0.9, 0.8])
    x[0, CLASSES:] = torch.tensor([[0.25, 0.5], [0.5, 0.5], [0.5, 1.0], [1.0, 1.0]])
    for overlap, count in ((0.5, 1), (0.5001, 2)):  # half of the larger one
        search = BoxSearch(candidates, 0.3, overlap, 2)
        assert (boxes_found(search, module(x))[0, :, 0] >= 0).sum() == count
        folder = tmp_path / str(count)
        folder.mkdir()
        assert (run(built(folder, module, x, search), x)[0, :, 0] >= 0).sum() == count


def test_candidates_that_can_not_be_exported_are_refused(tmp_path) -> None:
    def looping(outputs: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        boxes, sure, names = candidates(outputs)
        if float(sure.max()) > 0.5:
            return boxes, sure, names
        return boxes, sure * 0, names

    with pytest.raises(InputError, match="the candidates can't be exported") as caught:
        built(tmp_path, Given().eval(), scenes(1), BoxSearch(looping, 0.3, 0.5, 4))
    assert caught.value.where == "data.task: candidates"
    assert "leave out boxes_in_file" in caught.value.hint


def test_a_missing_box_fails_the_parity_but_another_order_does_not() -> None:
    task, outputs = Detection(boxes_in_file=3), Given()(scenes(5))
    expected = boxes_found(BoxSearch(candidates, 0.1, 0.5, 3), outputs).numpy()
    boxes, sure, names = candidates(outputs)
    proposed = torch.cat([names[..., None], boxes, sure[..., None]], 2).numpy()

    def verdict(found: np.ndarray) -> str:
        return boxes_parity(task, found, expected, proposed).verdict

    assert verdict(expected[:, ::-1].copy()) == "pass"
    lacking = expected.copy()
    lacking[0, 0] = [-1, 0, 0, 0, 0, 0]
    assert verdict(lacking) == "fail"
    as_sure, invented = expected.copy(), expected.copy()
    as_sure[0, 0] = invented[0, 0] = proposed[0, 0]
    proposed[0, 0, 5] = as_sure[0, 0, 5] = expected[0, 0, 5]
    assert verdict(as_sure) == "pass"
    invented[0, 0, 1], invented[0, 0, 5] = 0.987, expected[0, 0, 5]
    assert verdict(invented) == "fail"


def plan(tmp_path: Path, task: dict[str, Any], *backends: str, **stage: Any) -> Any:
    model = grid_detector(width=16, depth=2)
    model.load_state_dict(load_file(DETECTION / "teacher.safetensors"))
    return edgekd.plan(
        model.eval(), data="digit-boxes", target="x86", backends=backends or ("onnx",),
        stages=[{"kind": "quantize", "method": "calibrate", **stage}],
        calibration={"samples": 64}, out=tmp_path / "out", settings={"data.task": task}, quick=True,
    )  # fmt: skip


def test_backends_that_can_not_search_are_refused_by_the_plan(tmp_path) -> None:
    task = {"name": "detection", "boxes_in_file": 16}
    with pytest.raises(InputError) as caught:
        plan(tmp_path, task, "onnx", "tvm")
    assert "TVM can't put non-maximum suppression into its files" in str(caught.value)
    assert "leave out boxes_in_file; or --backend onnx --backend tflite" in (
        caught.value.faults[0].hint
    )
    with pytest.raises(InputError, match="boxes_in_file needs one precision"):
        plan(tmp_path, task, dtype="auto")


@pytest.mark.slow
def test_the_detector_of_the_examples_scores_the_same_with_boxes_in_its_file(tmp_path) -> None:
    planned = plan(tmp_path, {"name": "detection", "boxes_in_file": 16})
    assert any("a second file finds up to 16 boxes" in line for line in planned.lines())
    report = run_plan(planned, silent)
    files = {Path(each.path).name: each for each in report.targets[0].artifacts}
    plain, boxes = files["model.onnx"], files["model_boxes.onnx"]
    assert plain.accuracy > 0.85
    assert boxes.accuracy == pytest.approx(plain.accuracy, abs=1e-9)
    assert boxes.agreement_with_teacher == pytest.approx(plain.agreement_with_teacher, abs=1e-9)
    assert (boxes.parity.verdict, boxes.parity.top1_agreement) == ("pass", 1.0)
    assert boxes.parity.reference == "the same search outside of the file"
    assert (boxes.delivered, plain.delivered) == (True, False)
    lines = verify_run(tmp_path / "out")
    assert any(line.startswith("artifacts/x86/model_boxes.onnx: parity") for line in lines), lines
