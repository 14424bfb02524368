"""The peers' own quantizers: a float file in, an int8 file out, calibrated on given samples."""

from pathlib import Path
from typing import Any

from edgekd.formats.onnx_file import read_onnx


def by_onnxruntime(model: Path, made: Path, samples: Any) -> None:
    """ONNX Runtime's own static quantization."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = made.with_name("prepared.onnx")
    quant_pre_process(model, prepared)
    name = read_onnx(prepared).inputs[0]

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows = iter(samples.split(1))

        def get_next(self) -> dict[str, Any] | None:
            row = next(self.rows, None)
            return None if row is None else {name: row.numpy()}

    quantize_static(
        prepared,
        made,
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


def by_ai_edge_quantizer(model: Path, made: Path, samples: Any) -> None:
    """Google's quantizer for TFLite files, int8 weights and activations."""
    from ai_edge_quantizer import quantizer, recipe

    tool = quantizer.Quantizer(str(model), recipe.static_wi8_ai8())
    signature = tool_signature(model)
    rows = [{signature[1]: _channels_last(row)} for row in samples.split(1)]
    found = tool.calibrate({signature[0]: rows})
    tool.quantize(found).export_model(str(made), overwrite=True)


def tool_signature(model: Path) -> tuple[str, str]:
    """A TFLite file's signature and its input's name."""
    from ai_edge_litert.interpreter import Interpreter

    signatures = Interpreter(str(model)).get_signature_list()
    name = next(iter(signatures))
    return name, signatures[name]["inputs"][0]


def _channels_last(x: Any) -> Any:
    """Images (1, C, H, W) as TFLite files take them; other values as they are."""
    return (x.permute(0, 2, 3, 1) if x.dim() == 4 else x).numpy()
