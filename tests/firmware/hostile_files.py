"""Damaged copies of a TFLite file: truncated, bits flipped, bytes and words overwritten, moved."""

import random
import struct
from collections.abc import Iterator
from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

WORDS = (0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
"""What breaks lengths, offsets, shapes and scales."""


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
    elif field in ("padding", "fusedActivationFunction", "weightsFormat", "quantizedBiasType"):
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
