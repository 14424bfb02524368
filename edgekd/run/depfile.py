"""A dependency file for make and ninja: what has to run again when which file changes."""

# code-key: presents

from collections.abc import Iterable
from pathlib import Path

from edgekd.errors import InputError

# What both make and ninja read back as itself, in the form that compilers write.
_ESCAPES = {" ": "\\ ", "#": "\\#", "$": "$$"}


def escaped(path: str) -> str:
    """A path as make and ninja want it. Raises `InputError` for what neither can express."""
    for mark, words in (("\n", "a line break"), ("\t", "a tab"), ("\\", "a backslash")):
        if mark in path:
            raise InputError(f"{words} in the name can't be written for make", where=repr(path))
    if ":" in path:
        raise InputError("a colon in the name can't be written for make", where=repr(path))
    return "".join(_ESCAPES.get(one, one) for one in path)


def depfile_text(target: str, files: Iterable[Path]) -> str:
    """One rule: the target, a colon, and every file on a line of its own."""
    lines = [f"{escaped(target)}:", *(f"  {escaped(str(path))}" for path in files)]
    return " \\\n".join(lines) + "\n"
