"""The options of `edgekd bench` about running: shapes, ranges, threads, delegates, providers."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from edgekd.errors import InputError, nearest
from edgekd.values.artifact import TensorInfo
from edgekd.values.tables import Value

DTYPES = ("float32", "float16", "float64", "int8", "uint8", "int16", "int32", "int64", "bool")

CONCERNS: Mapping[str, tuple[str, ...]] = {
    "provider": ("onnxruntime",),
    "delegate": ("litert", "edgetpu"),
    "delegate_options": ("litert", "edgetpu"),
    "kernels": ("litert",),
    "signature": ("litert",),
}
"""Which runtimes an option applies to; the other options apply to all."""

FLAGS = {"delegate_options": "--delegate-option"}
"""The options that have another name on the command line."""

MOST_COUNTED = 4096
"""The largest batch and the most streams that can be asked for."""

_PROCESSORS = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")
_NUMBER = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"
_RANGE = re.compile(rf"(?P<name>.+)=(?P<low>{_NUMBER})\.\.(?P<high>{_NUMBER})")
_SHAPE = re.compile(r"(?:(?P<name>.+)=)?(?P<sizes>\d+(?:[,x]\d+)*)(?::(?P<dtype>\w+))?")


class Shape(Value):
    """A shape given by the user; without a name it is for a model's only input."""

    name: str
    sizes: tuple[int, ...]
    dtype: str = ""


def parse_shape(text: str) -> Shape:
    """Parse `x=1,3,224,224`, `1x3x224x224` or `ids=1,128:int64`. Raises `InputError` for anything
    else."""
    match = _SHAPE.fullmatch(text.strip())
    if not match:
        allowed = "[INPUT=]SIZE,SIZE,...[:DTYPE], as in x=1,3,224,224"
        raise InputError(f"'{text}' is not a shape", where="--shape", allowed=allowed)
    sizes = tuple(int(size) for size in re.split("[,x]", match["sizes"]))
    if 0 in sizes:
        raise InputError(f"'{text}' has a size of 0", where="--shape", allowed="sizes from 1 up")
    dtype = match["dtype"] or ""
    if dtype and dtype not in DTYPES:
        raise InputError(f"unknown type '{dtype}'", where="--shape", allowed=", ".join(DTYPES),
                         hint=nearest(dtype, DTYPES))  # fmt: skip
    return Shape(name=match["name"] or "", sizes=sizes, dtype=dtype)


class Range(Value):
    """The least and the largest value of an input's random values."""

    name: str
    low: float
    high: float


def parse_range(text: str) -> Range:
    """Parse `ids=0..30521` or `x=-1..1`. Raises `InputError` for anything else."""
    match = _RANGE.fullmatch(text.strip())
    allowed = "INPUT=LOW..HIGH, as in ids=0..30521"
    if not match:
        raise InputError(f"'{text}' is not a range", where="--input", allowed=allowed)
    found = Range(name=match["name"], low=float(match["low"]), high=float(match["high"]))
    if found.low > found.high:
        raise InputError(f"the range '{text}' is empty", where="--input", allowed=allowed)
    return found


def parse_affinity(text: str) -> list[int]:
    """Parse processor numbers, `2,3` or `0-3`. Raises `InputError` for anything else."""
    found: set[int] = set()
    for part in text.split(","):
        ends = _PROCESSORS.fullmatch(part.strip())
        low, high = (int(ends[1]), int(ends[2] or ends[1])) if ends else (0, -1)
        if low > high:
            allowed = "processors by number: 2,3 or 0-3"
            raise InputError(
                f"'{text}' is not a list of processors", where="--affinity", allowed=allowed
            )
        found |= set(range(low, high + 1))
    return sorted(found)


def parse_counts(text: str, where: str) -> tuple[int, ...]:
    """Parse numbers from 1 up, `1,8`. Raises `InputError` for anything else."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 1 <= int(part) <= MOST_COUNTED for part in parts):
        raise InputError(
            f"'{text}' is not a list of numbers",
            where=where,
            allowed=f"numbers from 1 to {MOST_COUNTED}, such as 1,8",
        )
    return tuple(dict.fromkeys(int(part) for part in parts))


def parse_pairs(texts: Sequence[str], where: str) -> dict[str, str]:
    """Parse `KEY=VALUE` words into a table."""
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise InputError(f"'{text}' is not KEY=VALUE", where=where, allowed="KEY=VALUE")
        pairs[key.strip()] = value.strip()
    return pairs


def options_for(runtime: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The overrides that apply to a runtime."""
    return {
        key: value for key, value in overrides.items() if runtime in CONCERNS.get(key, (runtime,))
    }


def check_overrides(overrides: Mapping[str, Any], runtimes: Sequence[str]) -> list[InputError]:
    """A fault for each override that applies to none of the files' runtimes."""
    return [
        InputError(
            f"no file here runs in {' or '.join(CONCERNS[key])}",
            where=FLAGS.get(key, f"--{key}"),
        )
        for key in overrides
        if key in CONCERNS and not set(CONCERNS[key]) & set(runtimes)
    ]


def chosen_shapes(
    infos: Sequence[TensorInfo], shapes: Sequence[Shape], where: str = "--shape"
) -> dict[str, tuple[int, ...]]:
    """The given shapes that are for these inputs, by input name.

    Raises `InputError` for a shape without a name if there is more than one input, and for a shape
    that an input can't have.
    """
    own = {info.name: info.shape for info in infos}
    chosen = {}
    for shape in shapes:
        if not shape.name and len(own) != 1:
            raise InputError(
                f"the model has {len(own)} inputs, so --shape has to name one",
                where=where,
                allowed=", ".join(own),
                hint=f"--shape {next(iter(own), 'x')}={_text(shape.sizes)}",
            )
        name = shape.name or next(iter(own))
        if name not in own:
            continue
        if not _fits(own[name], shape.sizes):
            alone = f"--shape INPUT={_text(shape.sizes)} applies only to the file with that input"
            raise InputError(
                f"its input '{name}' is {_text(own[name])}, which can't be {_text(shape.sizes)}",
                where=where,
                hint="" if shape.name else alone,
            )
        chosen[name] = shape.sizes
    return chosen


def _fits(own: Sequence[int], given: Sequence[int]) -> bool:
    return len(own) == len(given) and all(
        have in (-1, want) for have, want in zip(own, given, strict=True)
    )


def open_faults(infos: Sequence[TensorInfo], where: str) -> list[InputError]:
    """A fault for each input with an open size, except that an open first size is taken as a batch
    of one."""
    return [
        InputError(
            f"the sizes of input '{info.name}' are open: {_text(info.shape)}",
            where=where,
            hint=f"--shape {info.name}={_text(max(size, 1) for size in info.shape)} (or what is "
            "right)",
        )
        for info in infos
        if any(size < 0 for size in info.shape[1:])
    ]


def tensors_of(shapes: Sequence[Shape]) -> tuple[TensorInfo, ...]:
    """Inputs described by the given shapes alone, for a library that does not record its own."""
    return tuple(
        TensorInfo(name=one.name or f"input{i}", shape=one.sizes, dtype=one.dtype or "float32")
        for i, one in enumerate(shapes)
    )


def _text(sizes: Any) -> str:
    return ",".join("?" if size < 0 else str(size) for size in sizes)
