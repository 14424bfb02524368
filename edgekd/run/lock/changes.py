"""What is no longer as a run's report or lock says, by hashes."""

from collections.abc import Iterable
from pathlib import Path

from edgekd.errors import EdgekdError, InputError
from edgekd.values.artifact import sha256_of


def hashes_of(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of those of these files that are in the folder; what leads out of it is not read."""
    root = folder.resolve()
    paths = {name: (folder / name).resolve() for name in names}
    return {
        name: sha256_of(path)
        for name, path in paths.items()
        if path.is_relative_to(root) and path.is_file()
    }


def changes(
    kind: str, then: dict[str, str], now: dict[str, str], told: Path, gone: str = ""
) -> list[EdgekdError]:
    """A fault for each that has another hash than in the document `told`, or none any more, with
    the hint `gone`."""
    faults: list[EdgekdError] = []
    for name in sorted(then):
        if name not in now:
            faults.append(InputError(f"the {kind} '{name}' is gone", where=str(told), hint=gone))
        elif now[name] != then[name]:
            faults.append(
                InputError(
                    f"the {kind} '{name}' has the hash {now[name][:16]}..., not "
                    f"{then[name][:16]}... as told here",
                    where=str(told),
                    hint="it was changed after the run; compress again",
                )
            )
    return faults
