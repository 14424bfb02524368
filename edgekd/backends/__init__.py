"""What a backend is: it says what will be mapped where, and compiles a candidate into files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from edgekd.artifact import Artifact, OpPlacement
from edgekd.candidate import Candidate
from edgekd.errors import EdgekdError
from edgekd.target import Target


class Backend(Protocol):
    """One module a backend; it registers a class without arguments.

    Heavy libraries are imported inside the methods. `options` is the target's own table for this
    backend (`[backends.onnx]`), already typed by the target's schema as plain TOML values.
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
