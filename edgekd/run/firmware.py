"""`edgekd firmware build`: from recipe to sources in one step, for build systems."""

# code-key: presents

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from edgekd.backends.c import COptions, generated_for
from edgekd.errors import InputError
from edgekd.firmware.arena import measure_arena
from edgekd.firmware.facts import check_name
from edgekd.firmware.stored_facts import facts_in
from edgekd.firmware.tflm import micro_sources
from edgekd.report.overruns import best_micro_file
from edgekd.report.values import Report
from edgekd.run.backend_choice import with_backends
from edgekd.run.compress import run_plan
from edgekd.run.lock.lockfile import lock_sources
from edgekd.run.plan import Request
from edgekd.run.plan.make import make_plan
from edgekd.values.progress import silent

Output = Literal["c", "tflm"]
OUTPUTS: tuple[Output, ...] = ("c", "tflm")


def check_build(request: Request, name: str, output: str) -> None:
    """Reject a build that can't work before anything is trained."""
    check_name(name)
    if output not in OUTPUTS:
        raise InputError(f"unknown output '{output}'", where="--output", allowed=", ".join(OUTPUTS))
    for target in request.targets:
        if "tflite" not in target.backends:
            raise InputError(
                f"{target.name} has no TFLite backend, and sources are generated from a TFLite "
                "file",
                where="--target",
                hint="copy the target's file and add [backends.tflite]",
            )


def narrowed(request: Request, output: str) -> Request:
    """The request, limited to the backends that the sources come from: no ONNX, no TVM, and no
    file of the uncompressed teacher. Flash and memory budgets apply to the last of these
    backends."""
    wanted = ("tflite", "c") if output == "c" else ("tflite", "vela")
    last = wanted[1] if all(wanted[1] in target.backends for target in request.targets) else ""
    targets = tuple(with_backends(target, wanted) for target in request.targets)
    return replace(request, targets=targets, baseline=False, product=last)


def build(request: Request, name: str, output: str, folder: Path) -> tuple[Report, Sequence[Path]]:
    """Compress for one target and write its sources into `folder`, or none if a budget is broken.

    Sources are written only if the run passes, so a build that continues after an error can't link
    a model that breaks its budgets. Their hashes go into the run's lock.
    """
    check_build(request, name, output)
    report = run_plan(make_plan(narrowed(request, output)), silent)
    if report.verdict != "pass" or report.targets[0].failures:
        return report, ()
    chosen = best_micro_file(report.targets[0].artifacts, output)
    if chosen is None:
        raise InputError(
            "the run built no int8 TFLite file to generate sources from",
            where=str(request.out),
            hint='add a stage with kind = "quantize", dtype = "int8"',
        )
    model = request.out / chosen.path
    paths: Sequence[Path]
    if output == "c":
        (target,) = request.targets
        options = COptions(**target.backends.get("c", {}))
        paths = generated_for(model, target, options, name).write(folder)
    else:
        paths = micro_sources(model, measure_arena(model), name, facts_in(model)).write(folder)
    lock_sources(request.out, paths)
    return report, paths
