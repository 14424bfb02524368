"""How each TFLite operator becomes calls of C kernels; operators without a module are refused.

Each module has `OPERATORS`, a table from TFLite's operator names to `lower(node) -> [Step]`. The C
file beside it has the kernel under the kernel's own name. There is no other list of them.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache

from edgekd.errors import InputError
from edgekd.firmware.graph import Node
from edgekd.firmware.step import Step
from edgekd.package import package_folder

Lower = Callable[[Node], list[Step]]

FOLDER = package_folder() / "firmware" / "kernels"


@cache
def operators() -> Mapping[str, Lower]:
    """Every operator that can become C."""
    found: dict[str, Lower] = {}
    for module in pkgutil.iter_modules([str(FOLDER)]):
        found.update(importlib.import_module(f"{__name__}.{module.name}").OPERATORS)
    return dict(sorted(found.items()))


def lower(node: Node) -> list[Step]:
    """The calls that compute one operator. Raises `InputError` with the name of an operator that
    has none."""
    known = operators()
    if node.kind not in known:
        raise InputError(
            f"{node.kind} has no C kernel",
            where=node.where,
            allowed=", ".join(known),
            hint="run this file with TensorFlow Lite Micro instead, or replace the operator",
        )
    try:
        return known[node.kind](node)
    except (ValueError, OverflowError) as error:
        raise node.refuse(str(error)) from None


def source(kernel: str) -> str:
    """The C source of one kernel."""
    return (FOLDER / f"{kernel}.c").read_text(encoding="utf-8")
