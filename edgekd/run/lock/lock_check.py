"""`edgekd verify` against the lock: what was changed since, is gone, or has come."""

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

MOVED = "recipe.toml names inputs from where the run was made: verify it there, or move them along"


def check_lock(
    folder: Path, lock: Lock, recipe: Recipe, sources: Path | None = None
) -> tuple[list[EdgekdError], list[str]]:
    """What no longer is as the lock says, and a line for each thing that is. `sources` is the
    folder of what `edgekd firmware build` wrote; without it they are not looked at.

    Outputs, inputs, targets and sources that differ are faults, and so are files among the
    artifacts that the lock does not name: what is packed by a pattern would take them along. Other
    tools are told and are no faults, since the files are what they were.
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
    lines = [f"{NAME}: {name} is not found from here and not checked" for name in elsewhere]
    if lock.sources and sources is None:
        lines.append(f"{NAME}: {len(lock.sources)} sources not checked: name their --sources DIR")
    if not faults:
        lines.append(
            f"{NAME}: {len(lock.outputs)} outputs, {len(inputs)} inputs and "
            f"{len(targets)} targets hold"
        )
        if sources is not None:
            lines.append(f"{NAME}: {len(lock.sources)} sources hold")
    here = {"python": ".".join(map(str, sys.version_info[:3])), **versions_of(lock.tools)}
    lines += [
        f"{NAME}: {name} was {then}, here it is {here.get(name, 'missing')}"
        for name, then in lock.tools.items()
        if here.get(name) != then
    ]
    return faults, lines


def _unknown(folder: Path, lock: Lock) -> list[EdgekdError]:
    """Files in the artifacts' folders that no line of the lock names."""
    tops = sorted({name.partition("/")[0] for name in lock.outputs if "/" in name} - {"", ".."})
    found = (path for top in tops for path in sorted((folder / top).rglob("*")))
    extra = [path for path in found if path.is_symlink() or not path.is_dir()]
    return [
        InputError(
            f"the lock does not know '{name}'",
            where=str(folder / NAME),
            hint="it is not of this run: remove it, or compress into a folder of its own",
        )
        for name in (path.relative_to(folder).as_posix() for path in extra)
        if name not in lock.outputs
    ]


def _source_faults(sources: Path, lock: Lock, path: Path) -> list[EdgekdError]:
    if not lock.sources:
        return [
            InputError(
                "the lock names no sources",
                where=str(path),
                hint="edgekd firmware build writes them",
            )
        ]
    plain = [name for name in lock.sources if name == Path(name).name]
    return changes("source", lock.sources, hashes_of(sources, plain), path)


def _targets(lock: Lock) -> dict[str, str]:
    found = {}
    for name in lock.targets:
        try:
            found[name] = target_key(load_target(name))
        except EdgekdError:
            continue
    return found
