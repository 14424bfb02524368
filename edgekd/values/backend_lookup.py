"""Looks up the descriptions of backends: by name, by format or by file."""

from pathlib import Path

from edgekd.errors import EdgekdError, ToolError
from edgekd.registry import BACKENDS
from edgekd.values.backend import BackendInfo, FileKind


def backend_info(name: str, where: str = "") -> BackendInfo:
    """The description of the backend of that name.

    Raises `InputError` for an unknown name, `ToolError` for a backend that can't be imported or has
    no description.
    """
    info = getattr(BACKENDS.get(name, where).make, "info", None)
    if not isinstance(info, BackendInfo):
        raise ToolError(
            f"the backend '{name}' does not describe itself",
            where=where,
            allowed="a class with the attribute 'info', an edgekd.values.backend.BackendInfo",
        )
    return info


def examined_backends() -> tuple[dict[str, BackendInfo], dict[str, EdgekdError]]:
    """Every installed backend's description, and the errors of those that can't be read."""
    infos: dict[str, BackendInfo] = {}
    errors: dict[str, EdgekdError] = {}
    for name in BACKENDS.names():
        try:
            infos[name] = backend_info(name)
        except EdgekdError as error:
            errors[name] = error
    return infos, errors


def known_backends() -> dict[str, BackendInfo]:
    """Every installed backend's description; one that can't be read is skipped (`edgekd doctor`
    reports it)."""
    return examined_backends()[0]


def backend_of(format: str) -> str:
    """The name of the backend that makes files of that format, or an empty string."""
    owners = [name for name, info in known_backends().items() if info.kind_of(format)]
    return owners[0] if owners else ""


def kind_of(format: str) -> FileKind | None:
    """The description of files of that format by the backend that makes them."""
    kinds = [info.kind_of(format) for info in known_backends().values()]
    return next((kind for kind in kinds if kind), None)


def plot_mark(format: str) -> str:
    """Matplotlib's marker for files of that format."""
    kind = kind_of(format)
    return kind.plot_mark if kind else FileKind.model_fields["plot_mark"].default


def runners() -> dict[str, Path]:
    """By runtime, the runner file that lets the device's agent run a runtime that it does not
    know."""
    return {
        kind.runtime: info.runner
        for info in known_backends().values()
        if info.runner is not None
        for kind in info.files
    }


def not_run(format: str) -> str:
    """Why files of that format are never run, or an empty string."""
    kind = kind_of(format)
    return kind.not_run if kind else ""


def suffixes() -> tuple[str, ...]:
    """Every file suffix that some runtime on a device can load."""
    kinds = [kind for info in known_backends().values() for kind in info.files]
    return tuple(dict.fromkeys(suffix for kind in kinds for suffix in kind.suffixes))


def recognized_file(path: Path) -> tuple[str, FileKind] | None:
    """The backend whose kind of file this is, by suffix and mark, and the kind; None for others."""
    suffix = path.suffix.lower()
    candidates = [
        (name, kind)
        for name, info in known_backends().items()
        for kind in info.files
        if suffix in kind.suffixes
    ]
    marked = [(name, kind) for name, kind in candidates if kind.mark]
    if marked:
        content = path.read_bytes()
        for name, kind in marked:
            if kind.mark in content:
                return name, kind
    return next(((name, kind) for name, kind in candidates if not kind.mark), None)
