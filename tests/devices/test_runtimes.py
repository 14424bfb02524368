"""LiteRT and TVM on small files, against numbers worked out in NumPy."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekd.devices.session import AgentDevice
from edgekd.errors import InputError, MissingRuntime
from edgekd.values.artifact import Artifact, TensorInfo

COARSE, FINE = (0.5, 3), (0.25, -1)  # scale and zero point


def steps(x: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    return np.clip(np.rint(x / scale) + zero_point, -128, 127)


@pytest.mark.parametrize("kernels", ["optimized", "reference"])
def test_int8_inputs_and_outputs_are_converted_with_the_files_own_scales(
    host: AgentDevice, tflite: Artifact, kernels: str
) -> None:
    # Inputs on FINE's grid but off the ties of COARSE's, in NCHW: three samples, batch of one.
    grid = np.random.default_rng(0).integers(-50, 50, (3, 3, 2, 4)) * 2
    x = (grid * 0.25).astype(np.float32) + np.float32(0.05)
    x[0, 0, 0, 0] = 1e6  # beyond the range: saturates
    found = host.infer(tflite, [x], {"kernels": kernels})[0]
    fine = (steps(x, *FINE) - FINE[1]) * FINE[0]
    expected = (steps(fine, *COARSE) - COARSE[1]) * COARSE[0]
    np.testing.assert_array_equal(found, expected.transpose(0, 2, 3, 1))


def test_a_given_scale_wins_over_the_files_own(host: AgentDevice, tflite: Artifact) -> None:
    mine = TensorInfo(name="x", shape=(1, 2, 4, 3), dtype="int8", scale=0.5, zero_point=-1)
    x = np.full((1, 3, 2, 4), 4.0, np.float32)  # 8 steps of 0.5, read as 8 of 0.25
    found = host.infer(tflite.model_copy(update={"inputs": (mine,)}), [x], {})[0]
    assert set(found.ravel()) == {2.0}


def test_litert_is_timed_and_tells_its_kernels(host: AgentDevice, tflite: Artifact) -> None:
    short = {"protocol": {"seconds": 0.05, "warmup_s": 0.0, "window_s": 0.01}}
    (samples,) = host.benchmark([tflite], {"kernels": "reference", **short}, quick=True)
    assert samples.conditions["kernels"] == "reference"
    assert samples.conditions["runtime"].startswith(("ai-edge-litert", "tflite-runtime"))


def test_a_missing_delegate_is_named(host: AgentDevice, tflite: Artifact) -> None:
    with pytest.raises(InputError, match=r"the delegate libnowhere\.so did not load"):
        host.probe(tflite.path, "litert", {"delegate": "libnowhere.so"})


DELEGATE = r"""
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <sys/file.h>
/* TfLiteDelegate, as tensorflow/lite/core/c/common.h has it; this one takes no operator. With
   `alone` it is like an Edge TPU: one process at a time may hold it, for as long as it lives. */
