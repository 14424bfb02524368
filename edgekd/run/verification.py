"""`edgekd verify`: whether a finished run's files still match its report."""

# code-key: presents

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgekd.data import load_data
from edgekd.devices import Device
from edgekd.devices.opening import open_device
from edgekd.errors import EdgekdError, InputError, ToolError, raise_all
from edgekd.measure.inference import infer_samples
from edgekd.measure.parity import Parity, compare
from edgekd.report.files import JSON_NAME, load_report
from edgekd.report.values import ArtifactReport, Report, TargetReport
from edgekd.run.boxes import boxes_in, finds_boxes
from edgekd.run.lock.changes import changes, hashes_of
from edgekd.run.lock.lock_check import check_lock
from edgekd.run.lock.lockfile import read_lock
from edgekd.run.proof.place import cortex_m, options_for
from edgekd.values.artifact import Artifact
from edgekd.values.recipe import load_recipe
from edgekd.values.target import Target, load_target


def verify_run(folder: Path, sources: Path | None = None) -> list[str]:
    """Check hashes, lineage and parity of a run; returns a line for each check that passed.

    Every file and its companions are hashed again, its lineage must consist of the stages' own
    lines, and files that this machine can run are run over the test set again and compared with the
    stored reference outputs. `sources` is the folder that `edgekd firmware build` wrote. Raises all
    faults at once.
    """
    report = load_report(folder)
    faults: list[EdgekdError] = []
    lines: list[str] = []
    for target in report.targets:
        for artifact in [*([target.baseline] if target.baseline else []), *target.artifacts]:
            changed = _hash_faults(folder, artifact) or _lineage_faults(folder, report, artifact)
            faults += changed
            if not changed:
                lines.append(f"{artifact.path}: {_hashed(artifact)} and lineage verified")
    lock = read_lock(folder)
    if lock is not None:
        recipe = load_recipe(folder / "recipe.toml")
        lock_faults, lock_lines = check_lock(folder, lock, recipe, sources)
        faults, lines = [*faults, *lock_faults], [*lines, *lock_lines]
    elif sources is not None:
        faults.append(InputError("the run has no lock that lists sources", where=str(folder)))
    raise_all(faults)
    return lines + _parity_lines(folder, report)


def _hashed(artifact: ArtifactReport) -> str:
    count = len(artifact.companions)
    return f"hash, {count} companion {'hash' if count == 1 else 'hashes'}" if count else "hash"


def _hash_faults(folder: Path, artifact: ArtifactReport) -> list[EdgekdError]:
    """A fault for the file itself and for each companion that is missing or was changed."""
    beside = artifact.path.rpartition("/")[0]
    then = {artifact.path: artifact.sha256} | {
        f"{beside}/{name}": key for name, key in artifact.companions.items()
    }
    return changes("file", then, hashes_of(folder, then), folder / JSON_NAME)


def _lineage_faults(folder: Path, report: Report, artifact: ArtifactReport) -> list[EdgekdError]:
    """A fault if a line of the lineage belongs to no stage of the report."""
    made, _ = _kept(folder, artifact)  # a backend that follows another adds a line of its own
    known = {*(stage.line for stage in report.stages), *(made.lineage if made else ())}
    strange = [line for line in artifact.lineage if line not in known]
    if strange:
        return [
            InputError(
                f"its lineage has '{strange[0]}', which no stage of the report did",
                where=artifact.path,
            )
        ]
    return []


def _parity_lines(folder: Path, report: Report) -> list[str]:
    """Run every file that this machine can run again; raises the files that fail parity."""
    table = load_recipe(folder / "recipe.toml").data
    if table.source == "given":
        return [
            "parity not checked: the data was an object in Python, which recipe.toml can't name"
        ]
    # Test samples don't go through the transform, whose module may be elsewhere.
    data = load_data(table.model_copy(update={"transform": None}), folder)
    lines = list[str]()
    faults: list[EdgekdError] = []
    for target in report.targets:
        device, profile = _device_of(target)
        try:
            for listed in target.artifacts:
                artifact, reference = _kept(folder, listed)
                if (
                    artifact is None
                    or reference is None
                    or listed.parity is None
                    or (device.can_run(artifact))
                ):
                    lines.append(f"{listed.path}: parity not checked: it can't be run here")
                    continue
                options = options_for(profile, artifact) if profile else {}
                outputs = infer_samples(device, artifact, data.test, options)
                if finds_boxes(artifact):
                    outputs = (boxes_in(outputs),)
                faults += _parity_faults(listed.path, listed.parity, reference, outputs)
                count = listed.parity.samples
                lines.append(f"{listed.path}: parity verified over {count:,} samples")
        finally:
            device.close()
    raise_all(faults)
    return lines


def _parity_faults(
    path: str, parity: Parity, reference: Sequence[np.ndarray], outputs: Sequence[np.ndarray]
) -> list[EdgekdError]:
    """A fault for each output that differs from the stored one by more than the run accepted."""
    kept = list((parity.outputs or {"": parity}).items())
    if not len(kept) == len(reference) == len(outputs):
        message = f"the file has {len(outputs)} outputs, but the run compared {len(kept)}"
        return [ToolError(message, where=path)]
    faults: list[EdgekdError] = []
    for (name, then), expected, found in zip(kept, reference, outputs, strict=True):
        result = compare(expected, found, then.scale, _allowed(then), then.reference)
        if result.verdict == "fail":
            which = f" of output '{name}'" if name else ""
            faults.append(ToolError(f"parity{which} fails now: {result.reason}", where=path))
    return faults


def _allowed(parity: Parity) -> float:
    """The tolerance, or what the run found beyond it and accepted as rounding."""
    accepted = (parity.max_lsb or 0.0) if parity.verdict == "pass" else 0.0
    return max(parity.tolerance, accepted)


def _device_of(report: TargetReport) -> tuple[Device, Target | None]:
    """This machine, or the emulated Cortex-M that runs generated C, and the target's profile if
    its name is known."""
    try:
        target = load_target(report.name)
    except EdgekdError:  # it was given by its path
        return open_device("host"), None
    holds_c = any(artifact.runtime == "c" for artifact in report.artifacts)
    board = cortex_m(target) if holds_c else None
    return board or open_device("host"), target


def _kept(folder: Path, listed: ArtifactReport) -> tuple[Artifact | None, list[np.ndarray] | None]:
    """The stored artifact of a file, and the reference outputs that it was compared with."""
    references = sorted((folder / "stages").glob(f"proof-*/{listed.sha256}.npz"))
    for path in sorted((folder / "stages").glob("compile-*/artifacts.json")):
        for table in json.loads(path.read_text(encoding="utf-8")):
            if table["sha256"] == listed.sha256:
                artifact = Artifact.model_validate(table)
                artifact = artifact.model_copy(update={"path": folder / listed.path})
                return artifact, _arrays(references[-1]) if references else None
    return None, None


def _arrays(path: Path) -> list[np.ndarray]:
    with np.load(path, allow_pickle=False) as stored:
        return [stored[name] for name in stored.files]
