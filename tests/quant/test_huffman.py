"""Huffman codes of a text worked out by hand, and files restored bit for bit."""

import math

import numpy as np
import pytest

from edgekd.errors import InputError, ToolError
from edgekd.quant.huffman import code_lengths, codes_of, decode, encode
from edgekd.quant.packed_onnx import MAGIC, pack, unpack


def test_codes_are_huffmans_and_canonical() -> None:
    # 5 + 2 + 1 + 1: the two ones join first, then the two, then the five.
    lengths = code_lengths({0: 5, 1: 2, 2: 1, 3: 1})
    assert lengths == {0: 1, 1: 2, 2: 3, 3: 3}
    assert codes_of(lengths) == {0: (0b0, 1), 1: (0b10, 2), 2: (0b110, 3), 3: (0b111, 3)}


def test_a_text_is_its_codes_in_a_row() -> None:
    bits, lengths = encode(np.array([0, 1, 2, 0, 0, 3, 1, 0, 0]))
    # 0 10 110 0 0 111 10 0 0 -> 01011000 11110000
    assert bits == bytes([0b01011000, 0b11110000 & 0b11111000])
    assert decode(bits, lengths, 9).tolist() == [0, 1, 2, 0, 0, 3, 1, 0, 0]


@pytest.mark.parametrize("symbols", [[7], [7, 7, 7], [0, 255], list(range(300))])
def test_what_was_coded_comes_back(symbols) -> None:
    bits, lengths = encode(np.array(symbols))
    assert decode(bits, lengths, len(symbols)).tolist() == symbols


def test_the_length_lies_within_a_bit_of_the_entropy() -> None:
    symbols = np.random.default_rng(0).geometric(0.3, 5000)
    bits, _ = encode(symbols)
    _, counts = np.unique(symbols, return_counts=True)
    shares = counts / counts.sum()
    entropy = float(-(shares * np.log2(shares)).sum())
    assert entropy <= 8 * len(bits) / len(symbols) < entropy + 0.1


def test_bits_that_break_off_and_lengths_of_no_code_are_refused() -> None:
    bits, lengths = encode(np.array([1, 2, 3, 4] * 8))
    with pytest.raises(InputError, match="coded bits end at symbol"):
        decode(bits[:4], lengths, 32)
    for wrong in ({0: 1, 1: 1, 2: 1}, {0: 0}, {}, {0: 60}):
        with pytest.raises(InputError, match="no Huffman code has these code lengths"):
            decode(b"\0\0", wrong, 1)


def model(values: np.ndarray) -> bytes:
    """An ONNX file with these weights behind a Cast and a Gather, and a small float tensor."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    tensors = [
        numpy_helper.from_array(values, "index"),
        numpy_helper.from_array(np.linspace(-1, 1, 256, dtype=np.float32), "table"),
    ]
    nodes = [
        helper.make_node("Cast", ["index"], ["wide"], to=TensorProto.INT32),
        helper.make_node("Gather", ["table", "wide"], ["weight"]),
        helper.make_node("MatMul", ["x", "weight"], ["y"]),
    ]
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size])
        for name, size in (("x", values.shape[0]), ("y", values.shape[1]))
    ]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], tensors)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(made)
    return made.SerializeToString(deterministic=True)


def pruned(kind: type = np.uint8) -> np.ndarray:
    rng = np.random.default_rng(0)
    codes = rng.integers(1, 32, (64, 40)).astype(kind)
    return np.where(rng.random(codes.shape) < 0.9, 0, codes).astype(kind)


def test_a_file_comes_back_bit_for_bit_and_is_smaller() -> None:
    content = model(pruned())
    packed = pack(content)
    assert unpack(packed.data) == content
    assert packed.weights == 64 * 40
    # Entropy: 0.47 bits for where, 0.1 * 5 for which; tables and rounding come on top.
    share = 0.1
    where = -(share * math.log2(share) + (1 - share) * math.log2(1 - share))
    least = (where + share * math.log2(31)) * packed.weights / 8
    assert least * 0.9 < packed.coded < least * 1.8
    assert len(packed.data) < len(content) - packed.weights / 2


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((64, 40), np.uint8),
        np.full((64, 40), 3, np.uint8),
        (pruned(np.int8) - 16).astype(np.int8),
        np.arange(64 * 4, dtype=np.uint8).reshape(64, 4),
        np.eye(64, dtype=np.uint8),
        np.ones((2, 2), np.uint8),
    ],
    ids=["zeros", "one-value", "signed", "every-byte", "one-a-row", "tiny"],
)
def test_any_weights_come_back(values) -> None:
    content = model(values)
    assert unpack(pack(content).data) == content


def test_a_file_that_would_come_back_otherwise_is_not_packed() -> None:
    content = model(pruned()) + b"\x3a\x00"  # an empty second graph, merged by the parser
    with pytest.raises(ToolError, match="can't be restored bit for bit"):
        pack(content, "model.onnx")


def test_a_damaged_file_is_one_clear_error() -> None:
    data = pack(model(pruned())).data
    rng = np.random.default_rng(0)
    for size in (0, 4, len(MAGIC) + 2, 60, len(data) // 2, len(data) - 1):
        with pytest.raises(InputError) as caught:
            unpack(data[:size], "a.huffman")
        assert caught.value.where == "a.huffman"
    for place in rng.integers(0, len(data), 60).tolist():
        broken = bytearray(data)
        broken[place] ^= 1 << int(rng.integers(8))
        with pytest.raises(InputError):
            unpack(bytes(broken))
    with pytest.raises(InputError, match="not a packed model"):
        unpack(b"PK\x03\x04" + bytes(100))
