"""`edgekd verify`: whether a finished run's files are still what its report says."""

# code-key: presents

import json
from pathlib import Path

import numpy as np

from edgekd.data import load_data
from edgekd.devices import Device
from edgekd.devices.opening import open_device
from edgekd.errors import EdgekdError, InputError, ToolError, raise_all
from edgekd.measure.parity import compare
from edgekd.report.files import JSON_NAME, load_report
from edgekd.report.values import ArtifactReport, Report, TargetReport
from edgekd.run.lock.changes import changes, hashes_of
from edgekd.run.lock.lock_check import check_lock
from edgekd.run.lock.lockfile import read_lock
from edgekd.run.proof.place import cortex_m, options_for
from edgekd.values.artifact import Artifact
from edgekd.values.recipe import load_recipe
from edgekd.values.target import Target, load_target


def verify_run(folder: Path, sources: Path | None = None) -> list[str]:
    """Check hashes, lineage and parity of a run: a line for each thing that holds.

    The hash of every file and of its companions is taken anew, its lineage must be the stages' own
    lines, and what this machine can run is run over the test set once more and held against the
    reference outputs that were kept. `sources` is where `edgekd firmware build` put what the lock
    knows of it. Raises every fault found, at once.
    """
    report = load_report(folder)
    faults: list[EdgekdError] = []
    lines: list[str] = []
    for target in report.targets:
        for artifact in [*([target.baseline] if target.baseline else []), *target.artifacts]:
            found = _hash_faults(folder, artifact) or _lineage_faults(folder, report, artifact)
            faults += found
            if not found:
                lines.append(f"{artifact.path}: {_held(artifact)} and lineage hold")
    lock = read_lock(folder)
    if lock is not None:
        recipe = load_recipe(folder / "recipe.toml")
        changed, told = check_lock(folder, lock, recipe, sources)
        faults, lines = [*faults, *changed], [*lines, *told]
    elif sources is not None:
        faults.append(InputError("the run has no lock that knows sources", where=str(folder)))
    raise_all(faults)
    return lines + _parity_lines(folder, report)


def _held(artifact: ArtifactReport) -> str:
    count = len(artifact.companions)
    return f"hash, those of {count} companions" if count else "hash"


def _hash_faults(folder: Path, artifact: ArtifactReport) -> list[EdgekdError]:
    """A fault for the file itself and for each companion that is gone or was changed."""
    beside = artifact.path.rpartition("/")[0]
    then = {artifact.path: artifact.sha256} | {
        f"{beside}/{name}": key for name, key in artifact.companions.items()
    }
    return changes("file", then, hashes_of(folder, then), folder / JSON_NAME)


def _lineage_faults(folder: Path, report: Report, artifact: ArtifactReport) -> list[EdgekdError]:
    """A line of lineage that no stage of the report has; what followers add comes last."""
    made, _ = _kept(folder, artifact)  # a backend that follows another adds a line of its own
    known = {*(stage.line for stage in report.stages), *(made.lineage if made else ())}
    strange = [line for line in artifact.lineage if line not in known]
    if strange:
        return [InputError(f"no stage of the report did '{strange[0]}'", where=artifact.path)]
    return []


def _parity_lines(folder: Path, report: Report) -> list[str]:
    """Run what this machine can run once more; raises every file that strays."""
    table = load_recipe(folder / "recipe.toml").data
    if table.source == "given":
        return ["parity not checked: recipe.toml can't name data that was an object in Python"]
    data = load_data(table, folder)
    inputs, lines = data.test.x.numpy(), list[str]()
    faults: list[EdgekdError] = []
    for target in report.targets:
        device, profile = _device_of(target)
        try:
            for told in target.artifacts:
                artifact, reference = _kept(folder, told)
                if (
                    artifact is None
                    or reference is None
                    or told.parity is None
                    or (device.can_run(artifact))
                ):
                    lines.append(f"{told.path}: parity not checked: it was not run here")
                    continue
                options = options_for(profile, artifact) if profile else {}
                outputs = device.infer(artifact, inputs, options)
                parity = told.parity
                scale = parity.scale
                found = compare(reference, outputs, scale, parity.tolerance, parity.reference)
                if found.verdict == "fail":
                    faults.append(ToolError(f"parity fails now: {found.reason}", where=told.path))
                lines.append(f"{told.path}: parity holds over {found.samples:,} samples")
        finally:
            device.close()
    raise_all(faults)
    return lines


def _device_of(report: TargetReport) -> tuple[Device, Target | None]:
    """This machine, or the emulated Cortex-M that generated C runs on; the target's profile where
    its name is known."""
    try:
        target = load_target(report.name)
    except EdgekdError:  # it was given by its path
        return open_device("host"), None
    holds_c = any(artifact.runtime == "c" for artifact in report.artifacts)
    board = cortex_m(target) if holds_c else None
    return board or open_device("host"), target


def _kept(folder: Path, told: ArtifactReport) -> tuple[Artifact | None, np.ndarray | None]:
    """What the compiler said of a file, and the outputs of the reference that it was held to."""
    references = sorted((folder / "stages").glob(f"proof-*/{told.sha256}.npy"))
    for listed in sorted((folder / "stages").glob("compile-*/artifacts.json")):
        for table in json.loads(listed.read_text(encoding="utf-8")):
            if table["sha256"] == told.sha256:
                artifact = Artifact.model_validate(table)
                artifact = artifact.model_copy(update={"path": folder / told.path})
                kept = np.load(references[-1], allow_pickle=False) if references else None
                return artifact, kept
    return None, None
