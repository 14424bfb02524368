"""TVM: one shared library, with edgekd's schedules on processors and TVM's own on NVIDIA's GPUs.

Running one inference needs NumPy and TVM's runtime alone. The input is NCHW as in the model, and
TVM_NUM_THREADS (read when the first kernel starts) sets the number of threads:

    import tvm
    from tvm import relax
    machine = relax.VirtualMachine(tvm.runtime.load_module("model.so"), tvm.cpu())
    output = machine["main"](tvm.runtime.tensor(x)).numpy()     # x: float32, the artifact's shape

For a CUDA library the device is `tvm.cuda()` and the input `tvm.runtime.tensor(x, tvm.cuda())`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.backends import Backend
from edgekd.backends.tvm.options import TvmOptions
from edgekd.registry import BACKENDS
from edgekd.values.artifact import Artifact, OpPlacement
from edgekd.values.backend import BackendInfo, FileKind, Needs, Package, Tool
from edgekd.values.inspection import Inspection
from edgekd.values.target import Target

if TYPE_CHECKING:
    from edgekd.values.candidate import Candidate


@BACKENDS.register(paper="Chen et al. 2018, TVM; Lai et al. 2025, Relax")
class Tvm(Backend):
    """Machine code of the model's own kernels, in one shared library."""

    info = BackendInfo(
        title="TVM",
        files=(
            FileKind(
                format="tvm-so", runtime="tvm", suffixes=(".so",), tells_inputs=False,
                plot_mark="^",
            ),
        ),
        precisions=("fp32", "fp16", "int8"),
        options=TvmOptions,
        needs=Needs(
            packages=(
                Package(name="apache-tvm", module="tvm", purpose="the TVM backend", extra="tvm"),
            ),
            tools=(
                Tool(
                    command="aarch64-linux-gnu-g++", purpose="TVM libraries for 64-bit ARM",
                    hint="apt install g++-aarch64-linux-gnu",
                ),
                Tool(
                    command="nvcc", purpose="TVM libraries for Jetson",
                    hint="install NVIDIA's CUDA toolkit",
                ),
            ),
        ),
    )  # fmt: skip

    def check(
        self, candidate: Candidate, target: Target, options: dict[str, Any]
    ) -> Sequence[OpPlacement]:
        """Every operator on one unit, once the tools that build for it are found."""
        from edgekd.backends.tvm.compile import check

        return check(candidate, target, options)

    def forms(self, options: dict[str, Any]) -> frozenset[str]:
        """No quantized candidates on a GPU, whose integer kernels it does not write."""
        forms = super().forms(options)
        return forms - {"int8"} if options.get("kind") == "cuda" else forms

    def prepare(self) -> None:
        """Start to import the compiler."""
        from edgekd.backends.tvm.job import WORKER, worker_environment
        from edgekd.processes.forked import prepare

        prepare(WORKER, worker_environment())

    def rehearsal_options(self, options: dict[str, Any]) -> dict[str, Any]:
        """Without measuring tiles or tuning."""
        return {**options, "grid_seconds": 0.0, "tune_seconds": 0.0}

    def compile(
        self, candidate: Candidate, target: Target, options: dict[str, Any], folder: Path
    ) -> list[Artifact]:
        """One file, `model.so`; out of the cache when the same program was compiled before."""
        from edgekd.backends.tvm.compile import compile_artifact

        return [compile_artifact(candidate, target, options, folder)]

    def inspect(self, path: Path, target: Target | None) -> Inspection:
        """The kernels, the machine and the sizes of a shared library."""
        from edgekd.backends.tvm.inspection import inspect_library

        return inspect_library(path, target)
