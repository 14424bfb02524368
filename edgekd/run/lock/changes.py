"""Finds, by hash, the files that have changed since a run's report or lock was written."""

from collections.abc import Iterable
from pathlib import Path

from edgekd.errors import EdgekdError, InputError
from edgekd.values.artifact import sha256_of


def hashes_of(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The SHA-256 of each named file inside the folder; paths that lead out of it are not read."""
    root = folder.resolve()
    paths = {name: (folder / name).resolve() for name in names}
    return {
        name: sha256_of(path)
        for name, path in paths.items()
        if path.is_relative_to(root) and path.is_file()
    }


def changes(
    kind: str, then: dict[str, str], now: dict[str, str], document: Path, gone: str = ""
) -> list[EdgekdError]:
    """A fault for each file that is missing, with the hint `gone`, or whose hash differs from
    the one that `document` records."""
    faults: list[EdgekdError] = []
    for name in sorted(then):
        if name not in now:
            faults.append(
                InputError(f"the {kind} '{name}' is gone", where=str(document), hint=gone)
            )
        elif now[name] != then[name]:
            faults.append(
                InputError(
                    f"the {kind} '{name}' has the hash {now[name][:16]}..., not "
                    f"{then[name][:16]}... as recorded here",
                    where=str(document),
                    hint="it changed after the run; run edgekd compress again",
                )
            )
    return faults
