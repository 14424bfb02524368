"""An ONNX file alone is quantized, compiled, proved and verified; stages that train are refused."""

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
    artifacts = {each["format"]: each for each in report["targets"][0]["artifacts"]}
    assert set(artifacts) == {"onnx", "tflite", "tvm-so"}
    assert artifacts["onnx"]["precision"] == artifacts["tflite"]["precision"] == "int8"
    for artifact in artifacts.values():
        assert artifact["parity"]["verdict"] == "pass"
        assert artifact["agreement_with_teacher"] > 0.5
    assert artifacts["onnx"]["bytes"] < report["targets"][0]["baseline"]["bytes"]
    assert "convolution" in {layer["kind"] for layer in report["layers"]["after"]}
    code, _, err = edgekd("verify", place / "out")
    assert code == 0, err


def odd_file(place):
    """The same file with an operator that ONNX Runtime has and PyTorch has not."""
    import onnx

    model = onnx.load(place / "t.onnx")
    node = next(node for node in model.graph.node if node.op_type == "Relu")
    node.op_type = "ThresholdedRelu"
    node.attribute.append(onnx.helper.make_attribute("alpha", 0.0))
    onnx.save(model, place / "odd.onnx")
    return RECIPE.replace("t.onnx", "odd.onnx")


@pytest.mark.slow
def test_a_file_that_is_no_network_is_calibrated_as_a_file(place, edgekd):
    (place / "odd.toml").write_text(odd_file(place) + QUANTIZE)
    options = ("--target", "x86", "--quick", "--out", place / "odd")
    code, _, err = edgekd("compress", place / "odd.toml", *options)
    assert code in (0, 1), err
    assert "for the onnx backend only: operators without a counterpart in PyTorch: 1 Thr" in err
    report = json.loads((place / "odd" / "report.json").read_text())
    (artifact,) = report["targets"][0]["artifacts"]
    assert artifact["precision"] == "int8"
    assert artifact["parity"]["reference"] == "the original file, which was not quantized"
    assert artifact["parity"]["verdict"] == "pass"
    assert artifact["agreement_with_teacher"] > 0.5


@pytest.mark.slow
def test_a_file_that_is_no_network_is_compared_with_itself_in_int8(place, edgekd):
    (place / "auto.toml").write_text(odd_file(place) + QUANTIZE + 'dtype = "auto"\n')
    options = ("--target", "x86", "--quick", "--out", place / "auto")
    code, _, err = edgekd("compress", place / "auto.toml", *options)
    assert code in (0, 1), err
    (target,) = json.loads((place / "auto" / "report.json").read_text())["targets"]
    assert [each["precision"] for each in target["artifacts"]] == ["int8", "fp32"]
    assert [choice["format"] for choice in target["choices"]] == ["onnx"]


def test_a_file_that_is_no_network_has_no_other_type_than_int8(place, edgekd):
    stage = QUANTIZE + 'dtype = "fp16"\n'
    (place / "half.toml").write_text(odd_file(place) + stage)
    code, _, err = edgekd("compress", place / "half.toml", "--target", "x86", "--dry-run")
    assert code == 2
    assert "stages.1: this ONNX file can only be calibrated to int8: operators without" in err


@pytest.mark.slow
def test_an_untouched_file_is_measured_as_it_is(place, compress):
    code, err = compress("", out="same")
    assert code in (0, 1), err
    report = json.loads((place / "same" / "report.json").read_text())
    assert report["notes"] == ["--quick: short measurements, so latencies are less reliable"]
    artifacts = {each["format"]: each for each in report["targets"][0]["artifacts"]}
    assert set(artifacts) == {"onnx", "tflite", "tvm-so"}
    assert artifacts["onnx"]["sha256"] == report["targets"][0]["baseline"]["sha256"]
    assert {each["accuracy_drop"] for each in artifacts.values()} == {0.0}
    assert {each["parity"]["verdict"] for each in artifacts.values()} == {"pass"}


