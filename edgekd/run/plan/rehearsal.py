"""A dry run of stages and compilers on the untrained network, so that failures come early. Nothing
is trained: stages change the network's structure and types on a few samples, and every backend
compiles the result. That takes seconds, where training may take hours.
"""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from edgekd.backends import Backend, Follower
from edgekd.devices.opening import open_device
from edgekd.errors import Collector, EdgekdError, InputError, caught, unexpected_error
from edgekd.formats.arena import planned_arena
from edgekd.formats.onnx_file import read_onnx
from edgekd.formats.tflite import read_tflite
from edgekd.measure.inference import arrays_of
from edgekd.quant.export import export_graph
from edgekd.quant.export_check import check_exported
from edgekd.run.compiled import publish_artifact
from edgekd.run.plan.planned import ExpectedFile
from edgekd.run.precisions import candidates_for, failed, taken_by
from edgekd.stages import Context, Stage
from edgekd.values.artifact import Artifact
from edgekd.values.backend_lookup import not_run
from edgekd.values.candidate import Candidate
from edgekd.values.progress import silent
from edgekd.values.target import Target
from edgekd.values.tree import rows

SAMPLES = 32
"""Samples taken of each part of the data, and for calibrating ranges."""


@dataclass(frozen=True)
class Rehearsed:
    """The stages' result without training, the last candidate with float weights, and what each
    stage left as it was."""

    candidate: Candidate
    floating: Candidate
    notes: tuple[str, ...] = ()


def rehearse_stages(
    start: Candidate, stages: Sequence[Stage], context: Context, collect: Collector
) -> Rehearsed | None:
    """The candidate after all stages; None if a stage fails, with its error in `collect`."""
    candidate = floating = start
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="edgekd-plan-") as folder:
        for number, stage in enumerate(stages, 1):
            where = f"stages.{number} ({stage.kind})"
            few = _few_samples(context, Path(folder) / str(number))
            try:
                candidate = stage.rehearse(candidate, few)
            except EdgekdError as error:
                collect.faults.extend(error.faults)
                return None
            except Exception as error:
                collect.faults.append(unexpected_error(error, where, f"'{stage.kind}'"))
                return None
            notes += [f"{number}. {stage.kind}: {note}" for note in candidate.notes]
            candidate = replace(candidate, notes=())
            if candidate.is_floating:
                floating = candidate
    if candidate.is_floating:  # a stage that quantizes checks it by itself
        faults = _export_faults(candidate, context.data.test.first(SAMPLES).x)
        collect.faults.extend(faults)
        if faults:
            return None
    return Rehearsed(candidate, floating, tuple(notes))


def _export_faults(candidate: Candidate, x: Tensor) -> list[EdgekdError]:
    """A fault if the network's exported graph computes something else on samples x (N, ...). If it
    can't be exported at all, the backends that need a graph say so."""
    try:
        graph = export_graph(candidate.module, candidate.example)
    except EdgekdError:
        return []
    try:
        check_exported(graph, candidate.module, x, "model")
    except EdgekdError as error:
        return list(error.faults)
    return []


def _few_samples(context: Context, work: Path) -> Context:
    work.mkdir()
    data = context.data
    few = replace(
        data,
        train=data.train.some(SAMPLES),
        validation=data.validation.some(SAMPLES),
        test=data.test.some(SAMPLES),
    )
    ranges = None if context.calibration is None else rows(context.calibration, slice(SAMPLES))
    return replace(context, data=few, calibration=ranges, work=work, cache=work, progress=silent)


def rehearse_backends(
    rehearsed: Rehearsed,
    target: Target,
    backends: Mapping[str, Backend | Follower],
    keep: Path | None = None,
) -> tuple[dict[str, EdgekdError], tuple[ExpectedFile, ...]]:
    """The errors of the backends that can't compile the network, by backend, and the files that
    the others compiled; those that are final are kept in the folder `keep`, if there is one."""
    errors: dict[str, EdgekdError] = {}
    made: list[Artifact] = []
    expected: list[ExpectedFile] = []
    arrays = arrays_of(rehearsed.candidate.example)
    with tempfile.TemporaryDirectory(prefix="edgekd-plan-") as folder:
        for name, backend in backends.items():
            try:
                if isinstance(backend, Follower):
                    _check_followed(backend, name, target, made)
                else:
                    refused, files = _compiled(backend, name, rehearsed, target, Path(folder))
                    _run_once(files, arrays)
                    made += files
                    final = _is_final(backend, target.backends.get(name, {}))
                    expected += [_expected(file, final, keep) for file in files]
                    errors |= refused
            except Exception as error:
                errors[name] = caught(error, f"backends.{name}", f"the backend '{name}'")
        return errors, tuple(expected)


def _is_final(backend: Backend, options: dict[str, Any]) -> bool:
    return backend.rehearsal_options(options) == options


def _expected(artifact: Artifact, final: bool, keep: Path | None) -> ExpectedFile:
    """A file's size, and the memory that its tensors take at least."""
    planned = None
    if artifact.format in ("onnx", "tflite"):
        with suppress(InputError):
            read = read_onnx if artifact.format == "onnx" else read_tflite
            planned = planned_arena(read(artifact.path))[0]
    kept = None
    if final and keep is not None:
        kept = publish_artifact(artifact, keep / artifact.sha256[:16])
    return ExpectedFile(
        format=artifact.format,
        bytes=artifact.bytes,
        planned_bytes=planned,
        final=final,
        artifact=kept,
    )


def _compiled(
    backend: Backend, name: str, rehearsed: Rehearsed, target: Target, folder: Path
) -> tuple[dict[str, EdgekdError], list[Artifact]]:
    """One backend's files, and the errors of the precisions that gave none. Raises the last error
    if there is no file."""
    options = backend.rehearsal_options(target.backends.get(name, {}))
    several = candidates_for(rehearsed.candidate, rehearsed.floating, backend.forms(options))
    errors: dict[str, EdgekdError] = {}
    made: list[Artifact] = []
    for precision, candidate in several.items():
        place = folder / failed(name, precision)
        place.mkdir()
        try:
            made += backend.compile(candidate, target, options, place)
        except Exception as error:
            what = f"the backend '{name}'"
            errors[failed(name, precision)] = caught(error, f"backends.{name}", what)
    if errors and not made:
        raise list(errors.values())[-1]
    return errors, made


def _run_once(artifacts: Sequence[Artifact], arrays: Sequence[np.ndarray]) -> None:
    """Run each file on one sample where this machine can: a kernel may refuse what compiled."""
    with closing(open_device("host")) as host:
        for artifact in artifacts:
            if not (not_run(artifact.format) or host.can_run(artifact)):
                host.infer(artifact, arrays, {})


def _check_followed(backend: Follower, name: str, target: Target, made: Sequence[Artifact]) -> None:
    """Run a follower's static check on the files that it starts from; it compiles only in the
    run."""
    for artifact in taken_by(backend.info, made):
        backend.check_artifact(artifact, target, target.backends.get(name, {}))
