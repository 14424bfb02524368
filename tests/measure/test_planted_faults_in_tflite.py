"""A fault of one layer of a TFLite file fails the parity check, which names the layer.

The faults are planted by editing the flatbuffer: what is run is a file that a converter with such a
fault would write.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from untrained import trained_looking

from edgekd.backends.tflite import Tflite
from edgekd.data.samples import Samples
from edgekd.data.tasks.classification import CLASSIFICATION
from edgekd.devices.opening import open_device
from edgekd.formats.operator_notes import converted_layer
from edgekd.formats.tflite import read_tflite
from edgekd.formats.tflite_metadata import aligned, packed, unpacked
from edgekd.measure.inference import infer_samples
from edgekd.measure.parity import Parity
from edgekd.network.evaluation import predict
from edgekd.quant.calibration import calibrate
from edgekd.run.compiled import Compiled
from edgekd.run.proof.parity_check import parity_of
from edgekd.run.proof.place import Place
from edgekd.values.artifact import Artifact
from edgekd.values.candidate import Candidate
from edgekd.values.target import load_target

SIDE, COUNT = 32, 8
SAMPLES = torch.randn(COUNT, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
TARGET = load_target("raspberry-pi-4")

LAYERS = {
    "resnet18": "layer2.0.conv2",
    "mobilenetv2_050": "blocks.3.0.conv_dw",
    "efficientnet_lite0": "blocks.2.1.conv_dw",
}
"""timm's networks, and the layer of each that is to be wrong: a kernel that is not symmetric."""


@pytest.fixture(scope="module", params=LAYERS)
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Candidate, Artifact, str]:
    """The quantized candidate, its TFLite file, and the layer that is to be wrong."""
    module = trained_looking(request.param)
    graph = calibrate(module, SAMPLES[:1], SAMPLES, TARGET.quantization)
    candidate = Candidate(graph, SAMPLES[:1], "int8")
    folder = tmp_path_factory.mktemp(request.param)
    (artifact,) = Tflite().compile(candidate, TARGET, {}, folder)
    return candidate, artifact, LAYERS[request.param]


class _Layer:
    """The operator of a TFLite file that computes one layer, and what it reads."""

    def __init__(self, path: Path, layer: str) -> None:
        self.content = path.read_bytes()
        self.model = unpacked(self.content)
        self.graph = self.model.subgraphs[0]
        ops = [
            place for place, op in enumerate(read_tflite(path).ops)
            if converted_layer(op.name) == layer and "CONV" in op.op
        ]  # fmt: skip
        (self.place,) = ops
        self.op = self.graph.operators[self.place]

    @property
    def weight(self) -> Any:
        return self.graph.tensors[self.op.inputs[1]]

    @property
    def bias(self) -> Any:
        return self.graph.tensors[self.op.inputs[2]]

    @property
    def output(self) -> Any:
        return self.graph.tensors[self.op.outputs[0]]

    def values(self, tensor: Any, dtype: Any) -> np.ndarray:
        data = np.asarray(self.model.buffers[tensor.buffer].data, np.uint8)
        return data.view(dtype).reshape(tensor.shape)

    def change(self, tensor: Any, values: np.ndarray) -> None:
        """Give a constant other values, in a buffer that no other tensor shares."""
        from ai_edge_litert import schema_py_generated as schema

        buffer = schema.BufferT()
        buffer.Pack = aligned(schema, buffer)
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        tensor.buffer = len(self.model.buffers) - 1

    def written(self, path: Path) -> None:
        path.write_bytes(packed(self.model, 2 * len(self.content)))


def transposed_weight(layer: _Layer) -> None:
    """The kernel's height and width are exchanged: (O, H, W, I), or (1, H, W, O)."""
    layer.change(layer.weight, layer.values(layer.weight, np.int8).swapaxes(1, 2))


def wrong_zero_point(layer: _Layer) -> None:
    """The layer reads its input three steps beside what was written: a RESHAPE, which copies
    bytes, hands it over under another zero point."""
    from ai_edge_litert import schema_py_generated as schema

    source = int(layer.op.inputs[0])
    shifted = copy.deepcopy(layer.graph.tensors[source])
    shifted.name, shifted.buffer = b"planted", 0
    shifted.quantization.zeroPoint = np.asarray(shifted.quantization.zeroPoint) + 3
    layer.graph.tensors.append(shifted)
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.RESHAPE
    code.version = 1
    layer.model.operatorCodes.append(code)
    sizes = copy.deepcopy(layer.bias)
    sizes.name, sizes.quantization, sizes.shape = b"planted_sizes", None, [len(shifted.shape)]
    layer.change(sizes, np.asarray(shifted.shape, np.int32))
    layer.graph.tensors.append(sizes)
    moving = schema.OperatorT()
    moving.opcodeIndex = len(layer.model.operatorCodes) - 1
    moving.inputs = [source, len(layer.graph.tensors) - 1]
    moving.outputs = [len(layer.graph.tensors) - 2]
    layer.graph.operators.insert(layer.place, moving)
    layer.op.inputs = [len(layer.graph.tensors) - 2, *layer.op.inputs[1:]]


def wrong_rounding(layer: _Layer) -> None:
    """Outputs are rounded down instead of to the nearest."""
    half = 0.5 * layer.output.quantization.scale[0] / np.asarray(layer.bias.quantization.scale)
    moved = layer.values(layer.bias, np.int32) - np.round(half).astype(np.int32)
    layer.change(layer.bias, moved.astype(np.int32))


def judged(candidate: Candidate, artifact: Artifact) -> Parity:
    """The parity check of a run."""
    samples = Samples(SAMPLES, torch.zeros(COUNT, dtype=torch.int64))
    host = open_device("host")
    try:
        outputs = infer_samples(host, artifact, samples, {})
        reference = predict(candidate.module, samples)
        compiled = Compiled(artifact, candidate)
        given = (TARGET, Place(host), compiled, samples, outputs, reference, CLASSIFICATION)
        return parity_of(*given)
    finally:
        host.close()


@pytest.mark.slow
def test_a_right_file_passes(made: tuple[Candidate, Artifact, str]) -> None:
    candidate, artifact, _ = made
    assert judged(candidate, artifact).verdict == "pass"


@pytest.mark.slow
@pytest.mark.parametrize("fault", [transposed_weight, wrong_zero_point, wrong_rounding])
def test_a_planted_fault_fails_the_parity_check_which_names_its_layer(
    made: tuple[Candidate, Artifact, str], fault: Callable[[_Layer], None], tmp_path: Path
) -> None:
    candidate, artifact, name = made
    layer = _Layer(artifact.path, name)
    fault(layer)
    layer.written(tmp_path / "model.tflite")
    wrong = artifact.model_copy(update={"path": tmp_path / "model.tflite"})
    parity = judged(candidate, wrong)
    assert parity.verdict == "fail"
    assert parity.first_difference.startswith(f"{name} (")
