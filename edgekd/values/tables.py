"""TOML to frozen, typed values: all faults at once, unknown keys refused, close matches offered."""

import math
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from edgekd.errors import EdgekdError, InputError, nearest, raise_all
from edgekd.registry import Entry
from edgekd.store import read_errors


class Value(BaseModel):
    """A frozen value read from a table; an unknown key is a fault. `inlined` names the fields that
    hold a value whose keys are written in the owner's own table.
    """

    inlined: ClassVar[tuple[str, ...]] = ()
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


V = TypeVar("V", bound=BaseModel)


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file; a missing or malformed file is one clear error."""
    try:
        with read_errors(path, "a TOML file"):
            return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"not valid TOML: {error}", where=str(path)) from None


def faults_of(error: ValidationError, model: type[BaseModel], where: str) -> list[EdgekdError]:
    """Each pydantic error as an `InputError`, with the nearest known key for an unknown one."""
    faults: list[EdgekdError] = []
    for problem in error.errors(include_url=False):
        inlined = getattr(model, "inlined", ())
        path = ".".join(str(part) for part in problem["loc"] if part not in inlined)
        place = f"{where}: {path}" if where and path else where or path
        if problem["type"] == "extra_forbidden":
            key = str(problem["loc"][-1])
            allowed = _keys_at(model, problem["loc"][:-1])
            faults.append(
                InputError(
                    f"unknown key '{key}'",
                    where=place,
                    allowed=", ".join(allowed),
                    hint=nearest(key, allowed),
                )
            )
            continue
        if problem["type"] == "missing":
            faults.append(InputError("required, but missing", where=place))
            continue
        message = problem["msg"].removeprefix("Value error, ")
        given = "" if isinstance(problem["input"], dict) else f", found {problem['input']!r}"
        faults.append(InputError(message + given, where=place))
    return faults


def _keys_at(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """The keys that the table at `path` inside `model` may have."""
    current: Any = model
    for part in path:
        if isinstance(part, int):
            continue
        fields = getattr(current, "model_fields", {})
        if part not in fields:
            return []
        current = _model_in(fields[part].annotation)
    fields, inlined = getattr(current, "model_fields", {}), getattr(current, "inlined", ())
    inner = [key for name in inlined for key in _model_in(fields[name].annotation).model_fields]
    return sorted({*fields, *inner} - {*inlined})


def _model_in(annotation: Any) -> Any:
    """The first model named in an annotation such as `tuple[Teacher, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        inner = _model_in(argument)
        if inner is not None:
            return inner
    return None


def parse(model: type[V], table: Mapping[str, Any], where: str) -> V:
    """A value from a table, or every fault in it at once; TOML allows inf and nan, which are
    never valid here."""
    raise_all(_not_finite(table, where))
    try:
        return model.model_validate(dict(table))
    except ValidationError as error:
        raise_all(faults_of(error, model, where))
        raise


def _not_finite(value: Any, where: str, path: tuple[Any, ...] = ()) -> list[EdgekdError]:
    if isinstance(value, float) and not math.isfinite(value):
        place = f"{where}: {'.'.join(map(str, path))}"
        return [InputError(f"needs a finite number, found {value}", where=place)]
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        parts = value.items()
    elif isinstance(value, list | tuple):
        parts = enumerate(value, 1)
    return [fault for key, part in parts for fault in _not_finite(part, where, (*path, key))]


def parse_entry(entry: Entry, kind: type[V], table: Mapping[str, Any], where: str) -> V:
    """A value of a registered class, which has to be a subclass of `kind`."""
    make: object = entry.make
    if not isinstance(make, type) or not issubclass(make, kind):
        raise InputError(f"'{entry.name}' is not a subclass of {kind.__name__}", where=where)
    return parse(make, table, where)


def build(entry: Entry, table: Mapping[str, Any], where: str) -> Any:
    """Make a registered method from a table: its signature defines the valid keys and types."""
    fields: dict[str, Any] = {
        name: (
            parameter.annotation,
            ... if parameter.default is parameter.empty else parameter.default,
        )
        for name, parameter in entry.parameters.items()
    }
    model = create_model(entry.name, __base__=Value, **fields)
    value = parse(model, table, where)
    arguments = {name: getattr(value, name) for name in fields}
    try:
        return entry.make(**arguments)
    except ValueError as error:
        raise InputError(str(error), where=where) from None
