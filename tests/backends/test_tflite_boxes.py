"""TFLite files that decode and suppress boxes by themselves, in LiteRT."""

from pathlib import Path

import numpy as np
import pytest
import torch
from test_onnx_boxes import CLASSES, PLACES, Given, candidates, plan, scenes

from edgekd.backends.tflite import Tflite
from edgekd.backends.tflite.boxes import with_boxes
from edgekd.data.tasks._search import boxes_found
from edgekd.errors import InputError
from edgekd.run.boxes import boxes_in
from edgekd.run.compress import run_plan
from edgekd.values.artifact import Artifact
from edgekd.values.box_search import BoxSearch
from edgekd.values.candidate import Candidate
from edgekd.values.progress import silent
from edgekd.values.target import load_target


def run(artifact: Artifact, x: torch.Tensor) -> list[np.ndarray]:
    """The four results (N, ...) for images one at a time."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(artifact.path))
    interpreter.allocate_tensors()
    (given,) = interpreter.get_input_details()
    rows = []
    for image in x:
        interpreter.set_tensor(given["index"], image[None].numpy())
        interpreter.invoke()
        outputs = interpreter.get_output_details()
        rows.append([interpreter.get_tensor(each["index"]) for each in outputs])
    return [np.concatenate(parts) for parts in zip(*rows, strict=True)]


@pytest.mark.slow
@pytest.mark.backend("tflite")
def test_a_file_finds_what_the_search_outside_of_it_finds(tmp_path) -> None:
    """Where no two boxes are equally sure: their order is the operator's own."""
    module, x = Given().eval(), scenes(9)
    x[:, :CLASSES] = x[:, :CLASSES] * 0.99 + torch.arange(PLACES) * 1e-4
    x[4, :CLASSES] = 0.01  # an image without boxes
    target = load_target("x86")
    (plain,) = Tflite().compile(Candidate(module, x[:1]), target, {}, tmp_path)
    for confidence, overlap, most in ((0.3, 0.5, 100), (0.9, 0.7, 3)):
        search = BoxSearch(candidates, confidence, overlap, most)
        path = tmp_path / f"{most}.tflite"
        artifact = with_boxes(plain, module(x[:1]), search, CLASSES, path)
        names = ["boxes", "classes", "scores", "count"]
        assert [info.name for info in artifact.outputs] == names
        assert artifact.facts["boxes"] == min(most, PLACES)
        expected = boxes_found(search, module(x)).numpy()
        found = boxes_in(run(artifact, x))
        assert found.shape == expected.shape
        assert (found[..., 0] >= 0).sum(1).tolist() == (expected[..., 0] >= 0).sum(1).tolist()
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.backend("tflite")
def test_candidates_that_can_not_be_converted_are_refused(tmp_path) -> None:
    def looping(outputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        boxes, sure, names = candidates(outputs)
        return (boxes, sure, names) if float(sure.max()) > 0.5 else (boxes, sure * 0, names)

    plain = Artifact.model_construct(path=tmp_path / "model.tflite")
    x = scenes(1)
    with pytest.raises(InputError, match="the candidates can't be converted") as caught:
        with_boxes(
            plain, Given()(x), BoxSearch(looping, 0.3, 0.5, 4), CLASSES, tmp_path / "x.tflite"
        )
    assert "leave out boxes_in_file" in caught.value.hint


@pytest.mark.slow
@pytest.mark.backend("tflite")
def test_the_detector_of_the_examples_scores_the_same_with_boxes_in_its_file(tmp_path) -> None:
    report = run_plan(plan(tmp_path, {"name": "detection", "boxes_in_file": 16}, "tflite"), silent)
    files = {Path(each.path).name: each for each in report.targets[0].artifacts}
    plain, boxes = files["model.tflite"], files["model_boxes.tflite"]
    assert plain.accuracy > 0.85
    assert boxes.accuracy == pytest.approx(plain.accuracy, abs=1e-9)
    assert (boxes.parity.verdict, boxes.parity.top1_agreement) == ("pass", 1.0)
