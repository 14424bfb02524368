"""What several tests share: the command line, and a model file, small and made once."""

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from backend_marker import skip_without_backends

from edgekd.installed import switch_telemetry_off

switch_telemetry_off()  # some tests import the libraries themselves


def pytest_runtest_setup(item: pytest.Item) -> None:
    skip_without_backends(item)


@pytest.fixture(autouse=True)
def _network_as_it_was():
    """`--offline` holds for the process that it is given to, which here runs other tests next."""
    environment, connects = dict(os.environ), (socket.socket.connect, socket.socket.connect_ex)
    yield
    os.environ.clear()
    os.environ.update(environment)
    socket.socket.connect, socket.socket.connect_ex = connects


def _tensor(schema, name, shape, kind, buffer=0, scale=None, zero=0):
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), kind, buffer
    if scale is not None:
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale = np.asarray([scale], np.float32)
        tensor.quantization.zeroPoint = np.asarray([zero], np.int64)
    return tensor


def _operator(schema, code, inputs, outputs, options=None):
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = code, inputs, outputs
    if options is not None:
        kind = type(options).__name__.removesuffix("T")
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        operator.builtinOptions = options
    return operator


@pytest.fixture
def tflite_file(tmp_path) -> Callable[..., Path]:
    """Writes an int8 TFLite file: CONV_2D (weights 8x1x1x4, bias), then `middle`, then RELU.

    Without a `middle` it has two operators. Input 1x4x4x4, scale 0.5, zero point -1.
    """

    def write(middle: str = "", path: Path = tmp_path / "model.tflite") -> Path:
        import flatbuffers
        from ai_edge_litert import schema_py_generated as schema

        int8, int32 = schema.TensorType.INT8, schema.TensorType.INT32
        names = ["CONV_2D", *([middle] if middle else []), "RELU"]
        model, graph = schema.ModelT(), schema.SubGraphT()
        graph.tensors = [
            _tensor(schema, "x", (1, 4, 4, 4), int8, 0, 0.5, -1),
            _tensor(schema, "weight", (8, 1, 1, 4), int8, 1, 0.25),
            _tensor(schema, "bias", (8,), int32, 2, 0.125),
            *[_tensor(schema, f"t{i}", (1, 4, 4, 8), int8, 0, 0.5) for i in range(len(names))],
        ]
        options = schema.Conv2DOptionsT()
        options.dilationHFactor = options.dilationWFactor = 1
        options.strideH = options.strideW = 1
        graph.operators = [_operator(schema, 0, [0, 1, 2], [3], options)]
        graph.operators += [_operator(schema, i, [2 + i], [3 + i]) for i in range(1, len(names))]
        graph.inputs, graph.outputs, graph.name = [0], [2 + len(names)], "main"
        buffers = [schema.BufferT() for _ in range(3)]
        buffers[1].data = np.arange(32, dtype=np.int8).view(np.uint8)
        buffers[2].data = np.arange(8, dtype=np.int32).view(np.uint8)
        model.version, model.subgraphs, model.buffers = 3, [graph], buffers
        model.operatorCodes = []
        for name in names:
            code = schema.OperatorCodeT()
            code.builtinCode = getattr(schema.BuiltinOperator, name)
            code.deprecatedBuiltinCode = min(code.builtinCode, 127)
            model.operatorCodes.append(code)
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        return path

    return write


@pytest.fixture
def edgekd(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line: exit code, stdout and stderr. A traceback is a failure."""
    from edgekd import cli

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["edgekd", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture
def open_onnx(tmp_path):
    """One Relu whose two sizes are open."""
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    shapes = [helper.make_tensor_value_info(n, kinds.FLOAT, ("n", "w")) for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "r", shapes[:1], shapes[1:])
    path = tmp_path / "open.onnx"
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path
