"""`edgekd verify` against the lock: files that were changed, removed or added since the run."""

import sys
from pathlib import Path

from edgekd.errors import EdgekdError, InputError
from edgekd.installed import versions_of
from edgekd.network.load import content_hash
from edgekd.run.lock.changes import changes, hashes_of
from edgekd.run.lock.inputs import SOURCE, recipe_inputs, recipe_key
from edgekd.run.lock.lockfile import NAME, Lock, target_key
from edgekd.values.recipe import Recipe
from edgekd.values.target import load_target

MOVED = "recipe.toml names inputs where the run was made: verify it there, or move them too"


def check_lock(
    folder: Path, lock: Lock, recipe: Recipe, sources: Path | None = None
) -> tuple[list[EdgekdError], list[str]]:
    """The differences from the lock as faults, and a line for each thing that was verified.
    `sources` is the folder that `edgekd firmware build` wrote; without it, sources are not checked.

    Outputs, inputs, targets and sources that differ are faults. So are files among the artifacts
    that the lock doesn't list, because packaging by a file pattern would include them. Different
    tool versions are reported but are not faults, since the files themselves are unchanged.
    """
    path = folder / NAME
    faults: list[EdgekdError] = []
    faults += changes("output", lock.outputs, hashes_of(folder, lock.outputs), path)
    faults += _unknown(folder, lock)
    named, known = recipe_inputs(recipe), _targets(lock)
    present = {name: content_hash(place) for name, place in named.items() if place.exists()}
    if len(present) == len(named):
        now = {"recipe.toml": recipe_key(recipe)}
        faults += changes("recipe", {"recipe.toml": lock.recipe}, now, path)
    elsewhere = [name for name in lock.inputs if name.startswith(SOURCE) and name not in present]
    elsewhere += [name for name in lock.targets if name not in known]
    inputs = {name: key for name, key in lock.inputs.items() if name not in elsewhere}
    targets = {name: key for name, key in lock.targets.items() if name not in elsewhere}
    faults += changes("input", inputs, present, path, MOVED)
    faults += changes("target", targets, known, path)
    if sources is not None:
        faults += _source_faults(sources, lock, path)
    lines = [f"{NAME}: {name} not checked: it was not found here" for name in elsewhere]
    if lock.sources and sources is None:
        lines.append(
            f"{NAME}: {len(lock.sources)} sources not checked: name their folder with --sources DIR"
        )
    if not faults:
        lines.append(
            f"{NAME}: outputs ({len(lock.outputs)}), inputs ({len(inputs)}) and "
            f"targets ({len(targets)}) verified"
        )
        if sources is not None:
            lines.append(f"{NAME}: sources ({len(lock.sources)}) verified")
    here = {"python": ".".join(map(str, sys.version_info[:3])), **versions_of(lock.tools)}
    lines += [
        f"{NAME}: the run used {name} {then}; installed here: {here.get(name, 'none')}"
        for name, then in lock.tools.items()
        if here.get(name) != then
    ]
    return faults, lines


def _unknown(folder: Path, lock: Lock) -> list[EdgekdError]:
    """Files in the artifacts' folders that the lock doesn't list."""
    tops = sorted({name.partition("/")[0] for name in lock.outputs if "/" in name} - {"", ".."})
    paths = (path for top in tops for path in sorted((folder / top).rglob("*")))
    files = [path for path in paths if path.is_symlink() or not path.is_dir()]
    return [
        InputError(
            f"the lock doesn't list '{name}'",
            where=str(folder / NAME),
            hint="this run did not write it: remove it, or compress into another folder",
        )
        for name in (path.relative_to(folder).as_posix() for path in files)
        if name not in lock.outputs
    ]


def _source_faults(sources: Path, lock: Lock, path: Path) -> list[EdgekdError]:
    if not lock.sources:
        return [
            InputError(
                "the lock lists no sources",
                where=str(path),
                hint="edgekd firmware build writes them",
            )
        ]
    plain = [name for name in lock.sources if name == Path(name).name]
    return changes("source", lock.sources, hashes_of(sources, plain), path)


def _targets(lock: Lock) -> dict[str, str]:
    keys = {}
    for name in lock.targets:
        try:
            keys[name] = target_key(load_target(name))
        except EdgekdError:
            continue
    return keys
