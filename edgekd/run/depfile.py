"""A dependency file for make and ninja: the files whose changes call for a new run."""

# code-key: presents

from collections.abc import Iterable
from pathlib import Path

from edgekd.errors import InputError

# What both make and ninja read back as itself, in the form that compilers write.
_ESCAPES = {" ": "\\ ", "#": "\\#", "$": "$$"}


def escaped(path: str) -> str:
    """A path, escaped for make and ninja. Raises `InputError` if they can't represent it."""
    for mark, words in (("\n", "a line break"), ("\t", "a tab"), ("\\", "a backslash")):
        if mark in path:
            raise InputError(f"make can't represent {words} in a file name", where=repr(path))
    if ":" in path:
        raise InputError("make can't represent a colon in a file name", where=repr(path))
    return "".join(_ESCAPES.get(one, one) for one in path)


def depfile_text(target: str, files: Iterable[Path]) -> str:
    """One rule: the target, a colon, and every file on a line of its own."""
    lines = [f"{escaped(target)}:", *(f"  {escaped(str(path))}" for path in files)]
    return " \\\n".join(lines) + "\n"
