"""The process that TVM runs in: `python -m edgekd.backends.tvm.worker FOLDER`.

It reads `job.json` and `program.pt2` from the folder and writes `library.so` and `result.json`.
A crash of TVM or LLVM ends this process alone.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from edgekd.backends.tvm.isa import Isa

PRELOADED = (
    "torch",
    "tvm",
    "edgekd.backends.tvm.integers.lower",
    "edgekd.backends.tvm.library",
    "edgekd.backends.tvm.lower",
)


def main(place: str) -> None:
    """Compile the job in the folder `place`."""
    import torch
    import tvm

    from edgekd.backends.tvm import cuda
    from edgekd.backends.tvm.grid import Grid
    from edgekd.backends.tvm.library import built, exported
    from edgekd.backends.tvm.tools import linker_of
    from edgekd.quant import rewrite  # noqa: F401 - declares the operators of quantized programs

    folder = Path(place)
    job = json.loads((folder / "job.json").read_text())
    program = torch.export.load(folder / "program.pt2")
    start = time.monotonic()
    target = tvm.target.Target(job["target"])
    grid = Grid(Isa(**job["isa"]), target, job["grid_seconds"], job["known_tiles"])
    on_gpu = job["target"]["kind"] == "cuda"
    with target:
        module, left, kernels = _lowered(program, job, grid, target)
    executable, planned = built(module, target)
    linker = linker_of(job["architecture"])
    facts = {"features": job["features"], "kernels": kernels}
    exported(executable, folder / "library.so", linker, facts)
    if on_gpu:
        cuda.check_machine_code(folder / "library.so", job["target"]["arch"])
    result = {
        "planned_bytes": planned,
        "uncovered": left.uncovered,
        "general": left.general,
        "tiles": grid.known,
        "grid_seconds": grid.used,
        "seconds": time.monotonic() - start,
        **_interface(module),
    }
    (folder / "result.json").write_text(json.dumps(result))


def _lowered(
    program: Any, job: dict[str, Any], grid: Any, target: Any
) -> tuple[Any, Any, list[tuple[str, str]]]:
    """The program as scheduled kernels, those without a good schedule, and the integer kernels in
    the order in which they run, each with its layer."""
    from edgekd.backends.tvm import cuda, lower

    if job["precision"] == "int8":
        module, kernels = _in_integers(program, job, grid)
        module = lower.legalized(module, grid.choose)
        return *_scheduled(module, grid.isa, target, job["tune_seconds"]), kernels
    on_gpu = job["target"]["kind"] == "cuda"
    module = lower.imported(program, channels_last=not on_gpu)
    if job["precision"] == "fp16":
        module = lower.half(module)
    if job["grid_seconds"]:
        grid.measure(lower.layers_of(module))
    module = lower.legalized(module, None if on_gpu else grid.choose)
    if on_gpu:
        module, unbound = cuda.scheduled(module)
        return module, lower.Left(uncovered=unbound, general=[]), []
    return *_scheduled(module, grid.isa, target, job["tune_seconds"]), []


def _in_integers(program: Any, job: dict[str, Any], grid: Any) -> tuple[Any, list[tuple[str, str]]]:
    """A quantized program as a Relax module of integer kernels, and these in order."""
    from edgekd.backends.tvm.integers import choice, dot, intrinsics, lower, reading

    signed = job["architecture"] != "x86_64"
    chosen = dot.dot_named(job["dot"], grid.isa.lanes, signed)
    intrinsics.register(chosen)
    tiles = choice.IntegerGrid(grid.isa, grid.target, grid.seconds, grid.known)
    written = lower.written(reading.as_graph(program), chosen, tiles.choose)
    grid.used += tiles.used
    return written


def _scheduled(module: Any, isa: Isa, target: Any, seconds: float) -> tuple[Any, Any]:
    """The module with edgekd's schedules, and with those that MetaSchedule finds within `seconds`
    for kernels that have none; also the kernels that remain without one."""
    from edgekd.backends.tvm import lower
    from edgekd.backends.tvm.tune import tuned

    plain = dict(module.functions_items())
    module, left = lower.scheduled(module, isa)
    names = [*left.uncovered, *left.general]
    if not (seconds and names):
        return module, left
    kernels = {variable.name_hint: function for variable, function in plain.items()}
    searched = tuned({name: kernels[name] for name in names}, target, seconds)
    for name, kernel in searched.items():
        module.update_func(module.get_global_var(name), kernel)
    return module, left.without(searched)


def _interface(module: Any) -> dict[str, Any]:
    """Shapes and dtypes of the entry function's input and outputs."""
    main = module["main"]
    returned = main.ret_ty
    outputs = list(returned.fields) if hasattr(returned, "fields") else [returned]
    return {
        "inputs": [_tensor(param.ty) for param in main.params],
        "outputs": [_tensor(output) for output in outputs],
    }


def _tensor(info: Any) -> dict[str, Any]:
    return {"shape": [int(size) for size in info.shape], "dtype": str(info.dtype)}


if __name__ == "__main__":
    main(sys.argv[1])
