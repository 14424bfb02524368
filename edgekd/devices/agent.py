#!/usr/bin/env python3
"""The agent: runs and times models on a board, controlled by JSON lines on stdin.

One file for any board: it needs the standard library, numpy, and whichever runtime the board has.
It supports Python 3.8 and later and imports nothing from edgekd. Each request is one line
{"command": ..., ...}, each reply one line {"ok": ...} or {"error": {"kind", "message", "hint"}}; a
benchmark sends {"progress": ...} in between. The agent ends with its stdin, or if a command exceeds
its `limit_s`. With --watch, a small process in front of it ends it at once when stdin ends, even if
a runtime hangs. It listens on no port. Times are nanoseconds of the monotonic clock.
"""
# ruff: noqa: B905, PTH100, PTH105, PTH108, PTH109, PTH110, PTH113, PTH120, PTH123, PTH207

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import glob
import json
import os
import platform
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from statistics import median
from typing import TYPE_CHECKING, Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # ONNX Runtime reads it on import

if TYPE_CHECKING:  # Python 3.8 can't subscript these
    from collections.abc import Callable, Iterator

    Table = dict[str, Any]
    Arrays = list[Any]
    Info = dict[str, Any]  # name, shape, dtype, scale, zero_point of one input or output


EDGETPU_LIBRARY = "libedgetpu.so.1"


