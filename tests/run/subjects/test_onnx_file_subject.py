"""An ONNX file without a network is calibrated, proved and verified; other stages are refused."""

import json

import numpy as np
import pytest
import torch

from edgekd.models.resnet import resnet8

RECIPE = """
[model]
onnx = "t.onnx"
[data]
source = "few.npz"
[calibration]
samples = 16
"""
QUANTIZE = '[[stages]]\nkind = "quantize"\nmethod = "calibrate"\n'


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    torch.manual_seed(0)
    model = resnet8(channels=1, widths=(8, 16, 16)).eval()
    batch = torch.export.Dim("batch")
    torch.onnx.export(
        model,
        (torch.rand(2, 1, 8, 8),),
        folder / "t.onnx",
        dynamo=True,
        dynamic_shapes=({0: batch},),
        external_data=False,
        verbose=False,
    )
    random = np.random.default_rng(0)
    x, y = random.random((60, 1, 8, 8), dtype=np.float32), np.arange(60) % 10
    np.savez(folder / "few.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    return folder


@pytest.fixture
def compress(place, edgekd):
    """Compresses that file; exit code and stderr."""

    def run(stages, target="x86", out="out"):
        (place / "r.toml").write_text(RECIPE + stages)
        options = ("--target", target, "--quick", "--out", place / out)
        code, _, err = edgekd("compress", place / "r.toml", *options)
        return code, err

    return run


@pytest.mark.slow
def test_a_file_alone_becomes_int8_and_is_measured(place, compress, edgekd):
    code, err = compress(QUANTIZE)
    assert code in (0, 1), err
    report = json.loads((place / "out" / "report.json").read_text())
    (artifact,) = report["targets"][0]["artifacts"]
    assert artifact["precision"] == "int8"
    assert artifact["bytes"] < report["targets"][0]["baseline"]["bytes"]
    assert artifact["parity"] is None
    assert "no graph in PyTorch" in artifact["reasons"]["parity"]
    assert artifact["agreement_with_teacher"] > 0.5
    code, _, err = edgekd("verify", place / "out")
    assert code == 0, err


@pytest.mark.slow
def test_an_untouched_file_is_measured_as_it_is(place, compress):
    code, err = compress("", out="same")
    assert code in (0, 1), err
    report = json.loads((place / "same" / "report.json").read_text())
    assert report["notes"] == ["--quick: measured briefly, so times are less sure"]
    (artifact,) = report["targets"][0]["artifacts"]
    assert artifact["sha256"] == report["targets"][0]["baseline"]["sha256"]
    assert artifact["accuracy_drop"] == 0.0


def test_a_stage_that_needs_a_module_is_refused(compress):
    code, told = compress('[[stages]]\nkind = "distill"\n')
    assert code == 2
    assert "stages.1: 'distill' needs a network to train" in told
    assert "hint: give [student] a factory to train" in told


def test_a_target_without_onnx_is_refused(compress):
    code, told = compress(QUANTIZE, target="coral-usb")
    assert code == 2
    assert "an ONNX file runs with the onnx backend only" in told
