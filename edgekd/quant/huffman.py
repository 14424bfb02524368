"""Canonical Huffman coding and decoding. Huffman 1952. Code lengths alone define a code: among
equal lengths the smaller symbol has the smaller code (as in DEFLATE, RFC 1951, section 3.2.2).
Codes are written from their highest bit.
"""

import heapq
from collections.abc import Mapping

import numpy as np

from edgekd.errors import InputError

LONGEST = 57
"""The longest code in bits that the decoder supports."""


def code_lengths(counts: Mapping[int, int]) -> dict[int, int]:
    """The code length of each symbol; a text with a single symbol uses one bit."""
    if len(counts) == 1:
        return dict.fromkeys(counts, 1)
    heap: list[tuple[int, int, tuple[int, ...]]] = [
        (count, symbol, (symbol,)) for symbol, count in counts.items()
    ]
    heapq.heapify(heap)
    lengths = dict.fromkeys(counts, 0)
    while len(heap) > 1:
        first, second = heapq.heappop(heap), heapq.heappop(heap)
        for symbol in (*first[2], *second[2]):
            lengths[symbol] += 1
        merged = (first[0] + second[0], min(first[1], second[1]), first[2] + second[2])
        heapq.heappush(heap, merged)
    return lengths


def codes_of(lengths: Mapping[int, int]) -> dict[int, tuple[int, int]]:
    """The (code, length) of each symbol, from the lengths alone. Raises `InputError` for lengths
    that no code can have."""
    codes, code, before = {}, 0, 0
    for symbol, length in sorted(lengths.items(), key=lambda item: (item[1], item[0])):
        code <<= length - before
        codes[symbol] = code, length
        code, before = code + 1, length
    if not codes or before > LONGEST or code > 1 << before or min(lengths.values()) < 1:
        raise InputError("no Huffman code has these code lengths")
    return codes


def encode(symbols: np.ndarray) -> tuple[bytes, dict[int, int]]:
    """The coded bits of (n,) integers, padded with zeros to whole bytes, and the code lengths."""
    found, index, counts = np.unique(symbols, return_inverse=True, return_counts=True)
    lengths = code_lengths({int(s): int(c) for s, c in zip(found, counts, strict=True)})
    codes = codes_of(lengths)
    size = np.array([codes[int(symbol)][1] for symbol in found], dtype=np.int64)
    value = np.array([codes[int(symbol)][0] for symbol in found], dtype=np.uint64)
    sizes, values = size[index], value[index]
    starts = np.concatenate([[0], sizes.cumsum()])
    bits = np.zeros(int(starts[-1]), dtype=np.uint8)
    for place in range(int(size.max())):
        reached = sizes > place
        shift = (sizes[reached] - 1 - place).astype(np.uint64)
        bits[starts[:-1][reached] + place] = (values[reached] >> shift) & np.uint64(1)
    return np.packbits(bits).tobytes(), lengths


def decode(data: bytes, lengths: Mapping[int, int], count: int) -> np.ndarray:
    """The (count,) int64 symbols. Raises `InputError` if the bits end early or are not valid
    codes."""
    symbols = {(length, code): symbol for symbol, (code, length) in codes_of(lengths).items()}
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8)).tolist()
    decoded = np.empty(count, dtype=np.int64)
    place, longest = 0, max(lengths.values())
    for number in range(count):
        code, length = 0, 0
        while (length, code) not in symbols:
            if place >= len(bits) or length >= longest:
                raise InputError(f"the coded bits end at symbol {number} of {count}")
            code, length, place = code << 1 | bits[place], length + 1, place + 1
        decoded[number] = symbols[length, code]
    return decoded
