"""What a backend is: it says what will be mapped where, and compiles a candidate into files.

A `Backend` starts from the candidate. A `Follower` starts from another backend's artifact: the
Edge TPU's compiler takes the int8 TFLite file, TensorRT takes the ONNX file. The pipeline compiles
with `BACKENDS.get(follower.follows)` first and hands its artifacts over one by one.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from edgekd.errors import EdgekdError, MissingPackage
from edgekd.installed import has_module
from edgekd.values.artifact import Artifact, OpPlacement
from edgekd.values.candidate import Candidate
from edgekd.values.target import Target


def not_installed(where: str, *needed: tuple[str, str, str]) -> list[EdgekdError]:
    """A fault for each module that is not here, told as (module, its package, edgekd's extra)."""
    return [
        MissingPackage(package, extra, where=where)
        for module, package, extra in needed
        if not has_module(module)
    ]


class Backend(Protocol):
    """One module a backend; it registers a class without arguments.

    Heavy libraries are imported inside the methods. `options` is the target's own table for this
    backend (`[backends.onnx]`), already typed by the target's schema as plain TOML values. A
    backend that can't take every form of candidate says so in `forms`; it then gets the last
    candidate that it can take.
    """

    def missing(self) -> list[EdgekdError]:
        """A `MissingPackage` for each library or tool that is not here."""

    def check(
        self, candidate: Candidate, target: Target, options: dict[str, Any]
    ) -> Sequence[OpPlacement]:
        """Where each operator will run. Raises `InputError` naming what the target can't run."""

    def compile(
        self, candidate: Candidate, target: Target, options: dict[str, Any], folder: Path
    ) -> list[Artifact]:
        """The files, written beside and renamed into `folder`, which exists. `int8` candidates give
        int8 files, `fp16` ones fp16 files, float ones fp32 files."""


Execute = Callable[[Sequence[str], float], tuple[int, str, str]]
"""Called as execute(argv, time_limit_seconds); returns the exit status, stdout and stderr.
A command that is not there has the exit status 127, one that ran past its limit 124."""


def _copy(source: str, to: Path) -> None:
    if Path(source) != to:
        shutil.copyfile(source, to)


@dataclass(frozen=True)
class Board:
    """A device on which a follower builds: it runs a command there and moves files.

    `send` puts a file on the board and returns its path there; `fetch` brings one back. The
    defaults are those of a board that shares this machine's file system, such as the host itself.
    """

    execute: Execute
    send: Callable[[Path], str] = str
    fetch: Callable[[str, Path], None] = _copy


@runtime_checkable
class Follower(Protocol):
    """A backend that turns an artifact of the backend named in `follows` into its own. Commands of
    this machine that it would use are named in `tools`, if any: with others it is asked again."""

    follows: str

    def missing(self) -> list[EdgekdError]:
        """A fault for each library or tool without which not even the check can be done. A vendor's
        compiler that is absent is none: the static check still says what would be mapped."""

    def check_artifact(
        self, artifact: Artifact, target: Target, options: dict[str, Any]
    ) -> tuple[tuple[OpPlacement, ...], dict[str, float | str]]:
        """Where each operator of that file will run, and facts; the fact `kind` says how they are
        known: `estimated` from the file alone, `measured` from the vendor's own log. Raises
        `InputError` if the accelerator refuses such a file altogether."""

    def follow(
        self,
        artifact: Artifact,
        target: Target,
        options: dict[str, Any],
        folder: Path,
        board: Board | None = None,
    ) -> list[Artifact]:
        """The files made from that one in `folder`, which exists: none where the vendor's compiler
        is neither here nor on the board. Raises `ToolError` if the compiler fails."""
