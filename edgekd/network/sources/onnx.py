"""ONNX files."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from edgekd.formats.onnx_file import external_files
from edgekd.network.onnx_module.convert import module_of_onnx
from edgekd.network.sources import ModelRequest, Source, refuse_arguments
from edgekd.registry import SOURCES


@SOURCES.register()
class OnnxFile(Source):
    """An ONNX file, converted operator by operator to a PyTorch network that can be trained."""

    packages: ClassVar[Mapping[str, str]] = {"onnx": "onnx"}
    extra: ClassVar[str] = "onnx"
    example: ClassVar[Mapping[str, Any]] = {"source": "onnx:model.onnx"}

    def load(self, request: ModelRequest) -> nn.Module:
        refuse_arguments(request, "an ONNX file")
        return module_of_onnx(request.path)

    def files(self, request: ModelRequest) -> Iterable[Path]:
        return (request.path, *external_files(request.path))
