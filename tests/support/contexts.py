"""A context for tests that train, on a target that nothing of theirs depends on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekd.data.samples import Data
from edgekd.training.context import Context
from edgekd.training.teachers import Teacher
from edgekd.training.teaching import Teaching
from edgekd.values.target import load_target

X86 = load_target("x86")


def context(
    teaching: Teaching,
    *,
    data: Data,
    teachers: Sequence[Teacher] = (),
    work: Path = Path("unused"),
    **fields: Any,
) -> Context:
    return Context(X86, data, teachers, work, teaching, **fields)
