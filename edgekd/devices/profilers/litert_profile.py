"""LiteRT's operators, through the C interface of its own library.

LiteRT's Python API has no profiler. The C API of the library in the same package has one
(litert/c/litert_profiler.h), which also sees the operators inside the XNNPACK delegate. The model
runs with the kernels and threads that the interpreter would use.
"""
# ruff: noqa: B905, PTH118, PTH120

from __future__ import annotations

import ctypes
import os
from typing import Any

BASE = "litert"
MODULES = ["ai_edge_litert"]
INSTALL = "pip install ai-edge-litert>=2.1"

OPERATOR, DELEGATE_OPERATOR, DELEGATE_PROFILED = 1 << 1, 1 << 2, 1 << 3
CPU = 1
ALIGNMENT = 64
ELEMENTS = {
    "float32": 1, "int32": 2, "uint8": 3, "int64": 4, "bool": 6, "int16": 7, "int8": 9,
    "float16": 10, "float64": 11, "uint64": 13, "uint32": 16, "uint16": 17,
}  # fmt: skip


class Layout(ctypes.Structure):
    """`LiteRtLayout`: the rank in the low 7 bits, then eight sizes and eight strides."""

    _fields_ = [
        ("rank", ctypes.c_uint),
        ("sizes", ctypes.c_int32 * 8),
        ("strides", ctypes.c_uint32 * 8),
    ]


class TensorType(ctypes.Structure):
    """`LiteRtRankedTensorType`."""

    _fields_ = [("element", ctypes.c_int), ("layout", Layout)]


class Event(ctypes.Structure):
    """`ProfiledEventData`."""

    _fields_ = [
        ("tag", ctypes.c_char_p),
        ("kind", ctypes.c_int),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory", ctypes.c_size_t * 6),
        ("index", ctypes.c_uint64),
        ("subgraph", ctypes.c_uint64),
        ("source", ctypes.c_int),
    ]


class Runner:
    """A TFLite file as a compiled model with a profiler."""

    clock_ns = 1000
    inputs: list[Any]
    outputs: list[Any]

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        super().__init__(path, options)  # type: ignore[call-arg]
        import ai_edge_litert

        folder = os.path.dirname(ai_edge_litert.__file__)
        self.library = ctypes.CDLL(os.path.join(folder, "libLiteRt.so"))
        self.kept: list[Any] = []
        environment = self._made("LiteRtCreateEnvironment", 0, None)
        model = self._made("LiteRtCreateModelFromFile", environment, os.fsencode(path))
        kernels = "reference" if options.get("kernels") == "reference" else "delegate"
        settings = [
            ("runtime_options_string", "enable_profiling = true\n"),
            ("xnnpack", f'kernel_mode = "{kernels}"\nnum_threads = {options.get("threads", 1)}\n'),
        ]
        asked = self._made("LiteRtCreateOptions")
        self._do("LiteRtSetOptionsHardwareAccelerators", asked, CPU)
        for name, text in settings:
            self._do("LiteRtAddOpaqueOptions", asked, self._opaque(name, text))
        self.compiled = self._made("LiteRtCreateCompiledModel", environment, model, asked)
        self.profiler = self._made("LiteRtCompiledModelGetProfiler", self.compiled)
        self.buffers = [self._buffer(info) for info in self.inputs]
        self.results = [self._buffer(info) for info in self.outputs]

    def _do(self, name: str, *arguments: Any) -> None:
        function = getattr(self.library, name)
        status = function(*arguments)
        if status:
            raise RuntimeError(f"{name} failed with status {status}")

    def _made(self, name: str, *arguments: Any) -> Any:
        made = ctypes.c_void_p()
        self._do(name, *arguments, ctypes.byref(made))
        return made

    def _opaque(self, name: str, text: str) -> Any:
        identifier, payload = name.encode(), ctypes.create_string_buffer(text.encode())
        self.kept += [identifier, payload]
        destroy = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda memory: None)
        self.kept.append(destroy)
        return self._made("LiteRtCreateOpaqueOptions", identifier, payload, destroy)

    def _buffer(self, info: Any) -> Any:
        """A tensor buffer over memory of this process."""
        import numpy as np

        shape = [max(int(size), 1) for size in info["shape"]]
        dtype = np.dtype(info["dtype"])
        bytes_needed = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        memory = np.zeros(bytes_needed + 2 * ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % ALIGNMENT
        own = memory[start : start + bytes_needed].view(dtype).reshape(shape)
        layout = Layout(len(shape), (ctypes.c_int32 * 8)(*shape))
        kind = TensorType(ELEMENTS[dtype.name], layout)
        address = ctypes.c_void_p(memory.ctypes.data + start)
        room = ctypes.c_size_t(bytes_needed)
        made = self._made(
            "LiteRtCreateTensorBufferFromHostMemory", ctypes.byref(kind), address, room, None
        )
        self.kept += [memory, kind]
        return own, made

    def feed(self, arrays: list[Any]) -> None:
        for (own, _), array in zip(self.buffers, arrays):
            own[...] = array

    def run(self) -> None:
        ins, outs = (
            (ctypes.c_void_p * len(pairs))(*[made.value for _, made in pairs])
            for pairs in (self.buffers, self.results)
        )
        counts = [ctypes.c_size_t(len(pairs)) for pairs in (ins, outs)]
        first = ctypes.c_size_t(0)
        self._do("LiteRtRunCompiledModel", self.compiled, first, counts[0], ins, counts[1], outs)

    def fetch(self) -> list[Any]:
        return [own for own, _ in self.results]

    def begin(self) -> None:
        """Record from now on; what was recorded before is forgotten."""
        self._do("LiteRtStartProfiler", self.profiler)

    def recorded(self) -> list[tuple[str, bool, int, int]]:
        """The operators of the inference since `begin`: (name, whether it is the file's own, its
        number there, microseconds) in order of execution."""
        number = ctypes.c_int()
        self._do("LiteRtGetNumProfilerEvents", self.profiler, ctypes.byref(number))
        events = (Event * max(number.value, 1))()
        self._do("LiteRtGetProfilerEvents", self.profiler, number, events)
        inside = [e for e in events if e.kind in (DELEGATE_OPERATOR, DELEGATE_PROFILED)]
        whole = [e for e in events if e.kind == OPERATOR]
        if inside:  # the delegate's own event covers those of its operators
            whole = [e for e in whole if b"delegate" not in e.tag.lower()]
        taken = sorted([*inside, *whole], key=lambda e: e.start_us)
        return [
            (e.tag.decode("utf-8", "replace"), e.kind == OPERATOR, e.index, e.elapsed_us)
            for e in taken
        ]

    def operators(self, runs: int) -> list[dict[str, Any]]:
        """The operators in order of execution, `runs` times each."""
        rows: list[list[Any]] = []
        for _ in range(runs):
            self.begin()
            self.run()
            rows.append(self.recorded())
        return [
            {"name": "", "op": tag, "index": int(index) if own else -1,
             "values": [1000 * row[place][3] for row in rows]}
            for place, (tag, own, index, _) in enumerate(rows[0])
        ]  # fmt: skip
