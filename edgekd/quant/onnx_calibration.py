"""Post-training quantization of an ONNX file: NNCF calibrates the file itself."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from edgekd.errors import InputError, MissingPackage, ToolError, first_line
from edgekd.formats.onnx_file import read_onnx
from edgekd.values.target import Scheme
from edgekd.values.tree import Tree, count, named_leaves


def calibrate_onnx(
    path: Path, samples: Tree, scheme: Scheme, *, bias_correction: bool = True
) -> Any:
    """The int8 QDQ model (an `onnx.ModelProto`) of a float ONNX file.

    `samples`, a tree of tensors (N, ...), set the ranges, one at a time.
    `scheme` decides: symmetric activations are int8 with the zero point 0, affine ones NNCF's uint8
    for CPUs; weights are symmetric, per channel or per tensor, in eight or seven bits.

    Raises `InputError` for a file that is already quantized or takes other inputs, `ToolError` if
    NNCF fails on it.
    """
    graph = read_onnx(path)
    if "QuantizeLinear" in graph.counts:
        raise InputError("already quantized", where=str(path), hint="leave the quantize stage out")
    nncf = _import_nncf()
    import onnx

    feeds = _feeds(graph.inputs, samples, path)
    dataset = nncf.Dataset(feeds, lambda feed: feed)
    seven = scheme.weight_bits == 7
    overflow = nncf.OverflowFix.ENABLE if seven else nncf.OverflowFix.DISABLE
    try:
        with redirect_stdout(io.StringIO()), _depthwise_too():
            model = nncf.quantize(
                onnx.load(path),
                dataset,
                target_device=nncf.TargetDevice.CPU,
                subset_size=len(feeds),
                fast_bias_correction=bias_correction,
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    overflow_fix=overflow, **_parameters(scheme)
                ),
            )
    except Exception as error:  # NNCF raises whatever its passes meet
        first = first_line(error)
        raise ToolError(f"NNCF can't calibrate this file: {first}", where=str(path)) from None
    return _signed(model) if scheme.activations == "int8-symmetric" else model


def _import_nncf() -> Any:
    """NNCF without its log lines. Raises `MissingPackage` where it is not installed."""
    try:
        import nncf
    except ImportError:
        raise MissingPackage("nncf", "nncf", where="quantize") from None
    from nncf.common.logging.logger import disable_logging

    disable_logging()
    return nncf


def _feeds(names: Sequence[str], samples: Tree, path: Path) -> list[dict[str, Any]]:
    """Each sample as the file's inputs: by name where all names agree, otherwise in order."""
    given = named_leaves(samples)
    if len(given) != len(names):
        raise InputError(
            f"it takes {len(names)} inputs ({', '.join(names)}), but a sample has {len(given)}",
            where=str(path),
            allowed=", ".join(given),
        )
    order = list(names) if set(names) == set(given) else list(given)
    pairs = list(zip(names, order, strict=True))
    return [
        {name: given[leaf][n : n + 1].numpy() for name, leaf in pairs}
        for n in range(count(samples))
    ]


def _parameters(scheme: Scheme) -> dict[str, Any]:
    """NNCF's parameters for weights, and for activations where its CPU rules don't apply."""
    from nncf.common.quantization.structs import QuantizationScheme
    from nncf.quantization.advanced_parameters import QuantizationParameters

    mode = QuantizationScheme.SYMMETRIC
    weights = QuantizationParameters(mode=mode, per_channel=scheme.per_channel)
    parameters = {"weights_quantization_params": weights}
    if scheme.activations == "int8-symmetric":
        parameters["activations_quantization_params"] = QuantizationParameters(mode=mode)
    return parameters


def _signed(model: Any) -> Any:
    """The same model with every activation on a symmetric int8 grid that covers the same range.

    NNCF uses uint8 for a range without negative values, and none of its devices has an option for
    int8. The new scale is max(|low|, |high|) / 127, the zero point 0.
    """
    import numpy as np
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.input) < 3:
            continue
        scale, zero = (constants.get(name) for name in node.input[1:3])
        if scale is None or zero is None:
            continue
        step, offset = numpy_helper.to_array(scale), numpy_helper.to_array(zero)
        if offset.dtype != np.uint8:
            continue
        low, high = -step * offset.astype(step.dtype), step * (255 - offset.astype(step.dtype))
        bound = np.maximum(np.abs(low), np.abs(high))
        scale.CopyFrom(numpy_helper.from_array(np.asarray(bound / 127, step.dtype), scale.name))
        zero.CopyFrom(numpy_helper.from_array(np.zeros_like(offset, np.int8), zero.name))
    del model.graph.value_info[:]  # they name the former types
    return model


@contextmanager
def _depthwise_too() -> Iterator[None]:
    """Apply seven-bit weights to depthwise convolutions as well. NNCF 3.4 compares types exactly,
    and its list of types whose range is halved (`overflow_fix_metatypes`) has convolutions but not
    their depthwise subtype.
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
