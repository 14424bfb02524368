"""A TFLite file alone is quantized as a file, checked and measured; training is refused."""

import json

import numpy as np
import pytest
import torch
from torch import nn

pytestmark = pytest.mark.backend("tflite")

RECIPE = """
[model]
tflite = "t.tflite"
[data]
source = "few.npz"
[calibration]
samples = 16
"""
QUANTIZE = '[[stages]]\nkind = "quantize"\nmethod = "calibrate"\n'


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    import litert_torch

    folder = tmp_path_factory.mktemp("alone")
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    ).eval()  # fmt: skip
    litert_torch.convert(model, (torch.rand(1, 1, 8, 8),)).export(str(folder / "t.tflite"))
    random = np.random.default_rng(0)
    x, y = random.random((60, 1, 8, 8), dtype=np.float32), np.arange(60) % 10
    np.savez(folder / "few.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    return folder


@pytest.fixture
def compress(place, edgekd):
    """Compresses that file; exit code and stderr."""

    def run(stages, *options, target="x86", out="out"):
        (place / "r.toml").write_text(RECIPE + stages)
        code, _, err = edgekd(
            "compress", place / "r.toml", "--target", target, "--out", place / out, *options
        )
        return code, err

    return run


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["int8", "int4", "fp16"])
def test_a_file_is_quantized_and_measured(place, compress, edgekd, dtype):
    code, err = compress(QUANTIZE + f'dtype = "{dtype}"\n', "--quick", out=dtype)
    assert code in (0, 1), err
    report = json.loads((place / dtype / "report.json").read_text())
    (artifact,) = report["targets"][0]["artifacts"]
    assert (artifact["format"], artifact["precision"]) == ("tflite", dtype)
    assert artifact["bytes"] < report["targets"][0]["baseline"]["bytes"]
    assert artifact["agreement_with_teacher"] > 0.8
    assert artifact["lineage"] == [f"quantize: {dtype} by ai-edge-quantizer on 16 samples"]
    assert artifact["parity"]["reference"] == "the original file, which was not quantized"
    assert artifact["parity"]["verdict"] == "pass"
    assert 0 < artifact["parity"]["max_relative"] < 0.25
    code, _, err = edgekd("verify", place / dtype)
    assert code == 0, err


@pytest.mark.slow
def test_the_precision_of_a_file_is_chosen_by_measuring(place, compress, edgekd):
    code, err = compress(QUANTIZE + 'dtype = "auto"\n', "--quick", out="auto")
    assert code in (0, 1), err
    (target,) = json.loads((place / "auto" / "report.json").read_text())["targets"]
    assert [each["path"].rpartition("/")[2] for each in target["artifacts"]] == [
        "model_int8.tflite", "model_fp16.tflite", "model_fp32.tflite",
    ]  # fmt: skip
    (choice,) = target["choices"]
    assert [each["path"] for each in target["artifacts"] if each["delivered"]] == [choice["path"]]
    assert edgekd("verify", place / "auto")[0] == 0
    code, err = compress(QUANTIZE + 'dtype = "auto"\n', "--dry-run", target="raspberry-pi-5")
    assert code == 2
    assert "auto compares latencies, and nothing here measures any for raspberry-pi-5" in err


@pytest.mark.slow
def test_what_can_not_be_done_to_a_file_is_refused(compress):
    code, told = compress('[[stages]]\nkind = "prune"\namount = 0.3\n')
    assert code == 2
    assert "stages.1: 'prune' needs a network to train" in told
    assert "hint: give [student] a network to train, with the file as its teacher" in told
    code, told = compress(QUANTIZE + 'dtype = "ternary"\n')
    assert code == 2
    assert "a TFLite file can't be quantized to ternary (allowed: int8, int4, fp16)" in told
