"""What a backend is: it describes itself, says what will run where, and compiles files.

A `Backend` starts from the candidate. A `Follower` starts from another backend's files: the Edge
TPU's compiler takes the int8 TFLite file, TensorRT takes the ONNX file. The pipeline compiles with
the backend that the follower's `info.follows` names first, and hands its files over one by one.

A new backend is one module: a class below one of these two, with its description in `info`,
registered by `@BACKENDS.register()` or by an entry point of the group `edgekd.backends`. Its module
imports heavy libraries inside its methods, because targets, plans, bench and doctor read `info`.
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from edgekd.errors import EdgekdError, InputError, MissingPackage
from edgekd.installed import has_module
from edgekd.values.artifact import Artifact, OpPlacement
from edgekd.values.backend import BackendInfo
from edgekd.values.box_search import BoxSearch
from edgekd.values.inspection import Forecast, Inspection
from edgekd.values.target import Target

if TYPE_CHECKING:
    import numpy as np

    from edgekd.formats.graph import Graph
    from edgekd.values.candidate import Candidate
    from edgekd.values.inner_tensor import InnerTensor
    from edgekd.values.tree import Tree

Placements = tuple[OpPlacement, ...]
Facts = dict[str, float | str]

Execute = Callable[[Sequence[str], float], tuple[int, str, str]]
"""Called as execute(argv, time_limit_seconds); returns the exit status, stdout and stderr.
A command that is not there has the exit status 127, one that ran past its limit 124."""


class Described(ABC):
    """What every backend has: its description, and what it can tell about its files."""

    info: ClassVar[BackendInfo]

    def missing(self) -> list[EdgekdError]:
        """A `MissingPackage` for each required package that is not installed. A vendor's compiler
        that is absent is not a fault: the static check still predicts what would be mapped."""
        return [
            MissingPackage(package.name, package.extra, where=self.info.title)
            for package in self.info.needs.packages
            if package.required and not has_module(package.module)
        ]

    def inner_tensors(self, path: Path, inputs: Sequence[np.ndarray]) -> list[InnerTensor] | None:
        """Every quantized tensor that one of its files computes for these inputs (1, ...), in the
        order of execution; None where its runtime does not show them."""
        return None

    def inspect(self, path: Path, target: Target | None) -> Inspection:
        """What one of its files says about itself, for files that `edgekd.formats` can't read.

        Raises `InputError` for a file that can't be read.
        """
        raise InputError(
            f"{self.info.title} can't describe the contents of '{path.suffix}' files",
            where=str(path),
        )


class Backend(Described):
    """A backend that starts from the candidate. `options` is the target's own table for it
    (`[backends.onnx]`), already checked against `info.options` as plain TOML values. It gets the
    last candidate whose form is in `forms`."""

    def forms(self, options: dict[str, Any]) -> frozenset[str]:
        """The forms of candidate that it compiles with these options."""
        return self.info.forms

    @abstractmethod
    def check(
        self, candidate: Candidate, target: Target, options: dict[str, Any]
    ) -> Sequence[OpPlacement]:
        """Where each operator will run. Raises `InputError` naming what the target can't run."""

    def prepare(self) -> None:
        """Start in the background what `compile` will need, if that takes long. Optional."""

    def rehearsal_options(self, options: dict[str, Any]) -> dict[str, Any]:
        """The options for the plan's trial compilation, without what only makes files faster."""
        return options

    @abstractmethod
    def compile(
        self, candidate: Candidate, target: Target, options: dict[str, Any], folder: Path
    ) -> list[Artifact]:
        """The files, written beside and renamed into `folder`, which exists. `int8` candidates give
        int8 files, `fp16` ones fp16 files, float ones fp32 files. Raises `ToolError` if a compiler
        fails."""

    def find_boxes(
        self, artifact: Artifact, outputs: Tree, search: BoxSearch, classes: int, path: Path
    ) -> Artifact:
        """One of its files with a search for boxes of so many classes behind it, written to `path`,
        where `info.finds_boxes`: its output (B, most, 6) is class, x, y, width, height and score,
        the surest first, class -1 for none. `outputs` is what the network gives for one sample."""
        raise NotImplementedError


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


class Follower(Described):
    """A backend that turns a file of the backend named in `info.follows` into its own. When a
    command of `info.needs.tools` changes, it is asked again."""

    @abstractmethod
    def check_artifact(
        self, artifact: Artifact, target: Target, options: dict[str, Any]
    ) -> tuple[Placements, Facts]:
        """Where each operator of that file will run, and facts; the fact `kind` says how they are
        known: `estimated` from the file alone, `measured` from the vendor's own log. Raises
        `InputError` if the accelerator refuses such a file altogether."""

    @abstractmethod
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

    def forecast(self, path: Path, graph: Graph, target: Target) -> Forecast:
        """What it would make of a file that `edgekd inspect` has read; by default nothing is
        known."""
        return Forecast()
