"""C and C++ texts from the templates in this folder, with filters for C literals."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekd.package import package_folder
from edgekd.version import __version__


def render(template: str, name: str, **values: Any) -> str:
    """Render `TEMPLATE.jinja` for the model of that name. A missing value is an error; the same
    values give the same text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(package_folder() / "firmware"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "c_float": c_float,
        "c_comment": c_comment,
        "c_macro": c_macro,
        "offset": lambda array, offsets: offsets[array.index],
        "tag": lambda label, prefix: f"{prefix}_{label}(arena)",
    }
    macro = name.upper()
    source = environment.get_template(f"{template}.jinja")
    return source.render(name=name, macro=macro, version=__version__, **values)


def c_float(value: float) -> str:
    """A float32 as a C constant that reads back as itself."""
    text = f"{np.float32(value):.9g}"
    return f"{text}f" if any(mark in text for mark in ".e") else f"{text}.0f"


def c_comment(text: str) -> str:
    """Text that can't end the comment that contains it."""
    return re.sub(r"[^ -~]", "?", text).replace("*/", "* /")


def c_macro(text: str) -> str:
    """A word as a part of a macro's name."""
    return re.sub("[^A-Z0-9]", "_", text.upper())


LONGEST_LABEL = 32
_NOISE = re.compile(r"^(serving_default_|main_)+|(:0)$|^StatefulPartitionedCall.*$")


def by_label(kind: str, tensors: Sequence[Any]) -> dict[str, Any]:
    """Tensors under INPUT, or if there are several under INPUT_IDS, INPUT_MASK, ... by their names
    in the file; under INPUT0, INPUT1, ... where the names don't differ in letters and digits."""
    if len(tensors) == 1:
        return {kind: tensors[0]}
    names = [c_macro(_NOISE.sub("", tensor.name)).strip("_") for tensor in tensors]
    named = all(names) and len(set(names)) == len(names) and max(map(len, names)) <= LONGEST_LABEL
    labels = [f"{kind}_{name}" if named else f"{kind}{n}" for n, name in enumerate(names)]
    return dict(zip(labels, tensors, strict=True))