def test_a_stage_that_needs_a_module_is_refused(compress):
    code, told = compress('[[stages]]\nkind = "distill"\n')
    assert code == 2
    assert "stages.1: 'distill' needs a network to train" in told
    assert "hint: to train the network in the file, write [model] source = 'onnx:FILE'" in told
    code, told = compress('[[stages]]\nkind = "quantize"\nmethod = "qat"\n')
    assert code == 2
    assert "an ONNX file alone is quantized without training" in told


def test_a_file_that_is_no_network_needs_a_target_with_onnx(place, edgekd):
    (place / "coral.toml").write_text(odd_file(place) + QUANTIZE)
    code, _, told = edgekd("compress", place / "coral.toml", "--target", "coral-usb", "--dry-run")
    assert code == 2
    assert "an ONNX file needs the onnx backend" in told


def with_external_data(place, name="big.onnx"):
    """The same file with its weights beside it, as exporters write large models."""
    import onnx

    model = onnx.load(place / "t.onnx")
    onnx.save(
        model, place / name, save_as_external_data=True, location=f"{name}.data", size_threshold=200
    )
    return place / name


@pytest.mark.slow
def test_a_file_with_its_weights_beside_it_is_copied_with_them(place, edgekd):
    file = with_external_data(place)
    recipe = RECIPE.replace("t.onnx", file.name) + QUANTIZE
    (place / "big.toml").write_text(recipe)
    code, _, err = edgekd(
        "compress", place / "big.toml", "--target", "x86", "--quick", "--out", place / "big"
    )
    assert code in (0, 1), err
    report = json.loads((place / "big" / "report.json").read_text())
    baseline = report["targets"][0]["baseline"]
    data = place / "big" / "artifacts" / "x86" / f"{file.name}.data"
    assert data.is_file()
    assert list(baseline["companions"]) == [data.name]
    assert baseline["bytes"] == file.stat().st_size + data.stat().st_size
    code, _, err = edgekd("verify", place / "big")
    assert code == 0, err


def test_bench_counts_the_weights_beside_a_file(place):
    from edgekd.benchmark.files import bench_files
    from edgekd.devices.opening import open_device

    file = with_external_data(place, "counted.onnx")
    device = open_device("host")
    try:
        (result,) = bench_files([file], None, device, quick=True)
    finally:
        device.close()
    data = place / "counted.onnx.data"
    whole = file.stat().st_size + data.stat().st_size
    assert result.bytes == whole
    sizes = {row.metric: row.value for row in result.measurements if "size" in row.metric}
    assert sizes["size_bytes"] == whole


def test_symmetric_activations_keep_to_the_rules_of_tensorrt(place):
    from edgekd.backends.onnx.export import write_onnx
    from edgekd.backends.tensorrt.placement import quantization_faults
    from edgekd.formats.onnx_file import read_onnx
    from edgekd.quant.onnx_calibration import calibrate_onnx
    from edgekd.values.target import load_target

    samples = torch.rand(8, 1, 8, 8)
    for name, broken in (("jetson-orin", False), ("x86", True)):
        scheme = load_target(name).quantization
        write_onnx(calibrate_onnx(place / "t.onnx", samples, scheme), place / f"{name}.onnx")
        assert bool(quantization_faults(read_onnx(place / f"{name}.onnx"))) == broken
        kept, wanted = (_outputs(place / file, samples) for file in (f"{name}.onnx", "t.onnx"))
        noise = ((kept - wanted) ** 2).mean() / wanted.var()
        assert 10 * np.log10(1 / noise) > 20


def _outputs(file, samples):
    import onnxruntime

    return onnxruntime.InferenceSession(file).run(None, {"x": samples.numpy()})[0]


TWO = """
[model]
onnx = "two.onnx"
[data]
source = "two_inputs:sentences"
[calibration]
samples = 16
[[stages]]
kind = "quantize"
method = "calibrate"
"""

SENTENCES = """
import torch

def sentences():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 30, (96, 8), generator=generator)
    x = {"ids": ids, "mask": (ids > 2).float()}
    y = (ids[:, 0] > 15).long()
    return {"train": (x, y), "test": (x, y)}
"""


