"""Post-training quantization of a TFLite file: Google's quantizer works on the file itself."""

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.errors import InputError, MissingPackage, ToolError, first_line
from edgekd.formats.graph import float_islands
from edgekd.formats.tflite import read_tflite

RECIPES = {"int8": "static_wi8_ai8", "int4": "dynamic_wi4_afp32"}
"""The quantizer's recipe for a type: int8 throughout, or weights of four bits alone."""


def tflite_file_fault(path: Path, dtype: str, where: str) -> InputError | None:
    """Why a file can't be quantized to that type, if it can't."""
    graph = read_tflite(path)
    kinds = {tensor.dtype for tensor in graph.tensors.values() if tensor.constant_bytes is None}
    if kinds & {"int8", "uint8", "int16"} and not float_islands(graph):
        return InputError("already quantized", where=str(path), hint="leave the stage out")
    if dtype == "int8" and not graph.facts["signature"]:
        return InputError(
            "it has no signature, by which the quantizer calls it",
            where=str(path),
            hint="convert the model again, with a converter of today",
        )
    if dtype not in (*RECIPES, "fp16"):
        return InputError(
            f"a TFLite file can't be quantized to {dtype}",
            where=where,
            allowed=", ".join((*RECIPES, "fp16")),
        )
    return None


def quantize_tflite(path: Path, samples: Sequence[Sequence[np.ndarray]], dtype: str) -> bytes:
    """The quantized file. `samples` are inputs with a batch of one, in the file's order, which set
    the ranges of int8.

    Raises `MissingPackage` without ai-edge-quantizer, `ToolError` if it fails on the file.
    """
    try:
        from ai_edge_quantizer import quantizer, recipe
    except ImportError:
        raise MissingPackage("ai-edge-quantizer", "tflite", where=str(path)) from None
    from edgekd.quant.litert import half_weights

    if dtype == "fp16":
        return half_weights(path.read_bytes())
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            tool = quantizer.Quantizer(str(path), getattr(recipe, RECIPES[dtype])())
            ranges = tool.calibrate(_calls(path, samples)) if tool.need_calibration else None
            return bytes(tool.quantize(ranges, enable_progress_report=False).quantized_model)
    except Exception as error:  # whatever the quantizer makes of a foreign file
        message = f"ai-edge-quantizer failed: {first_line(error)}"
        raise ToolError(message, where=str(path)) from error


def _calls(path: Path, samples: Sequence[Sequence[np.ndarray]]) -> dict[str, Any]:
    """The samples by the name of the signature and of its inputs."""
    main = read_tflite(path)
    name = str(main.facts["signature"])
    called = read_tflite(path, name)
    rows = []
    for arrays in samples:
        by_key = dict(zip(main.inputs, arrays, strict=True))
        rows.append({called.tensors[key].name: by_key[key] for key in called.inputs})
    return {name: rows}
