"""Preprocessing that is baked into the network: bytes in, the same numbers inside."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_target import SMALL_TARGET
from torch import nn

import edgekd
from edgekd.data import Data, load_data
from edgekd.data.inputs import AsSeen
from edgekd.errors import InputError
from edgekd.network.calling import bake, take_one_argument
from edgekd.values.recipe import DataTable

STEPS = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Bytes of three classes, one bright in each channel."""
    generator = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 90), ("test", 30)):
        y = np.arange(count) % 3
        x = generator.integers(0, 120, (count, 3, 16, 16), dtype=np.uint8)
        x[np.arange(count), y] += 120
        arrays |= {f"x_{part}": x, f"y_{part}": y}
    np.savez(tmp_path / "images.npz", **arrays)
    return tmp_path


def load(folder: Path, **steps: object) -> Data:
    table = DataTable(source="images.npz", preprocess={**STEPS, **steps})
    return load_data(table, folder)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )


def test_samples_stay_bytes_with_channels_last(images) -> None:
    data = load(images, bake=True)
    assert data.example.shape == (1, 16, 16, 3)
    assert data.example.dtype == torch.uint8
    assert data.sha256 != load(images).sha256


def test_a_baked_network_gives_for_bytes_what_it_gave_for_normalized_images(images) -> None:
    raw, normal = load(images, bake=True), load(images)
    plain, baked = network(), network()
    take_one_argument(baked)
    bake(baked, raw.baked)
    with torch.no_grad():
        torch.testing.assert_close(baked(raw.test.x), plain(normal.test.x), atol=1e-5, rtol=1e-5)
        exported = torch.export.export(baked, (raw.example,)).module()
        torch.testing.assert_close(exported(raw.example), baked(raw.example))


def test_the_arithmetic_is_that_of_the_formula() -> None:
    seen = AsSeen((0.5,), (0.25,), raw=True)
    pixels = torch.tensor([[[[0], [255], [51]]]], dtype=torch.uint8)
    assert seen(pixels.permute(0, 3, 1, 2)).shape == (1, 1, 3, 1)
    assert seen.of_raw(pixels).flatten().tolist() == pytest.approx([-2.0, 2.0, -1.2])
    assert AsSeen(raw=True).of_raw(pixels).flatten().tolist() == pytest.approx([0, 1, 0.2])


def test_flips_and_shifts_keep_the_channels_of_bytes_apart(images) -> None:
    from edgekd.data.views import read_drawn

    table = DataTable(source="images.npz", flip=True, shift=2, preprocess={**STEPS, "bake": True})
    raw = load_data(table, images)
    normal = load_data(table.model_copy(update={"preprocess": load_steps()}), images)
    order = [torch.arange(8)]
    (bytes_, _, _), (planes, _, _) = (next(read_drawn(d, 3, 0, order)) for d in (raw, normal))
    inside = planes[:, :, 4:12, 4:12]
    assert torch.allclose(raw.baked(bytes_)[:, :, 4:12, 4:12], inside, atol=1e-5)


def load_steps() -> object:
    return DataTable(preprocess=STEPS).preprocess


def test_a_black_box_that_would_get_bytes_is_refused(images, tmp_path) -> None:
    np.save(tmp_path / "logits.npy", np.zeros((90, 3), np.float32))
    data = {"source": str(images / "images.npz"), "preprocess": {**STEPS, "bake": True}}
    with pytest.raises(InputError, match=r"a black box \(logits\) takes normalized inputs"):
        edgekd.plan(
            network(), data=data, target="x86", stages=[{"kind": "distill", "epochs": 1}],
            teachers=[{"logits": str(tmp_path / "logits.npy")}], out=tmp_path / "run",
        )  # fmt: skip


@pytest.mark.slow
def test_a_baked_file_takes_bytes_and_names_its_steps(images, tmp_path) -> None:
    onnx = pytest.importorskip("onnx")
    target = tmp_path / "small.toml"
    target.write_text(SMALL_TARGET)
    data = {"source": str(images / "images.npz"), "preprocess": {**STEPS, "bake": True}}
    stages = [
        {"kind": "distill", "epochs": 15, "learning_rate": 0.02, "label_weight": 1.0},
        {"kind": "quantize", "epochs": 1},
    ]
    report = edgekd.compress(
        network(), data=data, target=target, stages=stages, out=tmp_path / "run",
        quick=True, progress=False,
    )  # fmt: skip
    for artifact in report.targets[0].artifacts:
        assert artifact.parity.verdict == "pass"
        assert artifact.accuracy > 0.9
    path = next((tmp_path / "run/artifacts").rglob("model.onnx"))
    model = onnx.load(path)
    kind = model.graph.input[0].type.tensor_type
    assert kind.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_value for d in kind.shape.dim][1:] == [16, 16, 3]
    (steps,) = [p.value for p in model.metadata_props if p.key == "edgekd.preprocess"]
    assert json.loads(steps) == {**STEPS, "bake": True}