class Two(torch.nn.Module):
    """Ids and a mask in; logits and an embedding out."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(30, 64)
        self.head = torch.nn.Linear(64, 2)
        self.side = torch.nn.Linear(64, 4)

    def forward(self, ids, mask):
        mean = (self.table(ids) * mask.unsqueeze(2)).mean(1)
        return self.head(torch.relu(mean)), self.side(mean)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "precision"),
    [("", "int8"), ('dtype = "int4"\n', "int4"), ('dtype = "fp16"\n', "fp16"),
     ("mixed = { layers = 1 }\n", "int8")],
)  # fmt: skip
def test_a_file_with_two_inputs_and_outputs_goes_the_whole_way(
    tmp_path, edgekd, options, precision
):
    torch.manual_seed(0)
    batch = torch.export.Dim("batch")
    torch.onnx.export(
        Two().eval(),
        (torch.zeros(2, 8, dtype=torch.int64), torch.ones(2, 8)),
        tmp_path / "two.onnx",
        dynamo=True,
        dynamic_shapes=({0: batch}, {0: batch}),
        input_names=["ids", "mask"],
        output_names=["logits", "vector"],
        external_data=False,
        verbose=False,
    )
    (tmp_path / "two_inputs.py").write_text(SENTENCES)
    (tmp_path / "r.toml").write_text(TWO + options)
    code, _, err = edgekd(
        "compress", tmp_path / "r.toml", "--target", "x86", "--quick", "--backend", "onnx",
        "--backend", "tflite", "--out", tmp_path / "out",
    )  # fmt: skip
    assert code in (0, 1), err
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    artifacts = {each["format"]: each for each in report["targets"][0]["artifacts"]}
    assert set(artifacts) == {"onnx", "tflite"}
    assert artifacts["onnx"]["precision"] == precision
    for artifact in artifacts.values():
        assert artifact["parity"]["verdict"] == "pass", artifact["parity"]
        assert set(artifact["parity"]["outputs"]) == {"logits", "vector"}
        assert artifact["agreement_with_teacher"] > 0.8
        assert len(artifact["inputs"]) == len(artifact["outputs"]) == 2
    assert [each["name"] for each in artifacts["onnx"]["inputs"]] == ["ids", "mask"]


def test_a_student_that_is_a_file_is_pointed_to_the_source(place, edgekd):
    (place / "s.toml").write_text(RECIPE + '[student]\nonnx = "t.onnx"\n')
    code, _, told = edgekd("compress", place / "s.toml", "--target", "x86", "--dry-run")
    assert code == 2
    assert "hint: write source = 'onnx:t.onnx' to train the network in the file" in told


@pytest.mark.slow
def test_the_network_in_a_file_can_be_pruned_and_trained(place, edgekd):
    torch.manual_seed(0)
    wide = torch.nn.Sequential(
        torch.nn.Conv2d(1, 32, 3), torch.nn.ReLU(), torch.nn.Conv2d(32, 32, 3), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(32, 10),
    ).eval()  # fmt: skip
    torch.onnx.export(
        wide, (torch.rand(1, 1, 8, 8),), place / "wide.onnx", dynamo=True, external_data=False,
        verbose=False,
    )  # fmt: skip
    recipe = RECIPE.replace('onnx = "t.onnx"', 'source = "onnx:wide.onnx"')
    prune = '[[stages]]\nkind = "prune"\namount = 0.5\nepochs = 1\n'
    (place / "p.toml").write_text(recipe + prune + QUANTIZE)
    code, _, err = edgekd(
        "compress", place / "p.toml", "--target", "x86", "--backend", "onnx", "--quick",
        "--out", place / "pruned",
    )  # fmt: skip
    assert code in (0, 1), err
    report = json.loads((place / "pruned" / "report.json").read_text())
    parameters = [stage["parameters"] for stage in report["stages"]]
    assert parameters[0] < 0.9 * report["teacher"]["parameters"]
    (artifact,) = report["targets"][0]["artifacts"]
    assert artifact["parity"]["verdict"] == "pass"
