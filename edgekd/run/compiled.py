"""Compiled files, cached by content: built once, verified by hash, placed in the output folder."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgekd.installed import tool_versions
from edgekd.store import Store, code_key, file_beside, key_of
from edgekd.values.artifact import Artifact, sha256_of
from edgekd.values.candidate import Candidate


@dataclass(frozen=True)
class Compiled:
    """A file and the candidate whose outputs it must reproduce, if any. The baseline is the
    uncompressed teacher. `original` is the file that this one was made of, without a candidate.
    `is_compared` is set if it is one of several precisions of which one is chosen. `source` is the
    file of another backend that a follower made this one of."""

    artifact: Artifact
    reference: Candidate | None
    is_baseline: bool = False
    is_compared: bool = False
    original: Artifact | None = None
    source: Artifact | None = None


def cached(
    store: Store, name: str, key: str, make: Callable[[Path], list[Artifact]]
) -> list[Artifact]:
    """Artifacts from the store, their files verified by hash, or else built and published. `key`
    describes their inputs; the code and the packages that build them are added to it."""
    key = key_of(key, code_key(), tool_versions())
    stored = store.find(f"compile-{name}", key)
    if stored:
        artifacts = [_moved(artifact, stored) for artifact in _read_artifacts(stored)]
        if all(_intact(artifact) for artifact in artifacts):
            return artifacts

    def write(folder: Path) -> None:
        made = [_moved(artifact, Path()) for artifact in make(folder)]
        tables = [artifact.model_dump(mode="json") for artifact in made]
        (folder / "artifacts.json").write_text(json.dumps(tables, indent=1) + "\n")

    folder = store.publish(f"compile-{name}", key, write)
    return [_moved(artifact, folder) for artifact in _read_artifacts(folder)]


def _read_artifacts(folder: Path) -> list[Artifact]:
    tables = json.loads((folder / "artifacts.json").read_text())
    return [Artifact.model_validate(table) for table in tables]


def _moved(artifact: Artifact, folder: Path) -> Artifact:
    return artifact.model_copy(update={"path": folder / artifact.path.name})


def _intact(artifact: Artifact) -> bool:
    hashes = {artifact.path: artifact.sha256} | {
        artifact.path.parent / name: told for name, told in artifact.companions.items()
    }
    return all(path.is_file() and sha256_of(path) == told for path, told in hashes.items())


def publish_artifact(artifact: Artifact, folder: Path, name: str = "") -> Artifact:
    """Place a stored file in the output folder, under another name if one is given; its
    companions keep their names."""
    final = folder / (name or artifact.path.name)
    _copied(artifact.path, final)
    for companion in artifact.companions:
        _copied(artifact.path.parent / companion, folder / companion)
    return artifact.model_copy(update={"path": final})


def _copied(path: Path, final: Path) -> None:
    with file_beside(final) as beside:
        shutil.copy(path, beside)  # with its mode: a companion may be a script
