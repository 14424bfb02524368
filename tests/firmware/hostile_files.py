"""Damaged copies of a TFLite file: truncated, bits flipped, bytes and words overwritten, moved."""

import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from operator_cases import CASES
from tflite_files import G, O, T, integers, tflite, tflite_of

from edgekd.formats.tflite_metadata import with_metadata

LOOKUP = "a look-up by a signature"
WHOLE = "a whole network with metadata"

WORDS = (0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
"""What breaks lengths, offsets, shapes and scales."""


def whole_network() -> bytes:
    """Pad, convolution, depthwise convolution, residual sum, mean, fully connected, softmax: the
    chain of a small classifier, with what edgekd writes about it."""
    chance = np.random.default_rng(3)

    def weights(shape: tuple[int, ...], scale: float, axis: int) -> T:
        scales = [scale + 0.001 * n for n in range(shape[axis])]
        return T(shape, scales, 0, chance.integers(-99, 100, shape), axis=axis)

    window = {"strideH": 1, "strideW": 1, "padding": 0, "fusedActivationFunction": 1}
    tensors = [
        T((1, 8, 8, 3), 0.04, 3),
        integers([[0, 0], [1, 1], [1, 1], [0, 0]]),
        T((1, 10, 10, 3), 0.04, 3),
        weights((4, 3, 3, 3), 0.01, 0),
        integers([5, -6, 7, -8]),
        T((1, 8, 8, 4), 0.1, -128),
        weights((1, 3, 3, 4), 0.02, 3),
        integers([1, 2, 3, 4]),
        T((1, 8, 8, 4), 0.2, -120),
        T((1, 8, 8, 4), 0.2, -100),
        integers([1, 2]),
        T((1, 4), 0.1, -110),
        weights((5, 4), 0.01, 0),
        integers([9, 8, 7, 6, 5]),
        T((1, 5), 0.05, 0),
        T((1, 5), 1 / 256, -128),
    ]
    ops = [
        O("PAD", [0, 1], [2], {}, "PadOptions"),
        O("CONV_2D", [2, 3, 4], [5], {**window, "padding": 1}, "Conv2DOptions"),
        O("DEPTHWISE_CONV_2D", [5, 6, 7], [8], {**window, "depthMultiplier": 1},
          "DepthwiseConv2DOptions"),
        O("ADD", [8, 5], [9], {"fusedActivationFunction": 0}, "AddOptions"),
        O("MEAN", [9, 10], [11], {"keepDims": False}, "ReducerOptions"),
        O("FULLY_CONNECTED", [11, 12, 13], [14], {}, "FullyConnectedOptions"),
        O("SOFTMAX", [14], [15], {"beta": 1.0}, "SoftmaxOptions"),
    ]  # fmt: skip
    facts = {"name": "hook", "version": "1", "labels": ["a", "b", "c", "d", "e"]}
    return with_metadata(tflite(tensors, ops, [0], [15]), facts)


def lookup_network() -> bytes:
    """Rows of a table by an input of indices, called by a signature."""
    tensors = [
        T((1, 4), (), dtype="int32", name="ids"),
        T((6, 3), 0.1, 0, np.arange(18).reshape(6, 3)),
        T((1, 4, 3), 0.1),
    ]
    gather = O("GATHER", [1, 0], [2], {"axis": 0}, "GatherOptions")
    return tflite_of([G(tensors, [gather], [0], [2], "serve")])


def hostile_files(each: int) -> Iterator[tuple[str, bytes, bytes]]:
    """(what it was made of, the sound file, the hostile one): `each` of either kind for every
    operator, twelve times as many of the whole network."""
    bases: dict[str, Callable[[], bytes]] = {**CASES, LOOKUP: lookup_network, WHOLE: whole_network}
    for seed, (name, make) in enumerate(bases.items()):
        sound, count = make(), each * (12 if name == WHOLE else 1)
        for hostile in (damaged, bent):
            for content in hostile(sound, count, seed):
                yield name, sound, content


def damaged(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """`count` copies, each damaged in a way of its own; the same ones for the same seed."""
    chance = random.Random(seed)
    for number in range(count):
        copy = bytearray(content)
        kind = number % 5
        if kind == 0:
            del copy[chance.randrange(8, len(copy)) :]
        elif kind == 1:
            for _ in range(chance.randint(1, 8)):
                copy[chance.randrange(8, len(copy))] ^= 1 << chance.randrange(8)
        elif kind == 2:
            for _ in range(chance.randint(1, 4)):
                copy[chance.randrange(8, len(copy))] = chance.randrange(256)
        elif kind == 3:
            place = chance.randrange(8, len(copy) - 4) // 4 * 4
            struct.pack_into("<I", copy, place, chance.choice(WORDS))
        else:
            place, other = (chance.randrange(8, len(copy) - 16) for _ in range(2))
            copy[place : place + 16] = copy[other : other + 16]
        yield bytes(copy)


def bent(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """`count` files that are sound flatbuffers and say something else: shapes, scales, zero points,
    indices, constants and options, one to three of them changed."""
    chance = random.Random(seed)
    for _ in range(count):
        model = schema.ModelT.InitFromPackedBuf(content)
        for _ in range(chance.randint(1, 3)):
            chance.choice((_bend_tensor, _bend_operator, _bend_options, _bend_buffer))(
                chance, model
            )
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        yield bytes(builder.Output())


def _number(chance: random.Random) -> int:
    return chance.choice((-129, -128, -2, -1, 0, 1, 2, 3, 5, 7, 127, 255, 4096, 1 << 20, 2**31 - 1))


def _bend_tensor(chance: random.Random, model: Any) -> None:
    tensor = chance.choice(model.subgraphs[0].tensors)
    quantization = tensor.quantization
    kind = chance.randrange(5)
    if kind == 0 and len(tensor.shape):
        sizes = list(tensor.shape)
        sizes[chance.randrange(len(sizes))] = max(-1, _number(chance))
        tensor.shape = sizes
    elif kind == 1:
        tensor.shape = [*tensor.shape, 1] if chance.random() < 0.5 else list(tensor.shape)[1:]
    elif kind == 2 and quantization is not None:
        quantization.scale = [
            chance.choice((0.0, -1.0, 1e-30, 1e-9, 0.003, 1.0, 1e9, float("inf"), float("nan")))
            for _ in quantization.scale
        ]
    elif kind == 3 and quantization is not None:
        quantization.zeroPoint = [_number(chance)] * len(quantization.zeroPoint)
        quantization.quantizedDimension = chance.choice((-1, 0, 1, 3, 9))
    else:
        tensor.type = chance.choice((0, 2, 3, 9))
        tensor.buffer = chance.randrange(len(model.buffers) + 1)


def _bend_operator(chance: random.Random, model: Any) -> None:
    graph = model.subgraphs[0]
    operator = chance.choice(graph.operators)
    place = chance.choice(("inputs", "outputs"))
    owner = chance.choice((operator, operator, graph))
    indices = list(getattr(owner, place))
    if not indices:
        return
    indices[chance.randrange(len(indices))] = chance.randrange(-2, len(graph.tensors) + 1)
    setattr(owner, place, indices if chance.random() < 0.8 else indices[:-1])


SMALL = (
    "padding", "fusedActivationFunction", "weightsFormat", "quantizedBiasType", "mode",
    "inDataType", "outDataType",
)  # fmt: skip
"""Options that are enumerations, which a file stores in a byte."""


def _bend_options(chance: random.Random, model: Any) -> None:
    options = chance.choice(model.subgraphs[0].operators).builtinOptions
    if options is None:
        return
    fields = [key for key, value in vars(options).items() if isinstance(value, int)]
    if not fields:
        return
    field = chance.choice(fields)
    value = _number(chance)
    if isinstance(getattr(options, field), bool):
        value = bool(value % 2)
    elif field in SMALL:
        value = chance.randrange(6)
    setattr(options, field, value)


def _bend_buffer(chance: random.Random, model: Any) -> None:
    held = [one for one in model.buffers if one.data is not None and len(one.data)]
    if not held:
        return
    buffer = chance.choice(held)
    data = bytearray(bytes(buffer.data))
    if chance.random() < 0.2:
        del data[chance.randrange(len(data)) :]
    else:
        for _ in range(chance.randint(1, 8)):
            data[chance.randrange(len(data))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
    buffer.data = list(data)
