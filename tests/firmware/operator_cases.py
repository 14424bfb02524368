"""One small file for each operator and each of its branches."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from tflite_files import O, T, integers, tflite

CASES: dict[str, Callable[[], bytes]] = {}


def case(name: str) -> Callable[[Callable[[], bytes]], Callable[[], bytes]]:
    def keep(make: Callable[[], bytes]) -> Callable[[], bytes]:
        CASES[name] = make
        return make

    return keep


def chance() -> np.random.Generator:
    return np.random.default_rng(7)


def single(
    kind: str,
    source: T,
    output: T,
    others: Sequence[T] = (),
    table: str = "",
    **options: Any,
) -> bytes:
    """One operator from the only input to the only output."""
    tensors = [source, *others, output]
    last = len(tensors) - 1
    op = O(kind, list(range(last)), [last], options, table)
    return tflite(tensors, [op], [0], [last])


def convolution(
    shape: Sequence[int],
    filter_shape: Sequence[int],
    out_shape: Sequence[int],
    *,
    depth: int = 0,
    per_channel: bool = True,
    bias: bool = True,
    out_scale: float = 0.11,
    largest: int = 127,
    least: int | None = None,
    **options: Any,
) -> bytes:
    axis = 3 if depth else 0
    channels = filter_shape[axis]
    scales = [0.01 + 0.002 * n for n in range(channels)] if per_channel else 0.013
    values = chance().integers(-largest, largest + 1, filter_shape)
    if least is not None:
        values.flat[0] = least
    weights = T(filter_shape, scales, 0, values, axis=axis)
    others = [weights]
    if bias:
        others.append(integers(chance().integers(-24 * largest, 24 * largest, channels)))
    fields = {"strideH": 1, "strideW": 1, "padding": 0, **options}
    if depth:
        fields["depthMultiplier"] = depth
    kind = "DEPTHWISE_CONV_2D" if depth else "CONV_2D"
    table = "DepthwiseConv2DOptions" if depth else "Conv2DOptions"
    return single(kind, T(shape, 0.04, 3), T(out_shape, out_scale, -7), others, table, **fields)


case("conv same")(lambda: convolution((1, 5, 6, 3), (7, 3, 3, 3), (1, 5, 6, 7)))
case("conv valid, stride 2, relu")(
    lambda: convolution(
        (1, 7, 8, 2), (4, 3, 2, 2), (1, 3, 4, 4), padding=1, strideH=2, strideW=2,
        fusedActivationFunction=1,
    )
)  # fmt: skip
case("conv dilated, relu6")(
    lambda: convolution(
        (1, 9, 9, 2), (5, 3, 3, 2), (1, 9, 9, 5), dilationHFactor=2, dilationWFactor=3,
        fusedActivationFunction=3,
    )
)  # fmt: skip
case("conv grouped, no bias")(
    lambda: convolution((1, 4, 4, 6), (9, 3, 3, 2), (1, 4, 4, 9), bias=False)
)
case("conv one scale, two images, relu n1 to 1")(
    lambda: convolution(
        (2, 4, 4, 3), (2, 1, 1, 3), (2, 4, 4, 2), per_channel=False, fusedActivationFunction=2
    )
)
case("conv that scales up")(
    lambda: convolution((1, 4, 4, 1), (3, 2, 2, 1), (1, 4, 4, 3), out_scale=0.0002, largest=1)
)
case("conv of words, stride 2")(
    lambda: convolution((1, 7, 9, 4), (5, 3, 3, 4), (1, 4, 5, 5), strideH=2, strideW=2)
)
case("conv of one tap, relu6")(
    lambda: convolution((1, 3, 5, 8), (6, 1, 1, 8), (1, 3, 5, 6), fusedActivationFunction=3)
)
case("conv of one tap, stride 2")(
    lambda: convolution((1, 5, 5, 12), (4, 1, 1, 12), (1, 3, 3, 4), strideH=2, strideW=2)
)
case("conv wider than its input")(
    lambda: convolution((1, 2, 2, 4), (3, 5, 5, 4), (1, 2, 2, 3), out_scale=0.5)
)
case("conv of 603 values a column")(
    lambda: convolution((1, 2, 3, 67), (3, 3, 3, 67), (1, 2, 3, 3), out_scale=2.0)
)
case("conv as large as its input")(
    lambda: convolution((1, 3, 5, 3), (6, 3, 5, 3), (1, 1, 1, 6), padding=1, out_scale=0.3)
)
case("conv with a weight of -128")(
    lambda: convolution((1, 3, 4, 4), (4, 1, 1, 4), (1, 3, 4, 4), least=-128)
)
case("depthwise of one channel to four")(
    lambda: convolution((1, 7, 6, 1), (1, 5, 4, 4), (1, 4, 3, 4), depth=4, strideH=2, strideW=2)
)
case("depthwise 3x3, stride 2, relu6")(
    lambda: convolution(
        (1, 7, 9, 6), (1, 3, 3, 6), (1, 4, 5, 6), depth=1, strideH=2, strideW=2,
        fusedActivationFunction=3,
    )
)  # fmt: skip
case("depthwise 3x3, stride 2, even, two images")(
    lambda: convolution(
        (2, 6, 8, 5), (1, 3, 3, 5), (2, 3, 4, 5), depth=1, strideH=2, strideW=2, bias=False
    )
)
case("depthwise of 37 channels")(
    lambda: convolution((1, 4, 5, 37), (1, 5, 3, 37), (1, 2, 3, 37), depth=1, strideH=2, strideW=2)
)
case("depthwise 3x3, valid")(
    lambda: convolution((1, 6, 5, 3), (1, 3, 3, 3), (1, 4, 3, 3), depth=1, padding=1)
)
case("depthwise")(lambda: convolution((1, 5, 6, 5), (1, 3, 3, 5), (1, 5, 6, 5), depth=1))
case("depthwise, depth 3, stride 2")(
    lambda: convolution(
        (1, 6, 6, 2), (1, 3, 3, 6), (1, 3, 3, 6), depth=3, strideH=2, strideW=2,
        fusedActivationFunction=1,
    )
)  # fmt: skip
case("depthwise dilated, valid")(
    lambda: convolution(
        (1, 8, 8, 4), (1, 3, 3, 4), (1, 4, 4, 4), depth=1, padding=1, dilationHFactor=2,
        dilationWFactor=2,
    )
)  # fmt: skip


def padded(kind: str, second: bool = False) -> bytes:
    """A PAD before a convolution; with `second`, one that something else reads too."""
    convolved = {"strideH": 2, "strideW": 2, "padding": 1}
    depthwise = kind == "DEPTHWISE_CONV_2D"
    table = "DepthwiseConv2DOptions" if depthwise else "Conv2DOptions"
    if depthwise:
        convolved["depthMultiplier"] = 1
    shape = (1, 3, 3, 4) if depthwise else (4, 3, 3, 4)
    axis = 3 if depthwise else 0
    tensors = [
        T((1, 6, 6, 4), 0.04, 9),
        integers([[0, 0], [1, 1], [0, 2], [0, 0]]),
        T((1, 8, 8, 4), 0.04, 9),
        T(shape, [0.01, 0.02, 0.03, 0.04], 0, chance().integers(-127, 128, shape), axis=axis),
        T((1, 3, 3, 4), 0.2, 1),
        T((1, 4, 4, 4), 0.04, 9),
        T((1, 3, 3, 4), 0.04, 9),
        T((1, 3, 3, 4), 0.2, 1),
        integers([100, -200, 300, 0]),
    ]
    ops = [O("PAD", [0, 1], [2]), O(kind, [2, 3, 8], [4], convolved, table)]
    if second:
        pool = {"strideH": 2, "strideW": 2, "filterHeight": 3, "filterWidth": 3, "padding": 1}
        ops.append(O("AVERAGE_POOL_2D", [2], [6], pool, "Pool2DOptions"))
        ops.append(O("ADD", [4, 6], [7], {}, "AddOptions"))
        return tflite(tensors, ops, [0], [7])
    return tflite(tensors, ops, [0], [4])


def padded_maximum(value: int) -> bytes:
    """A PADV2 before a pool of the maximum, whose last window is on the padding alone."""
    tensors = [
        T((1, 6, 5, 3), 0.05, 7),
        integers([[0, 0], [1, 3], [2, 0], [0, 0]]),
        T((1,), 0.05, 7, [value]),
        T((1, 10, 7, 3), 0.05, 7),
        T((1, 5, 3, 3), 0.05, 7),
    ]
    pool = {"strideH": 2, "strideW": 2, "filterHeight": 2, "filterWidth": 3, "padding": 1}
    ops = [
        O("PADV2", [0, 1, 2], [3], {}, "PadV2Options"),
        O("MAX_POOL_2D", [3], [4], pool, "Pool2DOptions"),
    ]
    return tflite(tensors, ops, [0], [4])


case("pad into maximum")(lambda: padded_maximum(-128))
case("pad of another value before a maximum")(lambda: padded_maximum(20))
case("pad into conv")(lambda: padded("CONV_2D"))
case("pad into depthwise")(lambda: padded("DEPTHWISE_CONV_2D"))
case("pad that a pool reads too")(lambda: padded("CONV_2D", True))


def dense(per_channel: bool, shape: Sequence[int], out: Sequence[int], bias: bool = True) -> bytes:
    inputs, outputs = shape[-1], out[-1]
    scales = [0.004 + 0.001 * n for n in range(outputs)] if per_channel else 0.006
    weights = T((outputs, inputs), scales, 0, chance().integers(-127, 128, (outputs, inputs)))
    others = [weights]
    if bias:
        others.append(integers(chance().integers(-2000, 2000, outputs)))
    return single(
        "FULLY_CONNECTED", T(shape, 0.05, -11), T(out, 0.13, 5), others, "FullyConnectedOptions",
        keepNumDims=len(out) > 2,
    )  # fmt: skip


case("fully connected, one scale")(lambda: dense(False, (1, 20), (1, 9)))
case("fully connected, scales")(lambda: dense(True, (1, 20), (1, 9)))
case("fully connected, 517 inputs")(lambda: dense(True, (1, 517), (1, 6)))
case("fully connected, rows, scales")(lambda: dense(True, (4, 12), (4, 5)))
case("fully connected, rows, no bias")(lambda: dense(False, (2, 3, 8), (2, 3, 5), False))


def pair(
    kind: str, shape: Sequence[int], values: Any, second: Sequence[int], **options: Any
) -> bytes:
    table = {"ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions"}[kind]
    constant = T(second, 0.021, -4, values)
    wide = np.broadcast_shapes(tuple(shape), tuple(second))
    return single(kind, T(shape, 0.05, 6), T(wide, 0.06, -2), [constant], table, **options)


for _kind in ("ADD", "SUB", "MUL"):
    case(f"{_kind} of every pair")(
        lambda kind=_kind: pair(
            kind, (1, 256, 1), np.arange(-128, 128).reshape(1, 1, 256), (1, 1, 256)
        )
    )
    case(f"{_kind} per channel, relu6")(
        lambda kind=_kind: pair(
            kind, (1, 3, 4, 5), chance().integers(-128, 128, 5), (5,), fusedActivationFunction=3
        )
    )
    case(f"{_kind} with itself")(
        lambda kind=_kind: tflite(
            [T((1, 300), 0.05, 6), T((1, 300), 0.07, 1)],
            [O(kind, [0, 0], [1], {}, f"{kind.capitalize()}Options")],
            [0],
            [1],
        )
    )


def quotient(second: Sequence[int], values: Any, **options: Any) -> bytes:
    """Without divisors of 0, for which the runtimes have no result."""
    other = T(second, 0.01, 5, np.where(np.asarray(values) == 5, 6, values))
    shape = (1, 256, 2)
    return single("DIV", T(shape, 0.05, 6), T(shape, 0.015, -2), [other], "DivOptions", **options)


case("DIV by every value")(lambda: quotient((1, 256, 1), np.arange(-128, 128).reshape(1, 256, 1)))
case("DIV by a scalar, relu")(lambda: quotient((1,), [77], fusedActivationFunction=1))


def requantized_pair(kind: str, **options: Any) -> bytes:
    """A tensor and the same on another grid."""
    tensors = [T((1, 37), 0.05, 6), T((1, 37), 0.021, -4), T((1, 37), 0.08, -20)]
    table = f"{kind.capitalize()}Options"
    ops = [O("QUANTIZE", [0], [1], {}, "QuantizeOptions"), O(kind, [0, 1], [2], options, table)]
    return tflite(tensors, ops, [0], [2])


case("ADD of two grids")(lambda: requantized_pair("ADD"))
case("ADD of two grids, relu")(lambda: requantized_pair("ADD", fusedActivationFunction=1))
case("SUB of two grids")(lambda: requantized_pair("SUB"))


def pool(kind: str, padding: int, **options: Any) -> bytes:
    out = (1, 3, 4, 3) if padding == 0 else (1, 2, 3, 3)
    fields = {"strideH": 2, "strideW": 2, "filterHeight": 3, "filterWidth": 2, "padding": padding}
    grid = (0.05, 4)
    return single(
        kind, T((1, 6, 7, 3), *grid), T(out, *grid), (), "Pool2DOptions", **fields, **options
    )


for _kind in ("AVERAGE_POOL_2D", "MAX_POOL_2D"):
    case(f"{_kind} same")(lambda kind=_kind: pool(kind, 0))
    case(f"{_kind} valid, relu")(lambda kind=_kind: pool(kind, 1, fusedActivationFunction=1))


def reduced(kind: str, shape: Any, axes: Any, out: Any, scale: float, keep: bool = False) -> bytes:
    source, output = T(shape, 0.05, 4), T(out, scale, -3)
    return single(kind, source, output, [integers(axes)], "ReducerOptions", keepDims=keep)


case("mean of height and width")(lambda: reduced("MEAN", (1, 5, 5, 6), [1, 2], (1, 6), 0.02))
case("mean, kept dimensions")(
    lambda: reduced("MEAN", (1, 3, 4, 6), [1, 2], (1, 1, 1, 6), 0.02, True)
)
case("mean on the same grid")(
    lambda: single(
        "MEAN", T((1, 7, 1, 6), 0.05, 4), T((1, 6), 0.05, 4), [integers([1, 2])], "ReducerOptions"
    )
)
case("mean over channels, negative axis")(lambda: reduced("MEAN", (2, 3, 40), [-1], (2, 3), 0.02))
case("mean over dimensions apart")(lambda: reduced("MEAN", (2, 3, 4, 5), [0, 2], (3, 5), 0.02))
case("mean of height and channels")(
    lambda: reduced("MEAN", (1, 5, 4, 6), [1, 3], (1, 1, 4, 1), 0.02, True)
)
case("mean of all")(lambda: reduced("MEAN", (1, 5, 4, 6), [0, 1, 2, 3], (1, 1, 1, 1), 0.02, True))
case("sum")(lambda: reduced("SUM", (1, 3, 4, 6), [1, 2], (1, 6), 0.6))
case("softmax")(
    lambda: single(
        "SOFTMAX", T((3, 12), 0.1, 20), T((3, 12), 1 / 256, -128), (), "SoftmaxOptions", beta=1.0
    )
)
case("softmax, sharp, beta 2")(
    lambda: single(
        "SOFTMAX", T((1, 2, 5), 0.7, 0), T((1, 2, 5), 1 / 256, -128), (), "SoftmaxOptions", beta=2.0
    )
)
case("softmax of 1000")(
    lambda: single(
        "SOFTMAX", T((1, 1000), 0.01), T((1, 1000), 1 / 256, -128), (), "SoftmaxOptions", beta=1.0
    )
)

EVERY = (1, 256)


def unary(kind: str, output: T, scale: float = 0.06, **options: Any) -> bytes:
    table = "LeakyReluOptions" if options else ""
    return single(kind, T(EVERY, scale, 9), output, (), table, **options)


case("RELU")(lambda: unary("RELU", T(EVERY, 0.04, -100)))
case("RELU6")(lambda: unary("RELU6", T(EVERY, 0.024, -128)))
case("RELU_N1_TO_1")(lambda: unary("RELU_N1_TO_1", T(EVERY, 0.04, 3)))
case("LEAKY_RELU")(lambda: unary("LEAKY_RELU", T(EVERY, 0.05, -60), alpha=0.1))
case("LOGISTIC")(lambda: unary("LOGISTIC", T(EVERY, 1 / 256, -128)))
case("TANH")(lambda: unary("TANH", T(EVERY, 1 / 128, 0)))
case("ELU")(lambda: unary("ELU", T(EVERY, 0.05, -90)))
case("HARD_SWISH")(lambda: unary("HARD_SWISH", T(EVERY, 0.035, -110)))
case("HARD_SWISH of a wide range")(lambda: unary("HARD_SWISH", T(EVERY, 0.3, -110), 0.5))
case("HARD_SWISH of a narrow range")(lambda: unary("HARD_SWISH", T(EVERY, 0.01, -100), 0.01))
case("QUANTIZE")(
    lambda: single("QUANTIZE", T(EVERY, 0.06, 9), T(EVERY, 0.021, -17), (), "QuantizeOptions")
)


def moved(
    kind: str, shape: Any, out: Any, others: Sequence[T], table: str = "", **options: Any
) -> bytes:
    grid = (0.05, 7)
    return single(kind, T(shape, *grid), T(out, *grid), others, table, **options)


case("RESHAPE between")(
    lambda: tflite(
        [T((1, 4, 6)), integers([2, 12]), T((2, 12)), T((2, 12), 0.06, 1)],
        [
            O("RESHAPE", [0, 1], [2], {"newShape": [2, 12]}, "ReshapeOptions"),
            O("ADD", [2, 2], [3], {}, "AddOptions"),
        ],
        [0],
        [3],
    )
)
case("TRANSPOSE")(lambda: moved("TRANSPOSE", (2, 3, 4, 5), (2, 5, 3, 4), [integers([0, 3, 1, 2])]))
case("PAD")(
    lambda: moved("PAD", (1, 3, 4, 2), (1, 6, 5, 4), [integers([[0, 0], [1, 2], [0, 1], [2, 0]])])
)
case("PADV2")(
    lambda: moved(
        "PADV2", (1, 3, 4, 2), (1, 4, 4, 2),
        [integers([[0, 0], [1, 0], [0, 0], [0, 0]]), T((1,), 0.05, 7, [-100])],
    )
)  # fmt: skip
case("SLICE")(
    lambda: moved("SLICE", (2, 5, 4), (2, 2, 3), [integers([0, 2, 1]), integers([-1, 2, 3])])
)
case("STRIDED_SLICE")(
    lambda: moved(
        "STRIDED_SLICE", (2, 7, 6), (2, 3, 2),
        [integers([0, 1, -1]), integers([2, 7, 1]), integers([1, 2, -2])],
        "StridedSliceOptions", beginMask=1,
    )
)  # fmt: skip
case("STRIDED_SLICE that shrinks")(
    lambda: moved(
        "STRIDED_SLICE", (2, 7, 6), (2, 6),
        [integers([0, -2, 0]), integers([0, 0, 0]), integers([1, 1, 1])],
        "StridedSliceOptions", beginMask=5, endMask=5, shrinkAxisMask=2,
    )
)  # fmt: skip
case("CONCATENATION")(
    lambda: moved(
        "CONCATENATION", (1, 3, 4), (1, 3, 9),
        [T((1, 3, 2), 0.05, 7, chance().integers(-128, 128, (1, 3, 2))),
         T((1, 3, 3), 0.05, 7, chance().integers(-128, 128, (1, 3, 3)))],
        "ConcatenationOptions", axis=-1,
    )
)  # fmt: skip
case("RESIZE_NEAREST_NEIGHBOR")(
    lambda: moved(
        "RESIZE_NEAREST_NEIGHBOR", (1, 3, 4, 2), (1, 6, 12, 2), [integers([6, 12])],
        "ResizeNearestNeighborOptions", halfPixelCenters=True,
    )
)  # fmt: skip


case("RELU_0_TO_1")(lambda: unary("RELU_0_TO_1", T(EVERY, 0.01, -100)))
case("ABS")(lambda: unary("ABS", T(EVERY, 0.06, -128)))
case("ABS on another grid")(lambda: unary("ABS", T(EVERY, 0.04, -100)))
case("EXP")(lambda: unary("EXP", T(EVERY, 0.5, -128), 0.03))
case("GELU")(lambda: single("GELU", T(EVERY, 0.06, 9), T(EVERY, 0.03, -120), (), "GeluOptions"))
case("GELU by tanh")(
    lambda: single(
        "GELU", T(EVERY, 0.06, 9), T(EVERY, 0.03, -120), (), "GeluOptions", approximate=True
    )
)


def product(a: Any, c: Any, out: Any, **options: Any) -> bytes:
    other = T(c, 0.03, -5, chance().integers(-128, 128, c))
    return single(
        "BATCH_MATMUL", T(a, 0.05, 7), T(out, 0.2, 3), [other], "BatchMatMulOptions", **options
    )


case("BATCH_MATMUL")(lambda: product((2, 3, 5), (2, 5, 4), (2, 3, 4)))
case("BATCH_MATMUL, right one transposed")(
    lambda: product((1, 2, 3, 5), (1, 2, 4, 5), (1, 2, 3, 4), adjY=True)
)
case("BATCH_MATMUL, left one transposed")(
    lambda: product((2, 5, 3), (2, 5, 4), (2, 3, 4), adjX=True)
)
case("BATCH_MATMUL with one matrix for all")(lambda: product((3, 2, 5), (1, 5, 4), (3, 2, 4)))


def made_weights() -> bytes:
    """A fully connected layer whose weights another operator computes."""
    return tflite(
        [T((3, 5), 0.05, 7), T((3, 5), 0.05, 7), T((3, 3), 0.2, -4)],
        [
            O("ABS", [0], [1]),
            O("FULLY_CONNECTED", [0, 1, -1], [2], {}, "FullyConnectedOptions"),
        ],
        [0],
        [2],
    )


case("fully connected by computed weights")(made_weights)


def largest(kind: str, shape: Any, out: Any, axes: Any, keep: bool) -> bytes:
    return moved(kind, shape, out, [integers(axes)], "ReducerOptions", keepDims=keep)


case("REDUCE_MAX")(lambda: largest("REDUCE_MAX", (2, 3, 4, 5), (2, 5), [1, 2], False))
case("REDUCE_MAX over dimensions apart")(
    lambda: largest("REDUCE_MAX", (2, 3, 4, 5), (3, 5), [0, 2], False)
)
case("REDUCE_MIN")(lambda: largest("REDUCE_MIN", (2, 3, 4), (2, 3, 1), [-1], True))


def compared(kind: str, other: Any) -> bytes:
    values = chance().integers(-128, 128, other)
    return moved(kind, (2, 3, 40), (2, 3, 40), [T(other, 0.05, 7, values)], "MaximumMinimumOptions")


case("MAXIMUM")(lambda: compared("MAXIMUM", (2, 3, 40)))
case("MINIMUM with one row")(lambda: compared("MINIMUM", (1, 1, 40)))


def masked(kind: str, *, logical: str = "", other: Any = (2, 3, 40), scale: float = 0.021) -> bytes:
    """A comparison with a constant, perhaps combined with another one, that chooses between the
    input and a constant row."""
    grid, mask = (0.05, 7), {"dtype": "bool", "scale": []}
    shape = (2, 3, 40)
    bits = chance().integers(0, 2, (3, 40)).astype(bool)
    tensors = [
        T(shape, *grid),
        T(other, scale, -4, chance().integers(-128, 128, other)),
        T(shape, **mask),
        T((3, 40), values=bits, **mask),
        T(shape, **mask),
        T((40,), *grid, chance().integers(-128, 128, 40)),
        T(shape, *grid),
    ]
    ops = [O(kind, [0, 1], [2], {}, f"{kind.title().replace('_', '')}Options")]
    if logical:
        others = [2] if logical == "LOGICAL_NOT" else [2, 3]
        ops.append(O(logical, others, [4], {}, f"{logical.title().replace('_', '')}Options"))
    ops.append(O("SELECT_V2", [4 if logical else 2, 0, 5], [6], {}, "SelectV2Options"))
    return tflite(tensors, ops, [0], [6])


for _kind in ("EQUAL", "NOT_EQUAL", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL"):
    case(f"{_kind} and a choice")(lambda kind=_kind: masked(kind))
case("EQUAL on a coarse grid")(lambda: masked("EQUAL", scale=0.9))
case("LESS than a scalar")(lambda: masked("LESS", other=(1,)))
for _kind in ("LOGICAL_AND", "LOGICAL_OR", "LOGICAL_NOT"):
    case(f"{_kind} and a choice")(lambda kind=_kind: masked("GREATER", logical=kind))


def chosen(kind: str) -> bytes:
    """The input where a constant mask is true, else a constant."""
    shape, grid = (2, 3, 40), (0.05, 7)
    mask = T(shape, dtype="bool", scale=[], values=chance().integers(0, 2, shape).astype(bool))
    rest = T(shape, *grid, chance().integers(-128, 128, shape))
    table = f"{kind.title().replace('_', '')}Options"
    return tflite([T(shape, *grid), mask, rest, T(shape, *grid)],
                  [O(kind, [1, 0, 2], [3], {}, table)], [0], [3])  # fmt: skip


case("SELECT by a constant")(lambda: chosen("SELECT"))
case("SELECT_V2 by a constant")(lambda: chosen("SELECT_V2"))


def resized(size: tuple[int, int], out: tuple[int, int], **options: Any) -> bytes:
    return moved(
        "RESIZE_BILINEAR", (2, *size, 3), (2, *out, 3), [integers(list(out))],
        "ResizeBilinearOptions", **options,
    )  # fmt: skip


case("RESIZE_BILINEAR")(lambda: resized((3, 4), (7, 9)))
case("RESIZE_BILINEAR, half pixels")(lambda: resized((3, 4), (6, 12), halfPixelCenters=True))
case("RESIZE_BILINEAR, smaller")(lambda: resized((9, 8), (4, 3), halfPixelCenters=True))
case("RESIZE_BILINEAR, corners aligned")(lambda: resized((3, 4), (5, 7), alignCorners=True))


def mirrored(mode: int) -> bytes:
    around = [integers([[0, 0], [2, 1], [1, 2], [0, 0]])]
    return moved("MIRROR_PAD", (1, 3, 4, 2), (1, 6, 7, 2), around, "MirrorPadOptions", mode=mode)


case("MIRROR_PAD, reflected")(lambda: mirrored(0))
case("MIRROR_PAD, symmetric")(lambda: mirrored(1))


case("REVERSE_V2")(lambda: moved("REVERSE_V2", (2, 3, 4), (2, 3, 4), [integers([1, -1])]))
case("GATHER_ND, rows of a list")(
    lambda: moved(
        "GATHER_ND", (8, 3, 2), (8, 3, 2), [integers([[0], [4], [1], [5], [7], [6], [2], [2]])]
    )
)


def table(shape: Sequence[int], offsets: Any) -> bytes:
    """CAST, ADD and GATHER, as edgekd writes a table of 256 values."""
    first, grid = np.asarray(offsets, np.int32), (0.03, -9)
    values = chance().integers(-128, 128, 256 * first.size)
    wide = {"dtype": "int32", "scale": []}
    return tflite(
        [
            T(shape, 0.05, 4),
            T(shape, **wide),
            integers(first),
            T(shape, **wide),
            T(values.shape, *grid, values),
            T(shape, *grid),
        ],
        [
            O("CAST", [0], [1], {"inDataType": 9, "outDataType": 2}, "CastOptions"),
            O("ADD", [1, 2], [3], {}, "AddOptions"),
            O("GATHER", [4, 3], [5], {}, "GatherOptions"),
        ],
        [0],
        [5],
    )


case("table")(lambda: table((1, 256), [128]))
case("tables by channel")(
    lambda: table((1, 4, 4, 3), (np.arange(3) * 256 + 128).reshape(1, 1, 1, 3))
)
case("tables by row")(lambda: table((2, 3, 50), (np.arange(3) * 256 + 128).reshape(1, 3, 1)))


def inputs_for(content: bytes, count: int = 6) -> np.ndarray:
    """Random inputs, the first of which counts through all int8 values."""
    shape = schema.Model.GetRootAs(content, 0).Subgraphs(0).Tensors(0).ShapeAsNumpy()
    size = int(np.prod(shape))
    values = chance().integers(-128, 128, (count, size)).astype(np.int8)
    values[0] = (np.arange(size) % 256 - 128).astype(np.int8)
    return values
