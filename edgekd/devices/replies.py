"""The replies that an agent may send: data from a board, validated before it is used."""

import json
import math
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from edgekd.errors import EdgekdError, InputError, MissingRuntime, ToolError
from edgekd.values.artifact import TensorInfo

LONGEST_WORDS = 2000


def printable(text: str) -> str:
    """Text without control characters, because a board's output is shown on a terminal."""
    return "".join(one if one.isprintable() else " " for one in text)[:LONGEST_WORDS].strip()


Nanoseconds = Annotated[int, Field(ge=0, lt=1 << 63)]
Size = Annotated[int, Field(ge=0, lt=1 << 63)]
Count = Annotated[int, Field(gt=-1 << 63, lt=1 << 63)]
Words = Annotated[str, Field(max_length=LONGEST_WORDS), AfterValidator(printable)]
Table = Annotated[dict[Words, Words], Field(max_length=256)]
List = Annotated[tuple[Words, ...], Field(max_length=1024)]


class Reply(BaseModel):
    """Unknown keys are ignored: a newer agent may send more."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Tensor(Reply):
    """An input or an output as reported by the runtime; an unknown size is -1."""

    name: Words
    shape: tuple[int, ...] = Field(max_length=16)
    dtype: Words
    scale: FiniteFloat | None = None
    zero_point: int | None = None

    def info(self) -> TensorInfo:
        return TensorInfo(**self.model_dump())


class Loaded(Reply):
    """A model in the agent's memory, by number."""

    model: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    notes: Table = {}
    version: Words = ""


class Hello(Reply):
    """What a board is. `runtimes` has an empty version for each one that is missing; `sensors`
    gives the names of each kind, or why they can't be read."""

    platform: Words
    machine: Words
    python: Words
    cpu: Words
    cores: int
    runtimes: Table
    install: Table
    conditions: Table
    drivers: List = ()
    features: List = ()
    memory_bytes: Size | None = None
    memory_free_bytes: Size | None = None
    storage_free_bytes: Size | None = None
    governors: List = ()
    sensors: Table = {}
    numpy: Words = ""


OutputType = Literal[
    "float32", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"
]


class Output(Reply):
    """The shape and type of one output."""

    shape: tuple[Size, ...] = Field(min_length=1, max_length=16)
    dtype: OutputType

    @property
    def bytes(self) -> int:
        """Its size in the file of outputs."""
        return math.prod(self.shape) * int(np.dtype(self.dtype).itemsize)


class Inferred(Reply):
    """The outputs are in the file that the request named, one after another."""

    outputs: tuple[Output, ...] = Field(min_length=1, max_length=256)


class Benchmarked(Reply):
    """For each model: its windows of single runs, how many runs each had (if there are many, only
    some are sent), and the start and end of each window."""

    windows_ns: tuple[tuple[tuple[Nanoseconds, ...], ...], ...]
    counts: tuple[tuple[Size, ...], ...]
    spans_ns: tuple[tuple[tuple[Nanoseconds, Nanoseconds], ...], ...]
    settled: tuple[bool, ...]
    before: Table
    after: Table
    invalid: Words = ""


class ProfiledOperator(Reply):
    """One operator as its runtime names it, its number in the file (-1 where the runtime does not
    say), and what it cost in each inference."""

    name: Words
    op: Words
    index: int = -1
    values: tuple[Nanoseconds, ...] = Field(min_length=1)


class Profiled(Reply):
    """Operators in order of execution, and the resolution of the clock that timed them. On an
    emulated processor they are counted in instructions instead. `patches` says how, where operators
    are computed patch by patch, with halos, so that their costs are not those of whole ones."""

    operators: tuple[ProfiledOperator, ...] = Field(max_length=1 << 16)
    resolution: Nanoseconds
    unit: Literal["ns", "instructions"] = "ns"
    patches: Words = ""


class Warmed(Reply):
    """Whether a model's warm-up settled, the median of its runs, and the clock then."""

    settled: bool
    run_ns: Annotated[int, Field(gt=0, lt=1 << 63)]
    now_ns: Nanoseconds


class StreamCounts(Reply):
    """How many runs one stream did in each window."""

    counts: tuple[Annotated[FiniteFloat, Field(ge=0.0)], ...]
    before: Table
    after: Table
    invalid: Words = ""


class Looked(Reply):
    """Small system files by path, each as one line."""

    files: dict[Words, Annotated[str, Field(max_length=4096), AfterValidator(printable)]] = Field(
        max_length=4096
    )


class Clock(Reply):
    """The board's monotonic clock."""

    now_ns: Nanoseconds


class Recorded(Reply):
    """Times, and the content of each recorded file at each time."""

    points: tuple[tuple[Nanoseconds, tuple[Count | None, ...]], ...]


class Cold(Reply):
    """Load, first inference and peak memory of one model in its own process."""

    load_ns: Nanoseconds
    first_ns: Nanoseconds
    peak_bytes: Size | None
    baseline_bytes: Size
    reason: Words = ""


R = TypeVar("R", bound=Reply)


def decode(line: bytes, place: str) -> dict[str, Any]:
    """Parse one line as a table with one of ok, error, progress. Raises `ToolError` for anything
    else."""
    try:
        table = json.loads(line)
    except (ValueError, RecursionError):
        table = None
    if not isinstance(table, dict) or not {"ok", "error", "progress"} & table.keys():
        shown = line[:80].decode(errors="replace")
        raise ToolError(f"the agent sent an invalid reply: {shown!r}", where=place)
    return table


def checked(kind: type[R], answer: Any, place: str) -> R:
    """The reply as a value of that class. Raises `ToolError` if it does not validate."""
    try:
        return kind.model_validate(answer)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = printable(".".join(str(part) for part in first["loc"]))
        raise ToolError(
            f"the agent's reply is malformed: {key}: {first['msg']}", where=place
        ) from None


def fault_of(error: Any, place: str) -> EdgekdError:
    """The agent's error as one of edgekd's: a wrong file or option is the user's (exit code 2), a
    missing capability is the device's (exit code 3)."""
    if not isinstance(error, dict):
        return ToolError("the agent failed without a reason", where=place)
    message, hint = (printable(str(error.get(key, ""))) for key in ("message", "hint"))
    kinds: dict[str, type[EdgekdError]] = {
        "bad-model": InputError, "bad-request": InputError, "missing-runtime": MissingRuntime,
    }  # fmt: skip
    return kinds.get(str(error.get("kind")), ToolError)(message, where=place, hint=hint)


def milliseconds(nanoseconds: int) -> float:
    """Nanoseconds, the agent's unit, in milliseconds."""
    value = nanoseconds / 1e6
    assert math.isfinite(value)
    return value
