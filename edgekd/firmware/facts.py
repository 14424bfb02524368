"""What is known about a model besides its arithmetic, as macros of a C header."""

import json
from typing import Any

from edgekd.errors import InputError
from edgekd.values.preprocess import Preprocess
from edgekd.values.tables import Value


class Facts(Value):
    """The model's name and version, the hash of its recipe, its licence (any text), its accuracy in
    percent, the meaning of its outputs, and the steps that its inputs go through before it. Unknown
    facts are left out of the header."""

    name: str = ""
    version: str = ""
    recipe_hash: str = ""
    licence: str = ""
    accuracy_percent: float | None = None
    labels: tuple[str, ...] = ()
    preprocess: Preprocess = Preprocess()


def fact_lines(macro: str, facts: Facts) -> list[str]:
    """One `#define` for each fact that is known, then an empty line."""
    texts = {
        "NAME": facts.name,
        "VERSION": facts.version,
        "RECIPE_HASH": facts.recipe_hash,
        "LICENSE": facts.licence,
    }
    lines = [f"#define {macro}_{key} {c_string(text)}" for key, text in texts.items() if text]
    if facts.accuracy_percent is not None:
        lines.append(f"#define {macro}_ACCURACY_PERCENT {facts.accuracy_percent:.4f}")
    if facts.labels:
        labels = ", ".join(c_string(label) for label in facts.labels)
        lines += [
            f"#define {macro}_LABEL_COUNT {len(facts.labels)}",
            f"#define {macro}_LABELS {{{labels}}}",
        ]
    lines += _step_lines(macro, facts.preprocess)
    return [*lines, ""] if lines else []


def _step_lines(macro: str, steps: Preprocess) -> list[str]:
    """All steps as JSON; sizes, mean and standard deviation as C lists too. The mean and standard
    deviation are those of values from 0 to 1."""
    if not steps.facts:
        return []
    text = json.dumps(steps.facts, sort_keys=True, separators=(",", ":"))
    lists: dict[str, Any] = {"RESIZE": steps.resize, "CROP": steps.crop}
    lists |= {"MEAN": steps.mean, "STD": steps.std}
    return [
        f"#define {macro}_PREPROCESS {c_string(text)}",
        *(f"#define {macro}_{key} {_c_list(values)}" for key, values in lists.items() if values),
    ]


def _c_list(values: float | tuple[float, ...]) -> str:
    items = values if isinstance(values, tuple) else (values,)
    return "{" + ", ".join(str(v) if isinstance(v, int) else f"{v:.9g}f" for v in items) + "}"


def c_string(text: str) -> str:
    """The text as a C string in UTF-8. Other characters than plain ASCII are escaped with three
    octal digits each; `?` too, because of trigraphs."""
    plain = set(range(32, 127)) - {ord('"'), ord("\\"), ord("?")}
    content = text.encode("utf-8", errors="replace")
    return '"' + "".join(chr(one) if one in plain else f"\\{one:03o}" for one in content) + '"'


KEYWORDS = frozenset(
    [
        "auto",
        "break",
        "case",
        "char",
        "const",
        "continue",
        "default",
        "do",
        "double",
        "else",
        "enum",
        "extern",
        "float",
        "for",
        "goto",
        "if",
        "inline",
        "int",
        "long",
        "register",
        "restrict",
        "return",
        "short",
        "signed",
        "sizeof",
        "static",
        "struct",
        "switch",
        "typedef",
        "union",
        "unsigned",
        "void",
        "volatile",
        "while",
        "bool",
        "true",
        "false",
        "nullptr",
        "class",
        "new",
        "delete",
        "template",
        "this",
        "try",
        "catch",
        "namespace",
        "operator",
        "private",
        "protected",
        "public",
        "virtual",
        "throw",
        "using",
        "asm",
        "typename",
    ]
)


def check_name(name: str, where: str = "--name") -> str:
    """The name, if it can be a C and C++ file name and the prefix of function names."""
    sound = name.isascii() and name.isidentifier() and not name.startswith("_")
    if not sound or name in KEYWORDS or len(name) > 40:
        raise InputError(
            f"{name!r} can't be a prefix of C function names",
            where=where,
            allowed="up to 40 letters, digits and underscores, a letter first, no C keyword",
            hint="--name model",
        )
    return name


def name_from(stem: str) -> str:
    """A valid C name derived from a file name."""
    kept = "".join(one if one.isascii() and one.isalnum() else "_" for one in stem).strip("_")[:40]
    usable = kept and not kept[0].isdigit() and kept.lower() not in KEYWORDS
    return kept.lower() if usable else f"model_{kept.lower()}".rstrip("_")[:40]
