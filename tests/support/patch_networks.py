"""Small networks of convolutions for patch-by-patch inference: odd sizes, strides, residuals."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tflite_files import O, T, integers, tflite

GRID = (0.04, 3)
SAME, VALID = 0, 1

Network = Callable[[], bytes]
NETWORKS: dict[str, Network] = {}


@dataclass
class Builder:
    """Tensors and operators, in order; each method returns the number of the tensor it makes."""

    height: int
    width: int
    channels: int
    tensors: list[T] = field(default_factory=list)
    ops: list[O] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = np.random.default_rng(3)
        self.tensor((1, self.height, self.width, self.channels))

    def tensor(self, shape: Any, grid: Any = GRID, values: Any = None) -> int:
        self.tensors.append(T(shape, *grid, values))
        return len(self.tensors) - 1

    def add(self, tensor: T) -> int:
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def _windowed(self, x: int, taps: Any, strides: Any, padding: int, dilations: Any) -> list[int]:
        sizes = []
        for place, (tap, stride, dilation) in enumerate(zip(taps, strides, dilations, strict=True)):
            size, extent = self.tensors[x].shape[place + 1], (tap - 1) * dilation + 1
            sizes.append(-(-size // stride) if padding == SAME else (size - extent) // stride + 1)
        return sizes

    def conv(
        self, x: int, channels: int = 0, taps: Any = (3, 3), strides: Any = (1, 1),
        padding: int = SAME, dilations: Any = (1, 1), grid: Any = (0.11, -7), act: int = 0,
    ) -> int:  # fmt: skip
        """A convolution, depthwise where no number of channels is given."""
        inputs = self.tensors[x].shape[3]
        outputs = channels or inputs
        shape = (outputs, *taps, inputs) if channels else (1, *taps, outputs)
        axis = 0 if channels else 3
        scales = [0.01 + 0.002 * n for n in range(outputs)]
        values = self.chance.integers(-127, 128, shape)
        weights = self.add(T(shape, scales, 0, values, axis=axis))
        bias = self.add(integers(self.chance.integers(-3000, 3000, outputs)))
        sizes = self._windowed(x, taps, strides, padding, dilations)
        y = self.tensor((1, *sizes, outputs), grid)
        options = {
            "strideH": strides[0], "strideW": strides[1], "padding": padding,
            "dilationHFactor": dilations[0], "dilationWFactor": dilations[1],
            "fusedActivationFunction": act,
        }  # fmt: skip
        kind = "CONV_2D" if channels else "DEPTHWISE_CONV_2D"
        if not channels:
            options["depthMultiplier"] = 1
        table = "Conv2DOptions" if channels else "DepthwiseConv2DOptions"
        self.ops.append(O(kind, [x, weights, bias], [y], options, table))
        return y

    def pool(self, x: int, kind: str, taps: Any, strides: Any, padding: int = SAME) -> int:
        sizes = self._windowed(x, taps, strides, padding, (1, 1))
        old = self.tensors[x]
        y = self.tensor((1, *sizes, old.shape[3]), (old.scale, old.zero))
        options = {"strideH": strides[0], "strideW": strides[1], "filterHeight": taps[0],
                   "filterWidth": taps[1], "padding": padding}  # fmt: skip
        self.ops.append(O(kind, [x], [y], options, "Pool2DOptions"))
        return y

    def pair(self, kind: str, x: int, other: int, grid: Any = (0.13, 2)) -> int:
        y = self.tensor(self.tensors[x].shape, grid)
        self.ops.append(O(kind, [x, other], [y], {}, f"{kind.capitalize()}Options"))
        return y

    def enlarged(self, x: int, up: int, right: int) -> int:
        old = self.tensors[x]
        size = (old.shape[1] * up, old.shape[2] * right)
        y = self.tensor((1, *size, old.shape[3]), (old.scale, old.zero))
        options = "ResizeNearestNeighborOptions"
        self.ops.append(
            O("RESIZE_NEAREST_NEIGHBOR", [x, self.add(integers(size))], [y], {}, options)
        )
        return y

    def padded(self, x: int, rows: Any, columns: Any, value: int | None = None) -> int:
        old = self.tensors[x]
        size = (old.shape[1] + sum(rows), old.shape[2] + sum(columns))
        table = self.add(integers([[0, 0], list(rows), list(columns), [0, 0]]))
        fills = [] if value is None else [self.tensor((1,), (old.scale, old.zero), [value])]
        y = self.tensor((1, *size, old.shape[3]), (old.scale, old.zero))
        kind, options = ("PAD", "PadOptions") if value is None else ("PADV2", "PadV2Options")
        self.ops.append(O(kind, [x, table, *fills], [y], {}, options))
        return y

    def unary(self, kind: str, x: int, grid: Any) -> int:
        y = self.tensor(self.tensors[x].shape, grid)
        self.ops.append(O(kind, [x], [y]))
        return y

    def joined(self, x: int, other: int) -> int:
        one, two = self.tensors[x], self.tensors[other]
        y = self.tensor((*one.shape[:3], one.shape[3] + two.shape[3]), (one.scale, one.zero))
        options = {"axis": 3}
        self.ops.append(O("CONCATENATION", [x, other], [y], options, "ConcatenationOptions"))
        return y

    def content(self, output: int) -> bytes:
        return tflite(self.tensors, self.ops, [0], [output])


def network(name: str) -> Callable[[Network], Network]:
    def keep(make: Network) -> Network:
        NETWORKS[name] = make
        return make

    return keep


@network("inverted residuals")
def inverted_residuals() -> bytes:
    """MobileNetV2's blocks, one of them with a stride and one with a residual, on 23x17 pixels."""
    net = Builder(23, 17, 3)
    x = net.conv(0, 8, strides=(2, 2), act=3)
    x = net.conv(net.conv(net.conv(x, 16, (1, 1), act=3), act=3), 5, (1, 1))
    y = net.conv(net.conv(net.conv(x, 20, (1, 1), act=3), act=3), 5, (1, 1))
    x = net.pair("ADD", x, y)
    x = net.conv(net.conv(net.conv(x, 20, (1, 1)), strides=(2, 2)), 7, (1, 1))
    return net.content(x)