typedef struct Delegate {
  void *data;
  int (*prepare)(void *context, struct Delegate *self);
  void *copy_from, *copy_to, *free_handle;
  int64_t flags;
  void *builder;
} Delegate;
static const char *mark;
static int held = -1;
static int prepare(void *context, Delegate *self) {
  FILE *file = fopen(mark, "a");
  fprintf(file, "prepared\n");
  return fclose(file);
}
Delegate *tflite_plugin_create_delegate(char **keys, char **values, size_t count,
                                        void (*report)(const char *)) {
  for (size_t i = 0; i < count; i++)
    if (!strcmp(keys[i], "mark")) mark = strdup(values[i]);
    else if (!strcmp(keys[i], "alone") && held < 0) {
      held = open(values[i], O_CREAT | O_RDWR, 0600);
      if (flock(held, LOCK_EX | LOCK_NB)) { report("held by another process"); return NULL; }
    }
  if (!mark) { report("no mark is set"); return NULL; }
  Delegate *made = calloc(1, sizeof *made);
  made->prepare = prepare;
  return made;
}
void tflite_plugin_destroy_delegate(Delegate *delegate) { free(delegate); }
"""


@pytest.fixture(scope="session")
def delegate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A delegate for LiteRT that leaves a mark and computes nothing."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc here: apt install gcc")
    library = tmp_path_factory.mktemp("delegate") / "libmark.so"
    command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)]
    subprocess.run(command, input=DELEGATE, text=True, check=True)
    return library


def test_a_delegate_is_loaded_with_its_options(
    host: AgentDevice, tflite: Artifact, delegate: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    chosen = {"delegate": str(delegate), "delegate_options": {"mark": str(mark), "other": "1"}}
    x = np.random.default_rng(0).normal(size=(2, 3, 2, 4)).astype(np.float32)
    np.testing.assert_array_equal(
        host.infer(tflite, [x], chosen)[0], host.infer(tflite, [x], {})[0]
    )
    assert mark.read_text() == "prepared\n"


def test_a_device_that_one_process_may_hold_is_given_to_each_in_its_turn(
    host: AgentDevice, tflite: Artifact, delegate: Path, tmp_path: Path
) -> None:
    own = {"mark": str(tmp_path / "mark"), "alone": str(tmp_path / "alone")}
    chosen = {"delegate": str(delegate), "delegate_options": own}
    x = np.zeros((2, 3, 2, 4), np.float32)
    host.probe(tflite.path, "litert", chosen)
    one, other = host.benchmark([tflite, tflite], chosen, quick=True)
    assert one.windows_ms
    assert other.windows_ms
    assert len(host.infer(tflite, [x], chosen)[0]) == 2


def test_a_delegate_that_refuses_says_why(
    host: AgentDevice, tflite: Artifact, delegate: Path
) -> None:
    with pytest.raises(InputError, match=r"libmark\.so did not load: .*no mark is set"):
        host.probe(tflite.path, "litert", {"delegate": str(delegate)})


def test_a_board_without_the_edge_tpus_library_lacks_its_runtime(
    host: AgentDevice, tflite: Artifact
) -> None:
    if host.hello().runtimes["edgetpu"]:
        pytest.skip("the Edge TPU's library is here")
    with pytest.raises(MissingRuntime, match=r"the delegate libedgetpu\.so\.1 did not") as caught:
        host.probe(tflite.path, "edgetpu", {})
    assert "libedgetpu1-std from Coral's apt archive" in caught.value.hint


BUILD_TVM = """
import sys, tvm
from tvm import relax
builder = relax.BlockBuilder()
x = relax.Var("x", relax.TensorType((2, 5), "float32"))
with builder.function("main", [x]):
    with builder.dataflow():
        y = builder.emit_output(builder.emit(relax.op.add(x, x)))
    builder.emit_func_output(y)
tvm.compile(builder.get(), target="llvm").export_library(sys.argv[1])
"""


@pytest.mark.slow
def test_a_tvm_library_runs_with_the_shapes_that_its_artifact_tells(
    host: AgentDevice, make_artifact: Callable[..., Artifact], tmp_path: Path
) -> None:
    if not host.hello().runtimes["tvm"]:
        pytest.skip("TVM is not here")
    library = tmp_path / "twice.so"
    built = subprocess.run(
        [sys.executable, "-c", BUILD_TVM, str(library)], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    info = TensorInfo(name="x", shape=(2, 5), dtype="float32")
    twice = make_artifact(library, "tvm-so", "tvm", inputs=(info,), outputs=(info,))
    assert host.can_run(twice) == ""
    x = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    np.testing.assert_array_equal(host.infer(twice, [x], {"kind": "llvm", "threads": 1})[0], 2 * x)
    with pytest.raises(InputError, match="does not record its inputs"):
        host.probe(library, "tvm", {})
    wrong = twice.model_copy(update={"inputs": (info.model_copy(update={"shape": (2, 6)}),)})
    with pytest.raises(InputError, match=r"does not run with inputs of \[2, 6\]: .*6 vs. 5"):
        host.benchmark([wrong], {"kind": "llvm", "threads": 1}, quick=True)
