"""The way without training for an ONNX file alone: NNCF calibrates the file itself."""

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgekd.errors import InputError, ToolError, first_line
from edgekd.formats.onnx_file import read_onnx
from edgekd.quant.calibration import import_nncf
from edgekd.values.target import Scheme


def calibrate_onnx(
    path: Path, samples: Tensor, scheme: Scheme, *, bias_correction: bool = True
) -> Any:
    """The int8 QDQ model (an `onnx.ModelProto`) of a float ONNX file.

    `samples` (N, ...) set the ranges, one at a time where the file has a fixed batch of one. NNCF
    chooses the scheme for CPUs: uint8 activations, int8 weights per channel (NNCF 3,
    `nncf.quantize`); `scheme` says whether weights keep to seven bits. Raises `InputError` for a
    file that is quantized already or has several inputs, `ToolError` if NNCF fails on it.
    """
    graph = read_onnx(path)
    if len(graph.inputs) != 1:
        raise InputError(f"{len(graph.inputs)} inputs", where=str(path), allowed="one input")
    if "QuantizeLinear" in graph.counts:
        raise InputError("quantized already", where=str(path), hint="leave the quantize stage out")
    nncf = import_nncf("quantize")
    import onnx

    (name,) = graph.inputs
    rows = nncf.Dataset(list(torch.split(samples, 1)), lambda row: {name: row.numpy()})
    seven = scheme.weight_bits == 7
    overflow = nncf.OverflowFix.ENABLE if seven else nncf.OverflowFix.DISABLE
    try:
        with redirect_stdout(io.StringIO()), _depthwise_too():
            return nncf.quantize(
                onnx.load(path),
                rows,
                target_device=nncf.TargetDevice.CPU,
                subset_size=len(samples),
                fast_bias_correction=bias_correction,
                advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=overflow),
            )
    except Exception as error:  # NNCF raises whatever its passes meet
        first = first_line(error)
        raise ToolError(f"NNCF can't calibrate this file: {first}", where=str(path)) from None


@contextmanager
def _depthwise_too() -> Iterator[None]:
    """Seven-bit weights for depthwise convolutions as well.

    NNCF 3.4 compares kinds exactly, and its list of those whose range is halved
    (`overflow_fix_metatypes`) has convolutions but not their depthwise subtype.
    """
    from nncf.onnx.graph.metatypes.onnx_metatypes import ONNXDepthwiseConvolutionMetatype
    from nncf.quantization.algorithms.min_max.onnx_backend import ONNXMinMaxAlgoBackend

    before: Any = ONNXMinMaxAlgoBackend.overflow_fix_metatypes
    kinds = property(lambda self: [*before.fget(self), ONNXDepthwiseConvolutionMetatype])
    setattr(ONNXMinMaxAlgoBackend, "overflow_fix_metatypes", kinds)  # noqa: B010
    try:
        yield
    finally:
        setattr(ONNXMinMaxAlgoBackend, "overflow_fix_metatypes", before)  # noqa: B010
