"""The user's own callable."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from torch import nn

from edgekd.errors import InputError
from edgekd.factories import call, find_callable
from edgekd.network.identity import source_files
from edgekd.network.sources import ModelRequest, Source
from edgekd.registry import SOURCES
from edgekd.values.artifact import sha256_of


@SOURCES.register()
class Factory(Source):
    """A callable `package.module:callable` that returns an `nn.Module`.

    Its module may be beside the recipe, in the working directory or installed.
    """

    example: ClassVar[Mapping[str, Any]] = {"factory": "mypackage.models:resnet50"}

    def load(self, request: ModelRequest) -> nn.Module:
        where = f"{request.where}.factory"
        module = call(request.name, request.arguments, request.folder, where)
        if not isinstance(module, nn.Module):
            kind = type(module).__name__
            message = f"'{request.name}' returned {kind}"
            raise InputError(message, where=where, allowed="an nn.Module")
        return module

    def content(self, request: ModelRequest) -> Iterable[str]:
        """The factory's source, and that of every user module that it imports."""
        yield _source_text(request)
        module = request.name.partition(":")[0]
        for name, file in source_files([module], request.folder).items():
            yield f"{name} {sha256_of(file)}"


def _source_text(request: ModelRequest) -> str:
    module = inspect.getmodule(find_callable(request.name, request.folder, "factory"))
    try:
        return inspect.getsource(module) if module is not None else ""
    except (OSError, TypeError):
        return ""
