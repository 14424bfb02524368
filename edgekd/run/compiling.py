"""Compiles the stages' result with every backend of a target and caches each file by content. A
backend that fails does not stop the others: its error goes into the report.
"""

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgekd.backends import Backend, Board, Follower
from edgekd.devices.opening import open_device
from edgekd.errors import EdgekdError, ToolError, caught, raise_all
from edgekd.installed import tools_here
from edgekd.run.boxes import with_boxes
from edgekd.run.compiled import Compiled, cached
from edgekd.run.pipeline import Staged
from edgekd.run.plan.planned import Plan, PlannedTarget
from edgekd.run.precisions import candidates_for, failed, named, taken_by
from edgekd.stages import Progress
from edgekd.store import key_of
from edgekd.values.artifact import Artifact
from edgekd.values.candidate import Candidate
from edgekd.values.recipe import licence_text, recipe_hash
from edgekd.values.target import Target


@dataclass
class CompiledFiles:
    """The files that a target's backends built, and the errors of the backends that failed."""

    files: list[Compiled] = field(default_factory=list)
    failures: dict[str, EdgekdError] = field(default_factory=dict)


def compile_candidate(
    plan: Plan, planned: PlannedTarget, staged: Staged, progress: Progress
) -> CompiledFiles:
    """The files of every backend, each built from the last candidate that it accepts. Raises the
    backends' errors if none of them built a file.
    """
    made = CompiledFiles(failures=dict(planned.unusable))
    name = planned.target.name
    for number, (backend_name, backend) in enumerate(planned.backends.items()):
        progress(f"compile for {name} with {backend_name}", number, len(planned.backends))
        try:
            if isinstance(backend, Follower):
                _refuse_orphan(backend, made.failures)
                made.files = follow_files(plan, planned.target, backend_name, backend, made.files)
            else:
                _compile_staged(plan, planned.target, backend_name, backend, staged, made)
        except Exception as error:
            where, what = f"backends.{backend_name}", f"the backend '{backend_name}'"
            made.failures[backend_name] = caught(error, where, what)
    progress(f"compile for {name}", 1, 1)
    if not made.files:
        raise_all(list(made.failures.values()))
    return made


def _refuse_orphan(backend: Follower, failures: Mapping[str, EdgekdError]) -> None:
    follows = backend.info.follows
    if follows in failures:
        raise ToolError(f"it starts from the files of '{follows}', which could not be built")


def _compile_staged(
    plan: Plan,
    target: Target,
    name: str,
    backend: Backend,
    staged: Staged,
    made: CompiledFiles,
) -> None:
    """Add one backend's files: of the last candidate or, if it doesn't accept that one, of the last
    candidate with float weights; or one for each precision that is compared. Raises the error of
    the last precision if none of them gave a file."""
    forms = backend.forms(target.backends.get(name, {}))
    several = candidates_for(staged.candidate, staged.floating, forms)
    errors: dict[str, EdgekdError] = {}
    for precision, candidate in several.items():
        is_last = candidate.form == staged.candidate.form
        accuracy = staged.reports[-1].accuracy if is_last and staged.reports else None
        key = staged.key if is_last else key_of(staged.floating_key, candidate.form)
        whole = replace(candidate, metadata=metadata_of(plan, accuracy))
        known = made.failures.get(failed(name, precision))  # by the plan's rehearsal
        try:
            if known is not None:
                raise known
            files = compiled(plan, target, name, backend, whole, key, precision)
            made.files += with_boxes(plan, name, backend, files)
        except Exception as error:
            errors[precision] = caught(error, f"backends.{name}", f"the backend '{name}'")
    if len(errors) == len(several):
        raise list(errors.values())[-1]
    made.failures |= {failed(name, precision): error for precision, error in errors.items()}


def metadata_of(plan: Plan, accuracy: float | None) -> dict[str, Any]:
    """The metadata that the deployed file carries about the model; `accuracy` (0 to 1) is the
    candidate's, on the test set. Unknown fields are left out."""
    recipe = plan.request.recipe
    known = {
        "name": recipe.metadata.name,
        "version": recipe.metadata.version,
        "licence": licence_text(recipe),
        "labels": list(recipe.metadata.labels),
        "preprocess": recipe.data.preprocess.facts,
        "recipe_hash": recipe_hash(recipe),
        "accuracy_percent": None if accuracy is None else round(100 * accuracy, 4),
    }
    return {name: value for name, value in known.items() if value not in ("", [], {}, None)}


def compiled(
    plan: Plan,
    target: Target,
    name: str,
    backend: Backend,
    candidate: Candidate,
    key: str,
    precision: str = "",
) -> list[Compiled]:
    """The files that one backend builds from a candidate, called after their precision if there is
    one."""

    def make(folder: Path) -> list[Artifact]:
        artifacts = backend.compile(candidate, target, target.backends[name], folder)
        return named(artifacts, precision)

    facts = [target.model_dump(mode="json"), dict(candidate.metadata)]
    artifacts = cached(plan.store, name, key_of(key, name, *facts, precision), make)
    return [Compiled(artifact, candidate, is_compared=bool(precision)) for artifact in artifacts]


def follow_files(
    plan: Plan, target: Target, name: str, backend: Follower, made: list[Compiled]
) -> list[Compiled]:
    """The files and what a follower compiles from them. A file that could not be compiled here
    gets the result of the follower's static check instead."""
    options: dict[str, Any] = target.backends.get(name, {})
    tools = tools_here(tool.command for tool in backend.info.needs.tools)
    taken = taken_by(backend.info, [file.artifact for file in made])
    result: list[Compiled] = []
    with _board(plan.request.device) as (board, has):
        for file in made:
            artifact = file.artifact
            if artifact not in taken:
                result.append(file)
                continue
            facts = target.model_dump(mode="json")
            key = key_of(artifact.sha256, name, facts, tools, has)
            make = functools.partial(backend.follow, artifact, target, options, board=board)
            artifacts = cached(plan.store, name, key, make)
            if not artifacts:
                file = _checked(file, name, *backend.check_artifact(artifact, target, options))
            result.append(file)
            result += [
                Compiled(each, file.reference, is_compared=file.is_compared, source=artifact)
                for each in artifacts
            ]
    return result


@contextmanager
def _board(url: str | None) -> Iterator[tuple[Board | None, dict[str, str]]]:
    """The board that the user named, where followers build, and what is installed there; None
    for an emulated board."""
    device = open_device(url) if url else None
    try:
        if device is None or device.kind != "measured":
            yield None, {}
        else:
            has = {"device": device.name, **device.hello().runtimes}
            yield Board(device.execute, device.send, device.fetch), has
    finally:
        if device is not None:
            device.close()


def _plain(facts: dict[str, Any]) -> dict[str, float | str]:
    return {name: each if isinstance(each, str) else float(each) for name, each in facts.items()}


def _checked(each: Compiled, name: str, placements: Any, facts: dict[str, Any]) -> Compiled:
    kind = facts.get("kind", "estimated")
    note = f"{name}: the compiler is not installed; operator placement is {kind} from the file"
    artifact = each.artifact.model_copy(
        update={
            "placements": placements,
            "facts": {**each.artifact.facts, **_plain(facts)},
            "notes": (*each.artifact.notes, note),
        }
    )
    return replace(each, artifact=artifact)
