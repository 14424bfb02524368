"""Every operator as C, bit for bit against LiteRT's reference kernels and the micro runtime's."""

import shutil
from importlib.util import find_spec

import numpy as np
import pytest
from litert_reference import by_litert, by_micro
from operator_cases import CASES, inputs_for

from edgekd.firmware import hosted
from edgekd.firmware.generate import generate

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")

MICRO_ONLY = {
    "ELU": "not among LiteRT's reference kernels",
    "conv grouped, no bias": "LiteRT wants a bias",
    "DIV by every value": "LiteRT has it in float and uint8 alone",
    "DIV by a scalar, relu": "LiteRT has it in float and uint8 alone",
    "sum": "LiteRT 2.3 wraps where the sum leaves int8",
}
LITERT_ONLY = {
    "RELU6": "the micro runtime wants one scale at both ends",
    "RELU_N1_TO_1": "the micro runtime does not have it",
    "RELU_0_TO_1": "the micro runtime does not have it",
    "EXP": "the micro runtime has it in float alone",
    "GELU": "the micro runtime does not have it",
    "SELECT by a constant": "the micro runtime has the second version alone",
    "GELU by tanh": "the micro runtime does not have it",
}


VECTORIZED = ("conv", "depthwise", "fully", "pad into", "ADD of two", "SUB of")
WEIGHTED = [name for name in CASES if name.startswith(VECTORIZED)]
LAYOUTS = [(name, "dsp") for name in CASES] + [
    (name, instructions) for instructions in ("mve", "plain") for name in WEIGHTED
]


def computed(name, folder, flags, instructions):
    content = CASES[name]()
    (folder / "model.tflite").write_bytes(content)
    _, source = generate(folder / "model.tflite", instructions=instructions).write(folder)
    x = inputs_for(content)
    return content, x, hosted.run(hosted.build(source, folder, flags), x)


@pytest.mark.parametrize(("name", "instructions"), LAYOUTS)
def test_an_operator_in_c_gives_the_bytes_of_the_reference_kernels(name, instructions, tmp_path):
    content, x, found = computed(name, tmp_path, ("-O0",), instructions)
    assert len(np.unique(found)) > 1 or name == "SUB with itself"
    if name not in MICRO_ONLY:
        assert np.array_equal(found, by_litert(content, x))
    if name not in LITERT_ONLY and find_spec("tflite_micro"):
        assert np.array_equal(found, by_micro(content, x))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "instructions"), LAYOUTS)
def test_no_operator_leaves_its_memory_or_overflows(name, instructions, tmp_path):
    _, x, outputs = computed(name, tmp_path, ("-O1", *hosted.SANITIZERS), instructions)
    assert len(outputs) == len(x)


@pytest.mark.parametrize(("arithmetic", "oracle"), [("micro", by_micro), ("litert", by_litert)])
@pytest.mark.parametrize("name", ["fully connected, one scale", "fully connected, scales"])
def test_fully_connected_layers_match_whom_the_user_names(arithmetic, oracle, name, tmp_path):
    """The two differ in about one output of six hundred, so many inputs are needed."""
    if oracle is by_micro:
        pytest.importorskip("tflite_micro")
    content = CASES[name]()
    (tmp_path / "model.tflite").write_bytes(content)
    _, source = generate(tmp_path / "model.tflite", arithmetic=arithmetic).write(tmp_path)
    x = np.random.default_rng(3).integers(-128, 128, (3000, 20)).astype(np.int8)
    found = hosted.run(hosted.build(source, tmp_path, ("-O1",)), x)
    assert np.array_equal(found, oracle(content, x))