@network("mixed windows")
def mixed_windows() -> bytes:
    """Windows of other sizes, strides and dilations along height than along width."""
    net = Builder(19, 21, 4)
    x = net.conv(0, 6, (5, 3), (1, 2))
    x = net.conv(x, 16, (3, 2), padding=VALID, dilations=(2, 1), act=1)
    x = net.conv(x, 0, (5, 5), dilations=(1, 2))
    x = net.conv(x, 4, (2, 3), (3, 1))
    return net.content(x)


@network("pools and functions")
def pools_and_functions() -> bytes:
    net = Builder(18, 15, 3)
    x = net.conv(0, 6, grid=(0.05, 4))
    x = net.pool(x, "MAX_POOL_2D", (3, 3), (2, 2))
    x = net.unary("LOGISTIC", x, (1 / 256, -128))
    scale = net.tensor((6,), (0.02, -5), net.chance.integers(-128, 128, 6))
    x = net.pair("MUL", x, scale, (0.01, 3))
    x = net.pool(x, "AVERAGE_POOL_2D", (3, 2), (1, 1))
    x = net.conv(x, 3, grid=(0.09, 1))
    return net.content(x)


@network("branches that are joined")
def joined_branches() -> bytes:
    """Two windows on one tensor, a residual from the input, and one that shrinks the image."""
    net = Builder(13, 14, 4)
    one, two = net.conv(0, 4, grid=GRID), net.conv(0, 4, (5, 5), grid=GRID)
    x = net.joined(one, two)
    x = net.conv(x, 4, (1, 1), grid=(0.2, 5))
    x = net.pair("SUB", x, 0)
    x = net.conv(x, 0, (3, 3), padding=VALID)
    return net.content(net.pair("ADD", x, x))


@network("padding before pools")
def padded_pools() -> bytes:
    """Paddings of their own: of the zero point, and of another value, wider on one side."""
    net = Builder(16, 17, 3)
    x = net.conv(0, 8, strides=(2, 1), grid=(0.05, 4))
    x = net.padded(x, (1, 1), (2, 1))
    x = net.pool(x, "AVERAGE_POOL_2D", (3, 3), (1, 2), VALID)
    x = net.padded(x, (0, 2), (1, 0), value=-9)
    x = net.pool(x, "MAX_POOL_2D", (2, 2), (1, 1), VALID)
    return net.content(net.conv(x, 4, grid=(0.09, 1)))


@network("an image that is enlarged")
def enlarged_image() -> bytes:
    net = Builder(9, 8, 5)
    x = net.conv(0, 3, strides=(2, 1))
    x = net.enlarged(x, 2, 3)
    x = net.conv(x, 6, grid=(0.09, 1))
    return net.content(net.conv(x, 2, (2, 2), (3, 3)))