class Fault(Exception):
    """A request that can't be fulfilled. Kinds: missing-runtime, bad-model, bad-request, failed."""

    def __init__(self, kind: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.answer = {"error": {"kind": kind, "message": message, "hint": hint}}


def first_line(error: BaseException) -> str:
    """The first line of a library's error message, without its stack trace."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip() if lines else type(error).__name__


def shaped(infos: Arrays, options: Table) -> list[tuple[Info, list[int]]]:
    """The inputs to which the request gives a shape, where the model leaves it open."""
    known = {info["name"]: info for info in infos}
    chosen = []
    for name, shape in options.get("shapes", {}).items():
        if name not in known:
            raise Fault(
                "bad-request", f"it has no input '{name}'; its inputs are: {', '.join(known)}"
            )
        own = [int(size) for size in known[name]["shape"]]
        if len(own) != len(shape) or any(have not in (-1, want) for have, want in zip(own, shape)):
            raise Fault("bad-request", f"its input '{name}' is {own}, which can't be {shape}")
        chosen.append((known[name], list(shape)))
    return chosen


def keep_to(processors: list[int]) -> None:
    """Run only on these processors: this thread and all threads started from now on."""
    try:
        os.sched_setaffinity(0, processors)
    except OSError:
        there = f"available: 0 to {(os.cpu_count() or 1) - 1}"
        message = f"can't pin to processors {processors}; {there}"
        raise Fault("bad-request", message) from None


class Model:
    """The interface of each runtime's class below, for a loaded model."""

    inputs: Arrays
    outputs: Arrays
    ranges: Table = {}  # the least and largest value of an input, or of its columns, by its name

    def feed(self, arrays: Arrays) -> None:
        """Set the inputs, so that `run` is the model alone."""
        raise NotImplementedError

    def run(self) -> None:
        """Run one inference."""
        raise NotImplementedError

    def fetch(self) -> Arrays:
        """The outputs of the last inference."""
        raise NotImplementedError

    def whole(self, arrays: Arrays) -> Arrays:
        """One inference as a Python program would request it: arrays in, arrays out."""
        self.feed(arrays)
        self.run()
        return self.fetch()


class OnnxRuntime(Model):
    """An ONNX file in an ONNX Runtime session."""

    providers = {
        "cpu": "CPUExecutionProvider",
        "cuda": "CUDAExecutionProvider",
        "tensorrt": "TensorrtExecutionProvider",
        "xnnpack": "XnnpackExecutionProvider",
    }

    def __init__(self, path: str, options: Table) -> None:
        import onnxruntime as ort

        wanted = str(options.get("provider", "cpu"))
        provider = self.providers.get(wanted, wanted)
        if provider not in ort.get_available_providers():
            allowed = ", ".join(ort.get_available_providers())
            raise Fault(
                "bad-request", f"no execution provider '{wanted}' here; available: {allowed}"
            )
        session_options = ort.SessionOptions()
        session_options.intra_op_num_threads = options.get("threads", 1)
        session_options.inter_op_num_threads = 1
        session_options.log_severity_level = 3
        if options.get("profile"):
            session_options.enable_profiling = True
            session_options.profile_file_prefix = str(options["profile"])
        # Idle workers of one model must not spin while another model is timed.
        session_options.add_session_config_entry("session.force_spinning_stop", "1")
        self.session = ort.InferenceSession(path, session_options, providers=[provider])
        if provider not in self.session.get_providers():  # it falls back silently
            raise Fault("failed", f"the execution provider {provider} did not start")
        self.inputs = [self._info(value) for value in self.session.get_inputs()]
        for info, shape in shaped(self.inputs, options):
            info["shape"] = shape
        self.outputs = [self._info(value) for value in self.session.get_outputs()]
        self.notes = {"provider": provider}

    @staticmethod
    def _info(value: Any) -> Info:
        kind = re.sub(r"tensor\((\w+)\)", r"\1", value.type)
        dtype = {"float": "float32", "double": "float64"}.get(kind, kind)
        shape = [size if isinstance(size, int) and size > 0 else -1 for size in value.shape]
        return {"name": value.name, "shape": shape, "dtype": dtype}

    def feed(self, arrays: Arrays) -> None:
        self.arrays = arrays  # bound without a copy, so they have to stay alive
        self.binding = self.session.io_binding()
        for info, array in zip(self.inputs, arrays):
            self.binding.bind_cpu_input(info["name"], array)
        for info in self.outputs:
            self.binding.bind_output(info["name"], "cpu")

    def run(self) -> None:
        self.session.run_with_iobinding(self.binding)

    def fetch(self) -> Arrays:
        return list(self.binding.copy_outputs_to_cpu())

    def whole(self, arrays: Arrays) -> Arrays:  # for a single inference, binding is not usual
        feeds = {info["name"]: array for info, array in zip(self.inputs, arrays)}
        return list(self.session.run([info["name"] for info in self.outputs], feeds))


class LiteRT(Model):
    """A TFLite file in LiteRT's interpreter, or in tflite-runtime's, its predecessor."""

    _ends: Callable[[], tuple[Arrays, Arrays]]
    _set: Callable[[int, Any], None]
    _run: Callable[[], None]
    _get: Callable[[int], Any]
    _resize: Callable[[int, list[int]], None]
    _allocate: Callable[[], None]

    def __init__(self, path: str, options: Table) -> None:
        try:
            from ai_edge_litert import interpreter as litert
        except ImportError:
            from tflite_runtime import interpreter as litert
        resolvers = litert.OpResolverType
        delegates = []
        if options.get("delegate"):
            delegate = str(options["delegate"])
            try:
                delegates = [litert.load_delegate(delegate, options.get("delegate_options", {}))]
            except (OSError, ValueError) as error:
                message = f"the delegate {delegate} did not load: {error}"
                if (
                    delegate == EDGETPU_LIBRARY
                ):  # the board's default delegate, not one that the user named
                    raise Fault("missing-runtime", message, RUNTIMES["edgetpu"][2]) from error
                raise Fault("bad-request", message) from error
        reference = options.get("kernels") == "reference"
        self.interpreter: Any = litert.Interpreter(
            model_path=path,
            num_threads=options.get("threads", 1),
            experimental_delegates=delegates,
            experimental_op_resolver_type=resolvers.BUILTIN_REF if reference else resolvers.AUTO,
        )
        self.notes = {"kernels": "reference" if reference else "optimized"}
        self._open(str(options.get("signature") or ""))
        own = [
            {**one, "shape": one.get("shape_signature", one["shape"])} for one in self._ends()[0]
        ]
        for value, shape in shaped(own, options):
            self._resize(value["index"], shape)
        self._allocate()
        self.inputs, self.outputs = (
            [self._info(value) for value in values] for values in self._ends()
        )
        operators: Arrays = getattr(self.interpreter, "_get_ops_details", list)()
        if operators:
            names = [operator["op_name"] for operator in operators]
            self.notes["delegated_partitions"] = str(names.count("DELEGATE"))

    def _open(self, signature: str) -> None:
        """Bind the methods below to the main subgraph, or to that of a signature."""
        import numpy as np

        model = self.interpreter
        if not signature:
            self._set, self._run, self._get = model.set_tensor, model.invoke, model.get_tensor
            self._resize, self._allocate = model.resize_tensor_input, model.allocate_tensors
            self._ends = lambda: (model.get_input_details(), model.get_output_details())
            return
        known = model.get_signature_list()
        if signature not in known:
            names = ", ".join(known) or "none"
            raise Fault(
                "bad-request", f"it has no signature '{signature}'; its signatures: {names}"
            )
        runner = model.get_signature_runner(signature)
        # A runner's own call copies inputs and outputs, which is not the model's time.
        inner, graph = runner._interpreter_wrapper, runner._subgraph_index
        self._set = lambda index, array: inner.SetTensor(index, array, graph)
        self._run = lambda: inner.Invoke(graph)
        self._get = lambda index: inner.GetTensor(index, graph)
        self._resize = lambda index, shape: inner.ResizeInputTensor(
            index, np.array(shape, np.int32), False, graph
        )
        self._allocate = lambda: inner.AllocateTensors(graph)
        self._ends = lambda: (
            [{**value, "name": name} for name, value in runner.get_input_details().items()],
            [{**value, "name": name} for name, value in runner.get_output_details().items()],
        )
        self.notes["signature"] = signature

    @staticmethod
    def _info(value: Table) -> Info:
        quantization = value["quantization_parameters"]
        info = {
            "name": value["name"],
            "shape": [int(size) for size in value["shape"]],
            "dtype": value["dtype"].__name__,
            "index": value["index"],
        }
        if len(quantization["scales"]) == 1:
            info["scale"] = float(quantization["scales"][0])
            info["zero_point"] = int(quantization["zero_points"][0])
        return info

    def feed(self, arrays: Arrays) -> None:
        for info, array in zip(self.inputs, arrays):
            self._set(info["index"], array)

    def run(self) -> None:
        self._run()

    def fetch(self) -> Arrays:
        return [self._get(info["index"]) for info in self.outputs]


class EdgeTPU(LiteRT):
    """A TFLite file compiled for the Edge TPU, through its delegate."""

    def __init__(self, path: str, options: Table) -> None:
        super().__init__(path, dict({"delegate": EDGETPU_LIBRARY}, **options))


LIBRARY_FACTS = re.compile(rb"edgekd-facts:(\{[^\0]*)\0")
ARM_NAMES = {"neon": "asimd", "fp16": "asimdhp", "fullfp16": "asimdhp", "dotprod": "asimddp"}


def refuse_processor(path: str) -> None:
    """Refuse a TVM library whose code needs features that this processor lacks. It would end this
    process with an illegal instruction. A library of another origin says nothing."""
    with open(path, "rb") as stream:
        found = LIBRARY_FACTS.search(stream.read())
    flags = processor_features("")
    if not (found and flags):
        return
    needed = json.loads(found[1])["features"]
    missing = [name for name in needed if name not in flags and ARM_NAMES.get(name) not in flags]
    if missing:
        raise Fault(
            "bad-model",
            f"it was compiled for processors with {', '.join(missing)}, which this one lacks",
            "compile it for a target without it",
        )


@contextlib.contextmanager
def without_torch() -> Iterator[None]:
    """Hides PyTorch from an import unless it is loaded. TVM imports it where it is installed, which
    takes most of the time to load a library and hundreds of megabytes, and needs it for nothing
    here."""
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hidden:
            del sys.modules["torch"]


class TVM(Model):
    """A library exported from Relax. It does not record its shapes, so `options` has to give
    them."""

    def __init__(self, path: str, options: Table) -> None:
        if not options.get("inputs"):
            raise Fault("bad-request", "a TVM library does not record its inputs: their shapes and "
                        "dtypes have to be given")  # fmt: skip
        refuse_processor(path)
        with without_torch():
            import tvm
            from tvm.runtime.vm import VirtualMachine

        self.tensor = tvm.runtime.tensor
        self.device = tvm.runtime.device(str(options.get("device", "cpu")))
        self.machine = VirtualMachine(tvm.runtime.load_module(path), self.device)
        self.main = self.machine[str(options.get("entry", "main"))]
        self.inputs = options["inputs"]
        self.outputs = options.get("outputs") or []
        self.notes = {"threads": os.environ["TVM_NUM_THREADS"]}

    def feed(self, arrays: Arrays) -> None:
        self.arguments = [self.tensor(array, self.device) for array in arrays]

    def run(self) -> None:
        self.result = self.main(*self.arguments)
        self.device.sync()

    def fetch(self) -> Arrays:
        single = hasattr(self.result, "numpy")
        return [item.numpy() for item in ([self.result] if single else self.result)]


class TensorRT(Model):
    """A serialized TensorRT engine; device memory through the CUDA runtime's C interface."""

    def __init__(self, path: str, options: Table) -> None:
        import numpy as np
        import tensorrt as trt  # type: ignore[import-not-found]

        self.cuda = ctypes.CDLL(str(options.get("cudart", "libcudart.so")))
        with open(path, "rb") as stream:
            runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
            self.engine = runtime.deserialize_cuda_engine(stream.read())
        if self.engine is None:
            raise Fault(
                "bad-model",
                "TensorRT can't read it: it was built by another version or for another device",
            )
        self.context = self.engine.create_execution_context()
        self.stream = ctypes.c_void_p()
        self._check(self.cuda.cudaStreamCreate(ctypes.byref(self.stream)))
        self.inputs: list[Info] = []
        self.outputs: list[Info] = []
        self.memory: dict[str, ctypes.c_void_p] = {}
        for name in (self.engine.get_tensor_name(i) for i in range(self.engine.num_io_tensors)):
            dtype = np.dtype(trt.nptype(self.engine.get_tensor_dtype(name)))
            shape = [int(size) for size in self.engine.get_tensor_shape(name)]
            if min(shape, default=1) < 1:
                raise Fault("bad-request", f"the engine's input {name} has a dynamic shape")
            is_input = self.engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            where = self.inputs if is_input else self.outputs
            where.append({"name": name, "shape": shape, "dtype": dtype.name})
            self.memory[name] = ctypes.c_void_p()
            bytes_needed = ctypes.c_size_t(dtype.itemsize * int(np.prod(shape)))
            self._check(self.cuda.cudaMalloc(ctypes.byref(self.memory[name]), bytes_needed))
            self.context.set_tensor_address(name, self.memory[name].value)
        self.notes = {"provider": "tensorrt"}

    @staticmethod
    def _check(status: int) -> None:
        if status:
            raise Fault("failed", f"the CUDA runtime refused a call (error {status})")

    def _copy(self, to: Any, source: Any, size: int, direction: int) -> None:
        self._check(self.cuda.cudaMemcpy(to, source, ctypes.c_size_t(size), direction))

    def feed(self, arrays: Arrays) -> None:
        for info, array in zip(self.inputs, arrays):
            self._copy(
                self.memory[info["name"]], array.ctypes.data_as(ctypes.c_void_p), array.nbytes, 1
            )

    def run(self) -> None:
        self.context.execute_async_v3(self.stream.value)
        self._check(self.cuda.cudaStreamSynchronize(self.stream))

    def fetch(self) -> Arrays:
        import numpy as np

        arrays = [np.empty(info["shape"], info["dtype"]) for info in self.outputs]
        for info, array in zip(self.outputs, arrays):
            self._copy(
                array.ctypes.data_as(ctypes.c_void_p), self.memory[info["name"]], array.nbytes, 2
            )
        return arrays


# runtime: (its class, the names of its modules in the order tried, how to install it)
RUNTIMES: dict[str, tuple[Any, list[str], str]] = {
    "onnxruntime": (OnnxRuntime, ["onnxruntime"], "pip install onnxruntime"),
    "litert": (LiteRT, ["ai_edge_litert", "tflite_runtime"], "pip install ai-edge-litert"),
    "tvm": (TVM, ["tvm"], "pip install 'apache-tvm==0.26.*' 'apache-tvm-ffi==0.1.13.*'"),
    "edgetpu": (EdgeTPU, ["ai_edge_litert", "tflite_runtime"], "pip install tflite-runtime, and "
                "libedgetpu1-std from Coral's apt archive"),
    "tensorrt": (TensorRT, ["tensorrt"], "TensorRT comes with JetPack: apt install tensorrt"),
}  # fmt: skip
DISTRIBUTIONS = {"ai_edge_litert": "ai-edge-litert", "tflite_runtime": "tflite-runtime",
                 "tvm": "apache-tvm"}  # fmt: skip

MODULES = {
    "ai_edge_litert": "ai_edge_litert.interpreter",
    "tflite_runtime": "tflite_runtime.interpreter",
    "tvm": "tvm.runtime.vm",
}


def installed(modules: list[str]) -> str:
    """The first of these modules that is installed, or an empty string; imports nothing. A folder
    left behind by an uninstall does not count, although it can be imported."""
    from importlib import util

    for module in modules:
        spec = util.find_spec(module)
        if spec is not None and spec.origin is not None:
            return module
    return ""


def version_of(runtime: str) -> str:
    """The installed version of a runtime's library, or an empty string, without importing it."""
    from importlib import metadata

    if not RUNTIMES[runtime][1]:
        return f"{runtime}, without a library"
    module = installed(RUNTIMES[runtime][1])
    name = DISTRIBUTIONS.get(module, module)
    if not name:
        return ""
    try:
        return f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return f"{name}, version unknown"


def has_edgetpu() -> bool:
    """Whether the Edge TPU's delegate is installed in the usual library folders."""
    try:
        ctypes.CDLL(EDGETPU_LIBRARY)
    except OSError:
        return False
    return True


def import_library(runtime: str) -> None:
    """Import a runtime's library first, so that its time and memory are not attributed to the
    model. Raises `Fault` if it is installed but fails to import."""
    from importlib import import_module

    _, modules, how = RUNTIMES.get(runtime, (None, [], ""))
    module = installed(modules)
    try:
        if module:
            import_module(MODULES.get(module, module))
    except Exception as error:  # an incomplete installation, or one for another numpy or processor
        raise Fault(
            "missing-runtime", f"{runtime} can't be imported: {first_line(error)}", how
        ) from error


def adopt(runners: Table) -> None:
    """Add runtimes from files that were sent along, by the runtime's name.

    Nothing else imports such a file. It has a class `Runner` with the constructor and
    the methods of `Model`, `MODULES` (names of modules, one of which it needs, may be empty) and
    `INSTALL` (how to install one). With `BASE`, the name of a runtime known here, the class is
    mixed into that runtime's own.
    """
    from importlib.machinery import SourceFileLoader
    from importlib.util import module_from_spec, spec_from_loader

    for name, path in runners.items():
        if name in RUNTIMES:
            continue
        loader = SourceFileLoader("edgekd_runner_" + re.sub(r"\W", "_", name), path)
        try:
            spec = spec_from_loader(loader.name, loader)
            module = module_from_spec(spec)  # type: ignore[arg-type]
            loader.exec_module(module)
            base = RUNTIMES[module.BASE][0] if hasattr(module, "BASE") else Model
            kind = type("Runner", (module.Runner, base), {})
            RUNTIMES[name] = (kind, list(module.MODULES), str(module.INSTALL))
        except Exception as error:
            message = f"the runner of {name} can't be loaded: {first_line(error)}"
            raise Fault("bad-request", message) from error


def load(request: Table) -> Any:
    """The model of a request, with `load_ns` set to its load time without the library's import."""
    adopt(request.get("runners", {}))
    name = request.get("runtime", "")
    if name not in RUNTIMES:
        raise Fault("bad-request", f"unknown runtime '{name}'; available: {', '.join(RUNTIMES)}")
    kind, modules, how = RUNTIMES[name]
    if not version_of(name):
        raise Fault("missing-runtime", f"no {name}: none of {modules} is installed", how)
    path = request["path"]
    if not os.path.isfile(path):
        raise Fault("bad-model", "no such file")
    if request.get("options", {}).get("affinity"):
        keep_to(request["options"]["affinity"])
    if name.startswith("tvm"):  # read on import: the first model decides for the process
        os.environ.setdefault("TVM_NUM_THREADS", str(request.get("options", {}).get("threads", 1)))
    try:
        import_library(name)
        start = time.perf_counter_ns()
        model = kind(path, request.get("options", {}))
        model.load_ns = time.perf_counter_ns() - start
        model.ranges = request.get("options", {}).get("ranges", {})
    except Fault:
        raise
    except ImportError as error:
        raise Fault("missing-runtime", f"{name} can't be imported: {error}", how) from error
    except MemoryError:
        raise Fault("failed", "not enough memory to load it") from None
    except Exception as error:
        raise Fault("bad-model", f"{name} can't load it: {first_line(error)}") from error
    for key in ("inputs", "outputs"):
        described = request.get(key) or []
        infos = in_order_of(getattr(model, key), described)
        setattr(model, key, infos)
        for info, given in zip(infos, described):
            if given.get("scale"):
                info.update(scale=given["scale"], zero_point=given.get("zero_point") or 0)
    return model


def in_order_of(infos: Arrays, described: Arrays) -> Arrays:
    """A model's inputs or outputs in the order of a description that names all of them."""
    named = {info["name"]: info for info in infos}
    names = [given["name"] for given in described]
    if len(named) != len(infos) or len(set(names)) != len(names) or set(names) != set(named):
        return infos
    return [named[name] for name in names]


def bounds_for(shape: list[int], low: Any, high: Any) -> tuple[Any, Any]:
    """The least and the largest value, each a number or one for each column of an input that has
    as many; for other columns the widest range of all."""
    if isinstance(low, list) and (not shape or len(low) != shape[-1]):
        return min(low), max(high)
    return low, high


def random_inputs(model: Any, seed: int) -> Arrays:
    """Random inputs of the model's shapes and types; unknown sizes are 1. Values are uniform within
    an input's range if it has one, otherwise floats are normal."""
    import numpy as np

    draw = np.random.RandomState(seed)
    arrays = []
    for info in model.inputs:
        shape = [max(size, 1) for size in info["shape"]]
        try:
            dtype = np.dtype(info["dtype"])
        except TypeError:
            dtype = np.dtype("O")
        if dtype.kind not in "biufc":
            raise Fault("bad-request", f"its input '{info['name']}' is of type {info['dtype']}: "
                        "no random values can be made for it")  # fmt: skip
        low, high = bounds_for(shape, *model.ranges.get(info["name"], (0, 1)))
        if info["name"] in model.ranges and (dtype.kind == "f" or info.get("scale")):
            array = to_model(draw.uniform(low, high, shape), info, "")
        elif info["name"] in model.ranges:
            least, most = (np.asarray(end).astype(np.int64) for end in (low, high))
            array = draw.randint(least, most + 1, shape, np.int64).astype(dtype)
        elif dtype.kind == "f":
            array = draw.standard_normal(shape).astype(dtype)
        elif dtype.itemsize == 1 and dtype.kind in "iu":
            limits = np.iinfo(dtype)
            array = draw.randint(limits.min, limits.max + 1, shape).astype(dtype)
        else:  # token ids, masks, flags: 0 and 1 are always in range
            array = draw.randint(0, 2, shape).astype(dtype)
        arrays.append(np.require(array, requirements="C"))  # so that a scalar stays one
    return arrays


def to_model(x: Any, info: Info, layout: str) -> Any:
    """Values as the model takes them: channels last if requested, floats quantized if it has a
    scale. Integers and flags stay what they are: of another type they are cast only if they fit."""
    import numpy as np

    if layout == "NHWC" and x.ndim == 4:
        x = x.transpose(0, 2, 3, 1)
    dtype = np.dtype(info["dtype"])
    if dtype.kind in "iu" and info.get("scale") and x.dtype.kind == "f":
        limits = np.iinfo(dtype.name)
        steps = np.rint(x / np.float32(info["scale"])) + info.get("zero_point", 0)
        x = np.clip(steps, limits.min, limits.max)
    elif dtype.kind in "iub" and x.dtype != dtype:
        cast = x.astype(dtype)
        strays = cast.astype(x.dtype) != x
        if x.size and strays.any():
            raise Fault(
                "bad-request",
                f"its input '{info['name']}' takes {dtype.name}, but got {x[strays].flat[0]}",
            )
        x = cast
    return np.require(x, dtype, "C")


def from_model(y: Any, info: Info) -> Any:
    """A model's output: float32 if it is floats or has a scale, else integers as they are."""
    import numpy as np

    y = np.asarray(y)
    if y.dtype.kind in "iu" and info.get("scale"):
        return (y.astype(np.float32) - info.get("zero_point", 0)) * np.float32(info["scale"])
    return y.astype(np.float32, copy=False) if y.dtype.kind == "f" else y


def rows_per_run(infos: Arrays, lengths: list[int], batch: int) -> list[int]:
    """How many rows of each array one inference takes.

    `lengths` are the arrays' first dimensions. A fixed size is the model's own, and a scalar takes
    one value; inputs that leave it open follow those that don't, or take `batch`.
    """
    if len(infos) != len(lengths):
        names = ", ".join(info["name"] for info in infos)
        raise Fault(
            "bad-request", f"it has {len(infos)} inputs ({names}), but got {len(lengths)} arrays"
        )
    own = [info["shape"][0] if info["shape"] else 1 for info in infos]
    fixed = [(length, size) for length, size in zip(lengths, own) if size > 0]
    length, size = fixed[0] if fixed else (1, 1)
    rows = [
        each if each > 0 else max(count * size // max(length, 1), 1) if fixed else batch
        for count, each in zip(lengths, own)
    ]
    if any(count * rows[0] != lengths[0] * each for count, each in zip(lengths, rows)):
        raise Fault("bad-request", f"its inputs have different numbers of samples: {lengths}")
    if not lengths or not lengths[0]:
        raise Fault("bad-request", "there are no samples to run it on")
    return rows


def ready_for(x: Any, missing: int, info: Info, layout: str) -> Any:
    """The rows of one inference as the model takes them, with the last one repeated where rows are
    missing."""
    import numpy as np

    expected = info["shape"]
    padded = np.concatenate([x, np.repeat(x[-1:], missing, 0)]) if missing else x
    ready = to_model(padded if expected else padded[0], info, layout)
    if len(expected) != ready.ndim or any(
        want not in (-1, have) for want, have in zip(expected[1:], ready.shape[1:])
    ):
        found = f"but got {list(ready.shape)}"
        raise Fault(
            "bad-request", f"its input '{info['name']}' takes shape {list(expected)}, {found}"
        )
    return ready


def infer_all(
    model: Any, arrays: Arrays, layout: str, batch: int, tick: Callable[[int], None]
) -> Arrays:
    """Every output (N, ...) for inputs (N, ...), both in the model's order, in batches of its own
    size, the last one padded."""
    import numpy as np

    count = len(arrays[0]) if arrays else 0
    rows = rows_per_run(model.inputs, [len(x) for x in arrays], batch)
    has_size = any(not info["shape"] or info["shape"][0] > 0 for info in model.inputs)
    parts = []
    for start in range(-(-count // rows[0])):
        chunks = [x[start * size : (start + 1) * size] for x, size in zip(arrays, rows)]
        share = len(chunks[0]) / rows[0]
        model.feed([
            ready_for(x, size - len(x) if has_size else 0, info, layout)
            for x, size, info in zip(chunks, rows, model.inputs)
        ])  # fmt: skip
        model.run()
        found = []
        for which, raw in enumerate(model.fetch()):
            y = from_model(raw, model.outputs[which] if which < len(model.outputs) else {})
            y = np.atleast_1d(y)
            found.append(y[: round(len(y) * share)] if has_size else y)
        parts.append(found)
        tick(start * rows[0] + len(chunks[0]))
    return [np.concatenate(each) for each in zip(*parts)]


def read(path: str) -> str:
    """The text of a small system file, or an empty string if it can't be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def spoken(command: list[str]) -> str:
    """The last line printed by a small vendor tool, or an empty string if it is not installed."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=5, text=True)
        lines = done.stdout.strip().splitlines()
    except (OSError, subprocess.SubprocessError):
        return ""
    return lines[-1] if lines and done.returncode == 0 else ""


def conditions(root: str) -> Table:
    """The current conditions that latency depends on. Keys are missing where the system does not
    report them."""
    cpu = min(os.sched_getaffinity(0))
    frequency = f"{root}/sys/devices/system/cpu/cpu{cpu}/cpufreq/"
    zones = sorted(glob.glob(root + "/sys/class/thermal/thermal_zone*/temp"))
    heat = [int(read(zone)) / 1000 for zone in zones if read(zone).lstrip("-").isdigit()]
    conditions = {
        "governor": read(frequency + "scaling_governor"),
        "frequency_khz": read(frequency + "scaling_cur_freq"),
        "highest_frequency_khz": read(frequency + "scaling_max_freq"),
        "temperature_c": f"{max(heat):.1f}" if heat else "",
        "power_mode": spoken(["nvpmodel", "-q"]) if not root else "",
        "affinity": ",".join(str(core) for core in sorted(os.sched_getaffinity(0))),
        "load": f"{os.getloadavg()[0]:.2f}",
    }
    counters = glob.glob(root + "/sys/devices/system/cpu/cpu*/thermal_throttle/*_throttle_count")
    if counters:
        conditions["throttle_count"] = str(sum(int(read(path) or 0) for path in counters))
    flags = read(root + "/sys/devices/platform/soc/soc:firmware/get_throttled")  # Raspberry Pi
    if flags:
        conditions["throttled_flags"] = flags
    return {key: value for key, value in conditions.items() if value}


def system_path(path: str) -> str:
    """A path below /sys or /proc, unchanged; other paths are refused."""
    if not path.startswith(("/sys/", "/proc/")) or ".." in path.split("/"):
        raise Fault("bad-request", "only files below /sys and /proc can be read")
    return path


def processor_features(root: str) -> list[str]:
    """What Linux lists of the first processor; empty where it lists none."""
    flags = [line for line in read(root + "/proc/cpuinfo").splitlines()
             if line.split(":")[0].strip() in ("flags", "Features")]  # fmt: skip
    return flags[0].split(":")[1].split() if flags else []


def facts(root: str) -> Table:
    """Further facts for `edgekd doctor`: processor features, memory, disk space, sensors."""
    from importlib import metadata

    memory = dict(line.split(":", 1) for line in read(root + "/proc/meminfo").splitlines())
    total, free = (
        int(memory[key].split()[0]) * 1024 if key in memory else None
        for key in ("MemTotal", "MemAvailable")
    )
    disk = os.statvfs(os.getcwd())
    governors = glob.glob(root + "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")
    try:
        numpy_version = metadata.version("numpy")
    except metadata.PackageNotFoundError:
        numpy_version = ""
    return {
        "features": processor_features(root),
        "memory_bytes": total,
        "memory_free_bytes": free,
        "storage_free_bytes": disk.f_bavail * disk.f_frsize,
        "governors": sorted({read(path) for path in governors} - {""}),
        "sensors": sensors(root),
        "numpy": numpy_version,
    }


def sensors(root: str) -> Table:
    """Energy sensors by kind: their names if they can be read, else the reason."""
    found: Table = {}
    zones = sorted(glob.glob(root + "/sys/class/powercap/intel-rapl:*/energy_uj"))
    readable = [read(os.path.dirname(path) + "/name") for path in zones if read(path)]
    if zones:
        found["rapl"] = ", ".join(readable) or "not readable without root"
    labels = sorted(glob.glob(root + "/sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*/in*_label"))
    # A sum of shunt voltages also has a label, but no current.
    rails = [read(path) for path in labels
             if os.path.exists(re.sub("in([0-9]+)_label$", r"curr\1_input", path))]  # fmt: skip
    if rails:
        found["ina3221"] = ", ".join(rails)
    zones = glob.glob(root + "/sys/class/thermal/thermal_zone*/temp")
    if zones:
        found["thermal"] = f"{len(zones)} zones"
    return found


def throttled(before: Table, after: Table) -> str:
    """Why a run between these two conditions does not count, or an empty string."""
    if int(after.get("throttle_count", 0)) > int(before.get("throttle_count", 0)):
        return "the processor throttled (its throttle counter rose)"
    # Bits 0-3 are now, bits 16-19 since boot: under-voltage, capped, throttled, too hot.
    was, now = (int(each.get("throttled_flags", "0"), 16) for each in (before, after))
    if now & 0xF or (now >> 16) & ~(was >> 16) & 0xF:
        return f"the board throttled (flags {now:#x})"
    highest = [int(each.get("highest_frequency_khz", 0)) for each in (before, after)]
    if highest[1] < highest[0]:
        return f"the maximum frequency fell from {highest[0]} to {highest[1]} kHz"
    return ""


MOST_KEPT = 1 << 14
"""The most runs kept: a minute of microsecond runs would take gigabytes to store and send."""


def window(run: Callable[[], None], seconds: float, least: int) -> Arrays:
    """Nanoseconds of single runs, for a given time and number; one untimed run comes first."""
    clock = time.perf_counter_ns
    run()  # the caches hold the other model's data
    taken = []
    end = clock() + int(seconds * 1e9)
    while True:
        start = clock()
        run()
        stop = clock()
        taken.append(stop - start)
        if stop >= end and len(taken) >= least:
            return taken


def stream_counts(run: Callable[[], None], start: int, length: int, windows: int) -> Arrays:
    """The runs in each of the windows of `length` ns that follow each other from `start` on, while
    it runs without a pause. A run that spans several windows counts in parts."""
    clock = time.perf_counter_ns
    before = clock()
    if before >= start:
        raise Fault("failed", "the request came after the moment at which it was to start")
    counts, count, which, edge = [], 0.0, 0, start
    while which <= windows:
        run()
        after = clock()
        if after < edge:
            count += 1
            before = after
            continue
        span, reached = after - before, before
        while which <= windows and after >= edge:
            counts.append(count + (edge - reached) / span)
            reached, count, which, edge = edge, 0.0, which + 1, edge + length
        count, before = (after - reached) / span, after
    return counts[1:]  # the first were before the start


def warm_up(run: Callable[[], None], protocol: Table, tick: Callable[[int], None]) -> bool:
    """Run until the medians of two windows agree; False if they did not within the limit. `tick` is
    called with 0 after each window."""
    start, before = time.perf_counter(), 0.0
    count = 0
    while True:
        taken = window(run, protocol["warmup_window_s"], 1)
        tick(0)
        count += len(taken) + 1
        now = median(taken)
        spent = time.perf_counter() - start
        enough = count >= protocol["warmup_runs"] and spent >= protocol["warmup_s"]
        if enough and abs(now - before) <= protocol["settled"] * now:
            return True
        if spent >= protocol["warmup_limit_s"] and count >= protocol["warmup_runs"]:
            return False
        before = now


class Agent:
    """The loaded models, and one method per command."""

    def __init__(self, answer: Callable[[Table], None], root: str) -> None:
        self.answer = answer
        self.root = root
        self.models: dict[int, Any] = {}

    def hello(self, request: Table) -> Table:
        """What the board is and which runtimes it has."""
        adopt(request.get("runners", {}))
        names = read(self.root + "/proc/cpuinfo").splitlines()
        named = [line for line in names if line.startswith(("model name", "Model"))]
        board = read(self.root + "/proc/device-tree/model").strip("\0")
        return {
            "platform": platform.platform(),
            "machine": platform.machine(),
            "python": platform.python_version(),
            "cpu": board or (named[0].split(":")[1].strip() if named else platform.processor()),
            "cores": os.cpu_count(),
            "runtimes": {
                name: version_of(name) if name != "edgetpu" or has_edgetpu() else ""
                for name in RUNTIMES
            },
            "install": {name: how for name, (_, _, how) in RUNTIMES.items()},
            "conditions": conditions(self.root),
            "drivers": [name for name, library in DRIVERS.items() if loads(library)],
            **facts(self.root),
        }

    def load(self, request: Table) -> Table:
        """Load one model under a new number."""
        model = load(request)
        number = len(self.models)
        self.models[number] = model
        return {
            "model": number,
            "inputs": model.inputs,
            "outputs": model.outputs,
            "notes": model.notes,
            "version": version_of(request["runtime"]),
            "load_ns": model.load_ns,
        }

    def infer(self, request: Table) -> Table:
        """Run a file of inputs, one .npy after another, which is then removed; write a file of
        the raw outputs, one after another, little-endian."""
        import numpy as np

        model = self.models[request["model"]]
        with open(request["input"], "rb") as stream:
            arrays = [np.load(stream, allow_pickle=False) for _ in range(request["count"])]
        os.unlink(request["input"])
        tick = self._sign_of_life(request, len(arrays[0]) if arrays else 0, 1.0)
        layout, batch = request.get("input_layout", ""), request.get("batch", 64)
        outputs = infer_all(model, arrays, layout, batch, tick)
        partial = request["output"] + ".part"
        try:
            with open(partial, "wb") as stream:
                for y in outputs:
                    stream.write(np.ascontiguousarray(y, y.dtype.newbyteorder("<")).tobytes())
            os.replace(partial, request["output"])
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(partial)
        return {"outputs": [{"shape": list(y.shape), "dtype": y.dtype.name} for y in outputs]}

    def _sign_of_life(self, request: Table, least: int, every_s: float) -> Callable[[int], None]:
        """Report progress at most once per interval and restart the alarm: a slow or long request
        is not a hung one."""
        last = [time.monotonic()]

        def tick(done: int) -> None:
            if time.monotonic() >= last[0] + every_s:
                last[0] = time.monotonic()
                self.answer({"progress": done, "least": least})
                signal.alarm(int(request.get("limit_s", 0)))

        return tick

    def benchmark(self, request: Table) -> Table:
        """Windows of single runs of several models, interleaved: A B A B.

        For a model so fast that a window has more than `MOST_KEPT` runs, only every second, third,
        ... run is sent, the same share of each window; `counts` includes all of them.
        """
        models = [self.models[number] for number in request["models"]]
        protocol = request["protocol"]
        layouts = request.get("input_layouts", [""] * len(models))
        runs = []
        for model, layout in zip(models, layouts):
            arrays = random_inputs(model, request.get("seed", 0))
            model.feed(arrays)
            whole = request.get("end_to_end")
            runs.append(self._end_to_end(model, arrays, layout) if whole else model.run)
        before = conditions(self.root)
        gc.collect()
        gc.disable()
        tick = self._sign_of_life(request, protocol["windows"], 0.0)
        settled = [warm_up(run, protocol, tick) for run in runs]
        windows: Arrays = [[] for _ in runs]
        spans: Arrays = [[] for _ in runs]
        counts: Arrays = [[] for _ in runs]
        spent_ns, steps = [0 for _ in runs], [1 for _ in runs]
        while not all(map(self._enough, counts, spent_ns, [protocol] * len(runs))):
            for which, run in enumerate(runs):
                start = time.perf_counter_ns()
                taken = window(run, protocol["window_s"], 1)
                spans[which].append([start, time.perf_counter_ns()])
                if not counts[which]:
                    steps[which] = -(-len(taken) // MOST_KEPT)
                counts[which].append(len(taken))
                spent_ns[which] += sum(taken)
                windows[which].append(taken[:: steps[which]])
            tick(len(windows[0]))
        gc.enable()
        after = conditions(self.root)
        return {
            "windows_ns": windows,
            "counts": counts,
            "spans_ns": spans,
            "settled": settled,
            "before": before,
            "after": after,
            "invalid": throttled(before, after),
        }

    @staticmethod
    def _enough(counts: list[int], spent_ns: int, protocol: Table) -> bool:
        spent = spent_ns / 1e9
        complete = sum(counts) >= protocol["runs"] and spent >= protocol["seconds"]
        out_of_time = 0 < protocol["limit_s"] <= spent
        return bool(len(counts) >= protocol["windows"] and (complete or out_of_time))

    @staticmethod
    def _end_to_end(model: Any, arrays: Arrays, layout: str) -> Callable[[], None]:
        floats = [from_model(array, info) for array, info in zip(arrays, model.inputs)]
        if layout == "NHWC":
            floats = [x.transpose(0, 3, 1, 2).copy() if x.ndim == 4 else x for x in floats]

        # No conversion is needed if both sides are float32, as in any other program.
        takes = [None if info["dtype"] == "float32" and layout != "NHWC" else info
                 for info in model.inputs]  # fmt: skip
        gives = [None if info["dtype"] == "float32" else info for info in model.outputs]

        def run() -> None:
            ready = [x if info is None else to_model(x, info, layout)
                     for x, info in zip(floats, takes)]  # fmt: skip
            for y, info in zip(model.whole(ready), gives):
                if info is not None:
                    from_model(y, info)

        return run

    def profile(self, request: Table) -> Table:
        """The operators of a model whose runner records them, after a warm-up."""
        model = self.models[request["model"]]
        model.feed(random_inputs(model, request.get("seed", 0)))
        tick = self._sign_of_life(request, 1, 0.0)
        warm_up(model.run, request["protocol"], tick)
        whole = window(model.run, request["protocol"]["window_s"], 5)
        runs = max(min(request["runs"], int(1e9 * request["seconds"] / median(whole))), 5)
        return {"operators": model.operators(runs), "resolution": model.clock_ns}

    def warm(self, request: Table) -> Table:
        """Feed a model with random inputs and warm it up, before `stream`: its time for one run."""
        model = self.models[request["model"]]
        model.feed(random_inputs(model, request.get("seed", 0)))
        protocol = request["protocol"]
        settled = warm_up(model.run, protocol, self._sign_of_life(request, 1, 0.0))
        taken = window(model.run, protocol["warmup_window_s"], 1)
        return {"settled": settled, "run_ns": int(median(taken)), **self.clock(request)}

    def stream(self, request: Table) -> Table:
        """Run a model without a pause from `start_ns` on, a moment that other processes share: how
        many runs each window had, a run that spans several counted in parts."""
        before = conditions(self.root)
        gc.collect()
        gc.disable()
        counts = stream_counts(
            self.models[request["model"]].run,
            request["start_ns"],
            int(1e9 * request["window_s"]),
            request["windows"],
        )
        gc.enable()
        after = conditions(self.root)
        invalid = throttled(before, after)
        return {"counts": counts, "before": before, "after": after, "invalid": invalid}

    def memory(self, request: Table) -> Table:
        """Cold start and peak memory of one model, in a process that has loaded no other."""
        import numpy as np  # noqa: F401  (part of the baseline)

        os.environ["TVM_NUM_THREADS"] = str(request.get("options", {}).get("threads", 1))
        import_library(request.get("runtime", ""))  # so does the runtime's own library
        baseline, reason = self._resident(), ""
        try:
            with open("/proc/self/clear_refs", "w") as stream:
                stream.write("5")
        except OSError as error:
            reason = f"the peak can't be reset here: {error}"
        model = load(request)
        arrays = random_inputs(model, request.get("seed", 0))
        start = time.perf_counter_ns()
        try:
            model.feed(arrays)
            model.run()
        except RuntimeError as error:
            if request["runtime"] != "tvm" and not request["options"].get("shapes"):
                raise
            shapes = ", ".join(str(list(array.shape)) for array in arrays)
            message = f"it does not run with inputs of {shapes}: {first_line(error)}"
            raise Fault("bad-request", message) from error
        first = time.perf_counter_ns() - start
        for _ in range(2):
            model.run()
        peak = self._resident("VmHWM")
        return {
            "load_ns": model.load_ns,
            "first_ns": first,
            "peak_bytes": None if reason else max(peak - baseline, 0),
            "baseline_bytes": baseline,
            "reason": reason,
        }

    def look(self, request: Table) -> Table:
        """The text of small system files, by path."""
        found: Table = {}
        for pattern in request["patterns"]:
            for path in sorted(glob.glob(self.root + system_path(pattern)))[:256]:
                found[path[len(self.root) :]] = read(path)[:4096]
        return {"files": found}

    def record(self, request: Table) -> Table:
        """Read the numbers in some system files repeatedly, in a thread, until `recorded`."""
        paths = [self.root + system_path(path) for path in request["files"]]
        self.points: Arrays = []
        self.stopped = threading.Event()
        self.recorder = threading.Thread(
            target=self._record, args=(paths, request["period_s"]), daemon=True
        )
        self.recorder.start()
        return self.clock(request)

    def _record(self, paths: list[str], period_s: float) -> None:
        last = False
        while True:
            now, row = time.perf_counter_ns(), [read(path) for path in paths]
            self.points.append([now, [int(one) if one.lstrip("-").isdigit() else None
                                      for one in row]])  # fmt: skip
            if last:
                return
            last = self.stopped.wait(period_s)

    def recorded(self, request: Table) -> Table:
        """End the recording: the times, and the numbers at each, None where a file held none."""
        self.stopped.set()
        self.recorder.join()
        return {"points": self.points}

    def clock(self, request: Table) -> Table:
        """This machine's monotonic clock, which windows and recordings use."""
        return {"now_ns": time.perf_counter_ns()}

    @staticmethod
    def _resident(key: str = "VmRSS") -> int:
        for line in read("/proc/self/status").splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
        raise Fault("failed", f"no {key} in /proc/self/status")


DRIVERS = {"cuda": "libcuda.so.1"}


def loads(library: str) -> bool:
    """Whether the dynamic linker finds a library."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


COMMANDS = ("hello", "load", "infer", "benchmark", "profile", "warm", "stream", "memory", "look",
            "record", "recorded", "clock")  # fmt: skip


def perform(agent: Agent, line: bytes) -> Table:
    """The reply to one request."""
    try:
        request = json.loads(line)
        command = request.get("command")
        if command not in COMMANDS:
            raise Fault("bad-request", f"unknown command {command!r}")
        # The kernel ends the process at this alarm, even if a runtime hangs in native code.
        signal.alarm(int(request.get("limit_s", 0)))
        result = getattr(agent, command)(request)
        return {"ok": result}
    except Fault as fault:
        return fault.answer
    except Exception as error:
        message = f"{type(error).__name__}: {first_line(error)}"
        return Fault("failed", message).answer
    finally:
        signal.alarm(0)


def watch(argv: list[str], silence_s: float, limit_s: float, fed: bool, scratch: str) -> int:
    """Run a command; kill it and its process group when stdin ends or is silent for too long, or
    after the limit, with exit status 124.

    A lost connection ends stdin; on a hung one, the empty lines by which the client shows that it
    is alive stop coming. `fed` passes stdin on without those lines. The folder `scratch` is removed
    when stdin ends, because nobody else is left to do it. Returns the exit status, 128 plus its
    number for a signal.
    """
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # each of these only wakes the wait below
    source = subprocess.PIPE if fed else subprocess.DEVNULL
    try:
        child = subprocess.Popen(argv, stdin=source, start_new_session=True)
    except OSError as error:
        sys.stderr.write(f"{argv[0]}: {error.strerror}\n")
        return 127 if isinstance(error, FileNotFoundError) else 126
    waiting, begun, heard = b"", False, time.monotonic()
    last, alone = heard + limit_s, False
    try:
        if child.stdin is not None:
            os.set_blocking(child.stdin.fileno(), False)
        while child.poll() is None:
            to = [child.stdin] if waiting and child.stdin is not None else []
            now = time.monotonic()
            left = min(heard + silence_s, last) - now
            if left <= 0:
                return 124 if now >= last else 3
            ready, writable, _ = select.select([wake] if to else [wake, 0], to, [], left)
            if wake in ready and set(os.read(wake, 64)) - {signal.SIGCHLD}:
                return 3
            if writable:
                waiting = waiting[os.write(writable[0].fileno(), waiting) :]
            if 0 in ready:
                block = os.read(0, 1 << 16)
                if not block:
                    alone = True
                    return 3
                heard = time.monotonic()
                if fed and (
                    begun or block.strip(b"\n")
                ):  # the end of a long line is not a keep-alive
                    waiting, begun = block, not block.endswith(b"\n")
    except BrokenPipeError:
        child.wait(10)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        if alone and scratch:
            shutil.rmtree(scratch, ignore_errors=True)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def main() -> None:
    """Reply to requests until stdin ends."""
    parser = argparse.ArgumentParser(description="edgekd's agent: JSON lines on stdin and stdout")
    parser.add_argument("--pin", type=int, default=0, help="pin to that many processors")
    parser.add_argument(
        "--root", default="", help="folder that contains /sys and /proc (for tests)"
    )
    parser.add_argument("--watch", type=float, help="end if stdin is silent for that many seconds")
    parser.add_argument(
        "--limit", type=float, default=86400.0, help="with --watch: time limit in seconds"
    )
    parser.add_argument(
        "--scratch", default="", help="with --watch: a folder to remove when stdin ends"
    )
    parser.add_argument(
        "--fed",
        action="store_true",
        help="with --watch: the command reads stdin, as agents do",
    )
    parser.add_argument("command", nargs="*", help="with --watch: run this instead of the agent")
    given = parser.parse_args()
    if given.watch:
        itself = [sys.executable, "-u", os.path.abspath(__file__), "--pin", str(given.pin)]
        fed = given.fed or not given.command
        sys.exit(watch(given.command or itself, given.watch, given.limit, fed, given.scratch))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # output of a runtime is not a reply
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the client decides when this ends
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash leaves no file
    if given.pin:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-given.pin :])

    def answer(message: Table) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    agent = Agent(answer, given.root)
    try:
        for line in sys.stdin.buffer:
            if line.strip():
                answer(perform(agent, line))
    except BrokenPipeError:  # the client is gone
        sys.exit(3)


if __name__ == "__main__":
    main()
