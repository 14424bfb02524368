"""Facts stored in a TFLite file besides the network: one entry of its metadata, as JSON; and the
names of its inputs and outputs.

The entry is named `edgekd`; runtimes ignore names that they don't know. The same file and facts
give the same bytes.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.errors import InputError
from edgekd.formats.graph import read_bytes
from edgekd.formats.tflite import IDENTIFIER, read_tflite

ENTRY = "edgekd"
ALIGNMENT = 16
"""The alignment of every constant in the schema, on which vector loads rely."""

LARGEST = 1 << 20
LARGEST_FLATBUFFER = 1 << 31


def with_metadata(content: bytes, facts: Mapping[str, Any]) -> bytes:
    """The same model with these facts, replacing any it has.

    Raises `ValueError` for a model of more than 2 GB.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = unpacked(content)
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    data = np.frombuffer(text.encode(), np.uint8)
    entries = {_text(one.name): one for one in model.metadata or []}
    entry = entries.get(ENTRY)
    if entry is None:
        entry = schema.MetadataT()
        entry.name, entry.buffer = ENTRY, len(model.buffers)
        buffer = schema.BufferT()
        buffer.Pack = aligned(schema, buffer)
        model.buffers = [*model.buffers, buffer]
        model.metadata = [*(model.metadata or []), entry]
    model.buffers[entry.buffer].data = data
    return packed(model, len(content) + len(data))


def with_names(content: bytes, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """The same model with these names of the main subgraph's inputs and outputs, in order; its
    signature has them too. Raises `ValueError` for another number of names."""
    model = unpacked(content)
    graph = model.subgraphs[0]
    for places, names in ((graph.inputs, inputs), (graph.outputs, outputs)):
        for place, name in zip(places, names, strict=True):
            graph.tensors[place].name = name.encode()
    for signature in model.signatureDefs or []:
        if signature.subgraphIndex == 0:
            for entry in (*signature.inputs, *signature.outputs):
                entry.name = graph.tensors[entry.tensorIndex].name
    return packed(model, len(content))


def unpacked(content: bytes) -> Any:
    """The model as the schema's own classes, to be changed. Constants that are stored after the
    flatbuffer are taken into it. Raises `ValueError` for more than it can hold (2 GB)."""
    from ai_edge_litert import schema_py_generated as schema

    if len(content) >= LARGEST_FLATBUFFER:
        raise ValueError(f"{len(content):,} bytes are too many for one flatbuffer")
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    for buffer in model.buffers:
        if buffer.offset > 1:
            stored = content[buffer.offset : buffer.offset + buffer.size]
            buffer.data, buffer.offset, buffer.size = np.frombuffer(stored, np.uint8), 0, 0
        buffer.Pack = aligned(schema, buffer)
    return model


def packed(model: Any, size: int) -> bytes:
    """The bytes of an unpacked model, which are about `size`."""
    import flatbuffers

    builder = flatbuffers.Builder(size + 1024)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def aligned(schema: Any, buffer: Any) -> Any:
    """How a buffer writes itself: like the generated code, but aligned as the schema requires."""

    def pack(builder: Any) -> int:
        place = None
        if buffer.data is not None and len(buffer.data):
            raw = np.ascontiguousarray(buffer.data, np.uint8).tobytes()
            builder.StartVector(1, len(raw), ALIGNMENT)
            builder.head -= len(raw)
            builder.Bytes[builder.head : builder.head + len(raw)] = raw
            place = builder.EndVector()
        schema.BufferStart(builder)
        if place is not None:
            schema.BufferAddData(builder, place)
        return int(schema.BufferEnd(builder))

    return pack


def read_metadata(path: Path) -> dict[str, Any]:
    """The facts in a file, empty if it has none.

    Raises `InputError` for a damaged file, or for an entry that is not a table of facts.
    """
    read_tflite(path)
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(read_bytes(path), 0)
    try:
        for index in range(min(model.MetadataLength(), 1024)):
            entry = model.Metadata(index)
            if _text(entry.Name()) == ENTRY:
                return _facts(model.Buffers(entry.Buffer()))
    except Exception as error:  # whatever a damaged vector makes the reader raise
        raise InputError(f"its metadata '{ENTRY}' is damaged: {error}", where=str(path)) from None
    return {}


def _facts(buffer: Any) -> dict[str, Any]:
    if not 0 < buffer.DataLength() <= LARGEST:
        raise ValueError(f"{buffer.DataLength()} bytes")
    facts = json.loads(buffer.DataAsNumpy().tobytes().decode())
    if not isinstance(facts, dict):
        raise ValueError("not a table")
    return facts


def _text(name: bytes | str | None) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else name or ""
