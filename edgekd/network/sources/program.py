"""Exported programs."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from edgekd.network.programs import load_program
from edgekd.network.sources import ModelRequest, Source, refuse_arguments
from edgekd.registry import SOURCES


@SOURCES.register()
class ExportedProgram(Source):
    """A `torch.export` program, a .pt2 file that is inspected before it is loaded."""

    example: ClassVar[Mapping[str, Any]] = {"program": "model.pt2"}

    def load(self, request: ModelRequest) -> nn.Module:
        refuse_arguments(request, "a program")
        return load_program(request.path)

    def files(self, request: ModelRequest) -> Iterable[Path]:
        return (request.path,)
