"""`edgekd.lock`: hashes of a run's inputs and outputs, and its tool versions. The same inputs,
tools and seed give the same bytes: the file contains no time, path or address.
"""

import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field

from edgekd.errors import EdgekdError, InputError
from edgekd.installed import versions_of
from edgekd.network.load import content_hash
from edgekd.report.values import ArtifactReport, Report
from edgekd.run.lock.inputs import recipe_inputs, recipe_key
from edgekd.run.plan import Plan
from edgekd.store import code_key, key_of, read_errors, write_beside
from edgekd.values.artifact import sha256_of
from edgekd.values.recipe import Recipe
from edgekd.values.tables import Value, parse
from edgekd.values.target import Target, load_target

NAME = "edgekd.lock"
TOOLS = ("safetensors", "scikit-learn", "litert-converter")


class Lock(Value):
    """What `edgekd.lock` holds. Hashes are SHA-256, keys of tables 24 digits of one; `inputs` are
    named as the recipe names them, `outputs` by their path in the run's folder, companions among
    them, and `sources` (of `edgekd firmware build`) by name: they may lie anywhere."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    schema_version: Literal[1] = Field(default=1, alias="schema")
    recipe: str
    seed: int
    data: str
    targets: dict[str, str]
    inputs: dict[str, str]
    code: str
    tools: dict[str, str]
    machine: str
    outputs: dict[str, str]
    sources: dict[str, str] = {}


def lock_of(plan: Plan, report: Report) -> Lock:
    """The lock of a run that has just finished; outputs are hashed from disk."""
    request = plan.request
    artifacts = [one for target in report.targets for one in target.artifacts]
    baselines = [target.baseline for target in report.targets if target.baseline]
    return Lock(
        recipe=recipe_key(request.resolved),
        seed=request.recipe.seed,
        data=plan.data.sha256,
        targets={target.name: target_key(_whole(target)) for target in request.targets},
        inputs=_hashes(request.recipe),
        code=code_key(),
        tools=tools(report, [one.versions for one in artifacts]),
        machine=platform.machine(),
        outputs={
            path: sha256_of(request.out / path)
            for one in (*baselines, *artifacts)
            for path in paths_of(one)
        },
    )


def paths_of(artifact: ArtifactReport) -> list[str]:
    """An artifact's file and its companions', relative to the run's folder."""
    folder = artifact.path.rpartition("/")[0]
    return [artifact.path, *(f"{folder}/{name}" for name in artifact.companions)]


def _hashes(recipe: Recipe) -> dict[str, str]:
    return {name: content_hash(path) for name, path in recipe_inputs(recipe).items()}


def _whole(target: Target) -> Target:
    """The profile as loaded by name; a build may have removed backends from the target."""
    try:
        return load_target(target.name)
    except EdgekdError:  # given by its path
        return target


def target_key(target: Target) -> str:
    """A hash of a target profile's whole content."""
    return key_of(target.model_dump(mode="json"))


def tools(report: Report, made_with: list[dict[str, str]]) -> dict[str, str]:
    """The versions of every tool that the run used."""
    installed = {"python": ".".join(map(str, sys.version_info[:3])), **report.versions}
    for versions in made_with:
        installed.update(versions)
    installed.update(versions_of(TOOLS))
    return dict(sorted(installed.items()))


def write_lock(plan: Plan, report: Report) -> Path:
    """Write the lock into the run's folder, as the run's last file, and return its path."""
    return _write(plan.request.out, lock_of(plan, report))


def _write(folder: Path, lock: Lock) -> Path:
    table = lock.model_dump(mode="json", by_alias=True)
    write_beside(folder / NAME, json.dumps(table, indent=1, sort_keys=True) + "\n")
    return folder / NAME


def lock_sources(folder: Path, paths: Sequence[Path]) -> None:
    """Add the hashes of generated sources to the lock of the run that they come from."""
    lock = read_lock(folder)
    if lock is None:
        raise InputError("the run has no lock", where=str(folder), hint="edgekd compress")
    _write(folder, lock.model_copy(update={"sources": {p.name: sha256_of(p) for p in paths}}))


def read_lock(folder: Path) -> Lock | None:
    """The lock of a run, None if it has none. Raises `InputError` for anything else."""
    path = folder / NAME
    if not path.exists():
        return None
    try:
        with read_errors(path):
            table: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"not a readable lock: {error}", where=str(path)) from None
    if not isinstance(table, dict):
        raise InputError("not an edgekd lock file", where=str(path))
    return parse(Lock, table, str(path))
