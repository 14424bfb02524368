from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.backends.inspection import inspect_artifact, inspection_lines
from edgekd.backends.onnx import Onnx
from edgekd.backends.tflite import Tflite
from edgekd.errors import InputError
from edgekd.quant.calibration import calibrate
from edgekd.values.candidate import Candidate
from edgekd.values.target import load_target


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = torch.relu(self.first(x))
        x = torch.relu(self.second(x) + x)
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """The same tiny network as int8 TFLite, as symmetric QDQ ONNX and as a float program."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, example = Tiny().eval(), torch.randn(1, 3, 8, 8)
    made = {}
    for name, backend, board in (("tflite", Tflite, "coral"), ("onnx", Onnx, "jetson-orin")):
        target = load_target(board)
        graph = calibrate(model, example, torch.randn(16, 3, 8, 8), target.quantization)
        candidate = Candidate(graph, example, "int8")
        folder = tmp_path_factory.mktemp(name)
        (artifact,) = backend().compile(candidate, target, target.backends[name], folder)
        made[name] = artifact.path
    made["pt2"] = tmp_path_factory.mktemp("pt2") / "model.pt2"
    torch.export.save(torch.export.export(model, (example,)), made["pt2"])
    return made


@pytest.mark.slow
def test_an_int8_tflite_file_from_the_converter(files):
    found = inspect_artifact(files["tflite"], load_target("coral"))
    assert found.ops["CONV_2D"] == 2
    assert found.file_bytes == files["tflite"].stat().st_size
    assert (found.inputs[0].dtype, found.outputs[0].dtype) == ("int8", "int8")
    assert found.inputs[0].scale is not None
    # int8 weights and int32 biases, and at least the axes of the mean
    assert found.parameter_bytes >= (216 + 576 + 40) + 4 * (8 + 8 + 5)
    assert found.activation_bytes >= 2 * 8 * 8 * 8
    assert "float32" not in found.dtypes
    assert {one.placement for one in found.placements} == {"edgetpu"}
    assert not any("float islands" in note for note in found.notes)
    assert any(line.startswith("placement (estimated)") for line in inspection_lines(found))


@pytest.mark.slow
def test_a_qdq_onnx_file_from_the_exporter(files):
    found = inspect_artifact(files["onnx"], load_target("jetson-orin"))
    assert found.ops["Conv"] == 2
    assert found.facts["int8_ops"] == 3
    assert found.activation_bytes >= 3 * 4 * 512
    assert any("int32 bias" in note for note in found.notes)
    assert not any("zero point" in note or "uint8" in note for note in found.notes)


@pytest.mark.slow
def test_a_float_program(files):
    found = inspect_artifact(files["pt2"], load_target("x86"))
    assert found.ops["aten.conv2d.default"] == 2
    assert found.parameter_bytes == 4 * (216 + 8 + 576 + 8 + 40 + 5)
    # the addition holds both convolutions' maps and its own sum
    assert found.activation_bytes == 3 * 8 * 8 * 8 * 4
    assert found.placements == ()


def test_a_model_that_maps_in_part_says_where_it_ends(tflite_file):
    found = inspect_artifact(tflite_file("HARD_SWISH"), load_target("coral-usb"))
    assert [one.placement for one in found.placements] == ["edgetpu", "cpu", "cpu"]
    assert found.facts["kind"] == "estimated"
    text = "\n".join(inspection_lines(found))
    assert "placement (estimated): 1 edgetpu, 2 cpu" in text
    assert "operation not supported" in text


def test_without_a_target_nothing_is_placed(tflite_file):
    found = inspect_artifact(tflite_file())
    assert found.placements == ()
    assert found.activation_bytes == 2 * 128  # conv's output and relu's, 1x4x4x8 each


def test_a_transpose_is_named(tflite_file):
    found = inspect_artifact(tflite_file("TRANSPOSE"))
    assert any(note.startswith("transposes: TRANSPOSE 't1'") for note in found.notes)


def test_a_model_too_large_for_the_board_is_reported(tflite_file):
    target = load_target("coral")
    small = target.model_copy(
        update={"hardware": target.hardware.model_copy(update={"memory_bytes": 100})}
    )
    found = inspect_artifact(tflite_file(), small)
    assert any("does not fit" in note for note in found.notes)


def test_an_unknown_kind_of_file_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(InputError) as caught:
        inspect_artifact(tmp_path / "model.onx")
    assert caught.value.allowed == ".tflite, .onnx, .pt2, .so"
    assert caught.value.hint == "did you mean '.onnx'?"


@pytest.mark.parametrize("suffix", ["tflite", "onnx", "pt2", "so"])
def test_a_file_of_noise_is_one_input_error(tmp_path, suffix):
    path = tmp_path / f"noise.{suffix}"
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(InputError) as caught:
        inspect_artifact(path, load_target("coral"))
    assert caught.value.where == str(Path(path))


def test_mutated_files_are_placed_or_refused_but_never_crash(tflite_file):
    path = tflite_file("STRIDED_SLICE")
    content = path.read_bytes()
    dice = np.random.default_rng(5)
    target = load_target("coral")
    refused = 0
    for _ in range(400):
        mutant = bytearray(content)
        for _ in range(int(dice.choice([1, 2, 10]))):
            mutant[int(dice.integers(8, len(mutant)))] = int(dice.integers(256))
        path.write_bytes(mutant)
        try:
            inspect_artifact(path, target)
        except InputError:
            refused += 1
    assert 50 < refused < 400
