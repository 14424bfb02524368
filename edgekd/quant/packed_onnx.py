"""Packs an ONNX file for flash by entropy-coding its integer weights, and unpacks it. The weights
(INT8 or UINT8 tensors) are Huffman-coded, either as they are or, where that is smaller, as Deep
Compression stores pruned ones (Han et al. 2016, arXiv:1510.00149, section 2): as the non-zero
weights and the gaps between them. The rest of the file is deflated.

Layout, little-endian: "EDGEKDH1", the header's length (4 bytes), the header (JSON: `sha256` and
`bytes` of the ONNX file, `skeleton` the bytes of its deflated rest, `tensors` with `name`, `count`,
`coding` and `streams`), the rest, then every stream: its table (the bytes of a symbol, the symbols,
then a byte for each one's code length) and its bits.
"""

import hashlib
import json
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekd.errors import InputError, ToolError
from edgekd.quant.huffman import decode, encode

MAGIC = b"EDGEKDH1"
WIDTHS = (1, 2, 4)
"""Bytes per symbol in a table; the table's first byte says which applies."""

WORTH_IT = 64
"""The number of elements below which a table would be larger than its savings."""

LARGEST = 1 << 31
"""The size in bytes of the largest file that can be unpacked."""


@dataclass(frozen=True)
class Packed:
    """A packed file and its statistics: `weights` coded elements in `coded` bytes."""

    data: bytes
    original: int
    weights: int
    coded: int


def pack(content: bytes, where: str = "") -> Packed:
    """Pack an ONNX file. Raises `ToolError` if it could not be restored bit for bit."""
    import onnx

    model = onnx.load_from_string(content)
    kinds = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    tensors, streams, weights = [], [], 0
    for tensor in model.graph.initializer:
        if tensor.data_type not in kinds or len(tensor.raw_data) < WORTH_IT:
            continue
        values = np.frombuffer(tensor.raw_data, dtype=np.uint8)
        coding, made = _coded(values)
        streams += [table + bits for _, table, bits in made]
        sizes = [{"count": count, "table": len(t), "bits": len(b)} for count, t, b in made]
        about = {"name": tensor.name, "count": len(values), "coding": coding, "streams": sizes}
        tensors.append(about)
        weights += len(values)
        tensor.ClearField("raw_data")
    skeleton = zlib.compress(model.SerializeToString(deterministic=True), 9)
    header = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "skeleton": len(skeleton),
        "tensors": tensors,
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    data = MAGIC + struct.pack("<I", len(text)) + text + skeleton + b"".join(streams)
    try:
        same = unpack(data, where) == content
    except InputError:
        same = False
    if not same:
        raise ToolError("this ONNX file can't be restored bit for bit", where=where)
    return Packed(data, len(content), weights, sum(len(stream) for stream in streams))


Stream = tuple[int, bytes, bytes]
"""The number of symbols, the table of code lengths, the bits."""


def _coded(values: np.ndarray) -> tuple[str, list[Stream]]:
    """The smaller of the two codings."""
    dense = [_stream(values)]
    (places,) = np.nonzero(values)
    if len(places) in (0, len(values)):
        return "dense", dense
    gaps = np.diff(places, prepend=-1) - 1
    sparse = [_stream(gaps), _stream(values[places])]
    return ("sparse", sparse) if _size(sparse) < _size(dense) else ("dense", dense)


def _size(streams: list[Stream]) -> int:
    return sum(len(table) + len(bits) for _, table, bits in streams)


def _stream(symbols: np.ndarray) -> Stream:
    bits, lengths = encode(symbols)
    width = next(width for width in WIDTHS if max(lengths) < 256**width)
    table = np.array(list(lengths), dtype=f"<u{width}").tobytes() + bytes(lengths.values())
    return len(symbols), bytes([width]) + table, bits


def unpack(data: bytes, where: str = "") -> bytes:
    """Unpack an ONNX file, bit for bit. Raises `InputError` for any other file."""
    try:
        content = _unpacked(data)
    except InputError as error:
        raise InputError(error.message, where=where) from None
    except (ValueError, KeyError, TypeError, struct.error, zlib.error, RecursionError) as error:
        raise InputError(f"a damaged packed file: {error}", where=where) from None
    return content


def _unpacked(data: bytes) -> bytes:
    if data[: len(MAGIC)] != MAGIC:
        raise InputError(
            "not a packed model", hint="edgekd compress with a cluster stage makes one"
        )
    (size,) = struct.unpack_from("<I", data, len(MAGIC))
    start = len(MAGIC) + 4
    header = json.loads(data[start : start + size])
    place = start + size
    if int(header["bytes"]) > LARGEST:
        raise InputError(f"a packed file of {header['bytes']:,} bytes", allowed=f"{LARGEST:,}")
    model = _skeleton(data[place : place + int(header["skeleton"])], int(header["bytes"]))
    place += int(header["skeleton"])
    wanted = {tensor.name: tensor for tensor in model.graph.initializer}
    for about in header["tensors"]:
        if not 0 < int(about["count"]) <= int(header["bytes"]):
            raise InputError(f"'{about['name']}' has {about['count']} weights")
        streams = []
        for stream in about["streams"]:
            end = place + int(stream["table"]) + int(stream["bits"])
            part = data[place:end]
            streams.append(_symbols(part, int(stream["table"]), int(stream["count"]), about))
            place = end
        values = streams[0] if about["coding"] == "dense" else _spread(streams, int(about["count"]))
        if values.min() < 0 or values.max() > 255:
            raise InputError(f"'{about['name']}' has values that are not bytes")
        wanted[about["name"]].raw_data = values.astype(np.uint8).tobytes()
    content: bytes = model.SerializeToString(deterministic=True)
    if place != len(data) or hashlib.sha256(content).hexdigest() != header["sha256"]:
        raise InputError("a damaged packed file: the hash of its contents differs")
    return content


def _skeleton(data: bytes, most: int) -> Any:
    import onnx

    text = zlib.decompressobj().decompress(data, most + 1024)
    try:
        return onnx.load_from_string(text)
    except Exception:  # protobuf's DecodeError, whose module has no types
        raise InputError("a damaged packed file: it contains no ONNX model") from None


def _symbols(data: bytes, table: int, count: int, about: dict[str, Any]) -> np.ndarray:
    width = data[0] if data else 0
    whole = width in WIDTHS and 0 < table <= len(data) and (table - 1) % (width + 1) == 0
    if not whole or not 0 <= count <= int(about["count"]):
        raise InputError(f"a damaged packed file: the table of '{about['name']}' is incomplete")
    size = (table - 1) // (width + 1)
    symbols = np.frombuffer(data, dtype=f"<u{width}", count=size, offset=1).tolist()
    lengths = dict(zip(symbols, data[1 + width * size : table], strict=True))
    return decode(data[table:], lengths, count)


def _spread(streams: list[np.ndarray], count: int) -> np.ndarray:
    """The (count,) weights, rebuilt from the gaps and the non-zero values."""
    gaps, weights = streams
    places = (gaps + 1).cumsum() - 1
    if len(gaps) != len(weights) or not len(places) or int(places[-1]) >= count:
        raise InputError("a damaged packed file: its gaps do not add up")
    values = np.zeros(count, dtype=np.int64)
    values[places] = weights
    return values
