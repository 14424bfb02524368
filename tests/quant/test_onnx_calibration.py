"""Files that NNCF calibrates as they are, fed by the names of their inputs."""

from pathlib import Path

import pytest
import torch

from edgekd.errors import InputError
from edgekd.quant.onnx_calibration import _feeds

SAMPLES = {"ids": torch.tensor([[1, 2], [3, 4]]), "mask": torch.ones(2, 2)}


def test_each_sample_is_a_feed_by_name() -> None:
    feeds = _feeds(["mask", "ids"], SAMPLES, Path("m.onnx"))
    assert [feed["ids"].tolist() for feed in feeds] == [[[1, 2]], [[3, 4]]]
    assert list(feeds[0]) == ["mask", "ids"]


def test_other_names_are_taken_in_order() -> None:
    (feed, _) = _feeds(["a", "b"], SAMPLES, Path("m.onnx"))
    assert feed["a"].tolist() == [[1, 2]]
    (feed, _) = _feeds(["x"], torch.ones(2, 3), Path("m.onnx"))
    assert feed["x"].shape == (1, 3)


def test_another_number_of_inputs_is_refused() -> None:
    with pytest.raises(InputError, match=r"takes 1 inputs \(x\), but a sample has 2") as caught:
        _feeds(["x"], SAMPLES, Path("m.onnx"))
    assert caught.value.allowed == "ids, mask"
