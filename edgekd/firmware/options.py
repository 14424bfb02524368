"""The options of generated C that take one of a few names."""

from collections.abc import Sequence
from typing import TypeVar

from edgekd.errors import InputError, nearest

Name = TypeVar("Name", bound=str)


def named_option(option: str, name: str, allowed: Sequence[Name]) -> Name:
    """The allowed name that `name` is. Raises `InputError` for an unknown one; `option` is the
    command line's, without its dashes."""
    for known in allowed:
        if name == known:
            return known
    raise InputError(
        f"unknown {option} '{name}'",
        where=f"--{option}",
        allowed=", ".join(allowed),
        hint=nearest(name, allowed),
    )
