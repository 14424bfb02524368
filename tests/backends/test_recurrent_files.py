"""Files of recurrent networks: within a step of the quantized graph, each cell stored once."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from edgekd.backends.onnx import Onnx
from edgekd.backends.onnx.tensors import quantized_tensors
from edgekd.backends.tflite import Tflite
from edgekd.firmware import hosted
from edgekd.firmware.generate import generate
from edgekd.formats.onnx_file import read_onnx
from edgekd.formats.onnx_steps import fold_steps, unfold_steps
from edgekd.network.calling import take_one_argument
from edgekd.quant.calibration import calibrate
from edgekd.quant.inspection import float_islands
from edgekd.values.candidate import Candidate
from edgekd.values.target import load_target

STEPS, INPUTS, HIDDEN = 6, 5, 24


class Net(nn.Module):
    """(B, T, I) -> (B, 3)"""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.layer = kind(INPUTS, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0].mean(1))


@pytest.fixture(scope="module", params=[nn.LSTM, nn.GRU], ids=["LSTM", "GRU"])
def quantized(request: pytest.FixtureRequest) -> tuple[Candidate, Tensor]:
    """An int8 candidate and samples."""
    torch.manual_seed(0)
    net = Net(request.param).eval()
    take_one_argument(net)
    x = torch.randn(32, STEPS, INPUTS)
    graph = calibrate(net, x[:1], x, load_target("x86").quantization)
    return Candidate(graph, x[:1], "int8"), x


def test_nothing_of_a_recurrent_network_stays_in_float(quantized) -> None:
    assert float_islands(quantized[0].module) == []


@pytest.mark.slow
def test_an_onnx_file_stores_the_cell_once_and_is_within_a_step(quantized, tmp_path: Path) -> None:
    import onnxruntime

    candidate, x = quantized
    artifact = Onnx().compile(candidate, load_target("x86"), {}, tmp_path)[0]
    model = onnx.load(artifact.path)
    assert len(model.functions) == 1
    calls = [node for node in model.graph.node if node.op_type == model.functions[0].name]
    assert len(calls) >= STEPS - 2
    floats = sum(4 * parameter.numel() for parameter in Net(nn.LSTM).parameters())
    assert artifact.bytes < 2 * floats
    session = onnxruntime.InferenceSession(str(artifact.path))
    found = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    expected = candidate.module(x).numpy()
    assert artifact.outputs[0].scale is not None
    assert np.abs(found - expected).max() <= 1.01 * artifact.outputs[0].scale
    assert len(quantized_tensors(artifact.path, [x[:1].numpy()])) > 10 * STEPS
    operators = [op.op for op in read_onnx(artifact.path).ops]
    assert "Tanh" not in operators, "it is computed by the integer kernel of the sigmoid"
    assert operators.count("Sigmoid") + operators.count("QLinearSigmoid") >= 2 * STEPS


def test_blocks_with_weights_of_their_own_are_not_folded() -> None:
    blocks = [nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Sigmoid(), nn.Tanh()) for _ in range(6)]
    model = onnx_of(nn.Sequential(*blocks))
    fold_steps(model)
    assert not model.functions


def test_unfolding_gives_back_the_operators_of_every_step() -> None:
    class Repeated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(5):
                x = torch.tanh(torch.sigmoid(torch.tanh(torch.sigmoid(torch.tanh(self.linear(x))))))
            return x

    model = onnx_of(Repeated())
    before = [node.op_type for node in model.graph.node]
    fold_steps(model)
    calls = [node.op_type for node in model.graph.node if node.domain]
    assert calls == ["step0"] * 4  # the first reads an input, no value
    onnx.checker.check_model(model)
    after = [node.op_type for node in unfold_steps(model).graph.node]
    assert [kind for kind in after if kind != "Constant"] == before


def onnx_of(module: nn.Module) -> onnx.ModelProto:
    from edgekd.backends.onnx.export import to_onnx

    take_one_argument(module.eval())
    return to_onnx(module, torch.randn(1, 4))


@pytest.mark.slow
def test_a_tflite_file_is_within_a_step_and_wholly_in_integers(quantized, tmp_path: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    candidate, x = quantized
    artifact = Tflite().compile(candidate, load_target("x86"), {}, tmp_path)[0]
    assert not artifact.notes
    interpreter = Interpreter(model_path=str(artifact.path), num_threads=1)
    interpreter.allocate_tensors()
    entry, exit_ = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scale, zero = entry["quantization"]
    steps = np.clip(np.round(x.numpy() / scale) + zero, -128, 127).astype(np.int8)
    rows = []
    for row in steps:
        interpreter.set_tensor(entry["index"], row[None])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(exit_["index"])[0].astype(float))
    scale, zero = exit_["quantization"]
    found = (np.stack(rows) - zero) * scale
    assert np.abs(found - candidate.module(x).numpy()).max() <= 1.01 * scale


class Streaming(nn.Module):
    """One frame and the state in, two logits and the next state out."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(4, 8), nn.Linear(8, 2)

    def forward(self, frame: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = self.cell(frame, state)
        return self.head(state), state


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_a_streaming_cell_in_c_gives_the_bytes_of_the_reference_kernels(tmp_path: Path) -> None:
    """Over 20 frames, each with the state that the frame before it left."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    torch.manual_seed(0)
    net = Streaming().eval()
    take_one_argument(net)
    x = {"frame": torch.randn(64, 4), "state": torch.rand(64, 8) * 2 - 1}
    example = {name: value[:1] for name, value in x.items()}
    target = load_target("cortex-m4")
    candidate = Candidate(calibrate(net, example, x, target.quantization), example, "int8")
    artifact = Tflite().compile(candidate, target, {}, tmp_path)[0]
    state_in, state_out = artifact.inputs[1], artifact.outputs[1]
    assert (state_in.scale, state_in.zero_point) == (state_out.scale, state_out.zero_point)
    _, source = generate(artifact.path, arithmetic="litert").write(tmp_path)
    program = hosted.build(source, tmp_path, ("-O1",))
    kernels = OpResolverType.BUILTIN_REF
    interpreter = Interpreter(str(artifact.path), experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    frames = np.random.default_rng(0).integers(-128, 128, (20, 1, 4), np.int8)
    state = np.full((1, 8), state_in.zero_point, np.int8)
    for frame in frames:
        for entry, value in zip(interpreter.get_input_details(), (frame, state), strict=True):
            interpreter.set_tensor(entry["index"], value)
        interpreter.invoke()
        expected = [
            interpreter.get_tensor(one["index"]) for one in interpreter.get_output_details()
        ]
        found = hosted.run(program, np.concatenate([frame, state], axis=1))
        assert np.array_equal(found, np.concatenate(expected, axis=1))
        state = found[:, 2:]
