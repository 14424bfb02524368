"""How the agent drives TensorRT, against stand-ins for its Python module and for CUDA's runtime: an
engine that doubles its input, in a device's memory that is this machine's."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgekd.devices.host import open_host
from edgekd.devices.session import AgentDevice
from edgekd.errors import InputError
from edgekd.values.artifact import Artifact, TensorInfo

CUDA = """
#include <stdlib.h>
#include <string.h>
int cudaStreamCreate(void **stream) { *stream = malloc(8); return 0; }
int cudaStreamSynchronize(void *stream) { return stream ? 0 : 400; }
int cudaMalloc(void **memory, size_t size) { *memory = malloc(size); return *memory ? 0 : 2; }
int cudaMemcpy(void *to, const void *from, size_t size, int kind) {
  if (kind != 1 && kind != 2) return 21;
  memcpy(to, from, size);
  return 0;
}
"""

# The names and arguments of TensorRT 10's Python interface, as far as the agent uses it.
MODULE = """
import ctypes
import enum
import numpy as np

class TensorIOMode(enum.Enum):
    NONE, INPUT, OUTPUT = range(3)

class Logger:
    ERROR = 1
    def __init__(self, severity): pass

def nptype(dtype):
    return {"FLOAT": np.float32}[dtype]

class IProfiler:
    def __init__(self): pass

class Context:
    profiler = None
    def __init__(self): self.at = {}
    def set_tensor_address(self, name, address): self.at[name] = address; return True
    def execute_async_v3(self, stream_handle):
        x, y = (np.ctypeslib.as_array((ctypes.c_float * 12).from_address(self.at[name]))
                for name in ("x", "y"))
        y[:] = 2 * x
        if self.profiler is not None:  # TensorRT reports at the end of an enqueue, in milliseconds
            self.profiler.report_layer_time("/body/0/Conv + /body/0/Relu", 0.25)
            self.profiler.report_layer_time("Reformatting CopyNode for Output", 0.0625)
        return isinstance(stream_handle, int)

class Engine:
    names = ("x", "y")
    num_io_tensors = 2
    def get_tensor_name(self, index): return self.names[index]
    def get_tensor_mode(self, name): return TensorIOMode[{"x": "INPUT", "y": "OUTPUT"}[name]]
    def get_tensor_dtype(self, name): return "FLOAT"
    def get_tensor_shape(self, name): return (2, 6)
    def create_execution_context(self): return Context()

class Runtime:
    def __init__(self, logger): pass
    def deserialize_cuda_engine(self, content): return Engine() if content == b"engine" else None
"""


@pytest.fixture
def jetson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AgentDevice]:
    """This machine with stand-ins for TensorRT and CUDA."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc here: apt install gcc")
    command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(tmp_path / "libcudart.so")]
    subprocess.run(command, input=CUDA, text=True, check=True)
    (tmp_path / "tensorrt").mkdir()
    (tmp_path / "tensorrt" / "__init__.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    device = open_host(limit_s=60.0)
    yield device
    device.close()


@pytest.fixture
def engine(make_artifact: Callable[..., Artifact], tmp_path: Path) -> Artifact:
    path = tmp_path / "double.engine"
    path.write_bytes(b"engine")
    info = TensorInfo(name="x", shape=(2, 6), dtype="float32")
    return make_artifact(path, "tensorrt", "tensorrt", inputs=(info,), outputs=(info,))


def test_an_engine_gets_its_inputs_and_gives_its_outputs(
    jetson: AgentDevice, engine: Artifact, tmp_path: Path
) -> None:
    options = {"cudart": str(tmp_path / "libcudart.so")}
    assert jetson.can_run(engine) == ""
    (x,), (y,) = jetson.probe(engine.path, "tensorrt", options)
    assert (x.name, x.shape, x.dtype, y.name) == ("x", (2, 6), "float32", "y")
    values = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    np.testing.assert_array_equal(jetson.infer(engine, [values], options)[0], 2 * values)
    short = {"protocol": {"seconds": 0.05, "runs": 10, "warmup_s": 0.0, "window_s": 0.01}}
    for scope in ("model", "end-to-end"):
        (samples,) = jetson.benchmark([engine], {**options, **short, "scope": scope}, quick=True)
        assert samples.scope == scope
        assert samples.conditions["provider"] == "tensorrt"


def test_an_engine_of_another_version_is_refused(
    jetson: AgentDevice, engine: Artifact, tmp_path: Path
) -> None:
    engine.path.write_bytes(b"of another version")
    with pytest.raises(InputError, match="built by another version or for another device"):
        jetson.probe(engine.path, "tensorrt", {"cudart": str(tmp_path / "libcudart.so")})


def test_the_profiler_of_a_context_tells_the_time_of_each_layer(
    jetson: AgentDevice, engine: Artifact, tmp_path: Path
) -> None:
    options = {"cudart": str(tmp_path / "libcudart.so")}
    profiled = jetson.profile(engine, options, quick=True)
    assert profiled.unit == "ns"
    assert [(each.name, set(each.values)) for each in profiled.operators] == [
        ("/body/0/Conv + /body/0/Relu", {250_000}),
        ("Reformatting CopyNode for Output", {62_500}),
    ]
