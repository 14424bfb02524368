"""Where a recipe's networks come from: one file a source, registered under its name.

A recipe names a source and what to take from it in one string, `source = "timm:resnet18"`; the keys
`factory` and `program` are short for two of them. Third parties add sources through entry points
of the group `edgekd.sources`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from edgekd.errors import InputError, MissingPackage
from edgekd.installed import has_module
from edgekd.registry import SOURCES
from edgekd.values.recipe import Network


@dataclass(frozen=True)
class ModelRequest:
    """What a recipe asks of a source.

    `name` is what follows the source's own name; paths in it are relative to `folder`. `where` is
    the key of the network in the recipe, for errors.
    """

    name: str
    arguments: Mapping[str, Any]
    folder: Path
    where: str

    @property
    def path(self) -> Path:
        """The name as a path."""
        return self.folder / self.name


class Source:
    """Makes networks. `packages` are the modules it needs, each with its name for pip; their
    versions are part of a network's key. `extra` is the extra of edgekd that installs them, and
    `example` a table that uses the source."""

    packages: ClassVar[Mapping[str, str]] = {}
    extra: ClassVar[str] = ""
    example: ClassVar[Mapping[str, Any]] = {}

    def load(self, request: ModelRequest) -> nn.Module:
        """The float module, with the weights that the source itself gives it. Raises `InputError`
        for whatever is wrong with the request."""
        raise NotImplementedError

    def files(self, request: ModelRequest) -> Iterable[Path]:
        """The files whose content determines the network, besides its weights."""
        return ()

    def content(self, request: ModelRequest) -> Iterable[str]:
        """What else determines the network, besides its name, arguments, files and packages."""
        return ()


def source_of(network: Network, where: str) -> Source:
    """The source of a recipe's network. Raises `InputError` for an unknown one, and
    `MissingPackage` for one whose packages are not installed."""
    source: Source = SOURCES.get(network.kind, f"{where}.source").make()
    for module, package in source.packages.items():
        if not has_module(module):
            raise MissingPackage(package, source.extra, where=where)
    return source


def request_of(network: Network, folder: Path, where: str) -> ModelRequest:
    """What a recipe's network asks of its source."""
    return ModelRequest(network.name, network.arguments, folder, where)


def refuse_arguments(request: ModelRequest, what: str) -> None:
    """Raise `InputError` if a source that takes no arguments is given some."""
    if request.arguments:
        raise InputError(f"{what} takes no arguments", where=f"{request.where}.arguments")
