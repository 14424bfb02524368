"""Every error that edgekd raises on purpose, and the exit code each one ends the program with.

EdgekdError
├── InputError           2  what the user gave is wrong
│   ├── Faults           2  several, found in one pass; 3 if none of them is the user's
│   ├── MissingPackage   2  an optional dependency is not installed
│   └── MissingTool      2  a command is not installed
├── ToolError            3  a compiler, runtime, device or disk failed
│   └── MissingRuntime   3  a device lacks what runs a file
└── Interrupted        130  Ctrl-C, in a command that keeps nothing
"""

import difflib
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class EdgekdError(Exception):
    """One fault in four parts: where it is, what was found, what is allowed, and what to do next.

    `message` is a sentence that says what was found; `where` is a file, key or layer; `allowed` and
    `hint` are optional. `detail` is what a tool said in full, or a traceback: it goes into a run's
    log.txt, not onto the terminal.
    """

    exit_code = 1

    def __init__(
        self, message: str, *, where: str = "", allowed: str = "", hint: str = "", detail: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.allowed = allowed
        self.hint = hint
        self.detail = detail

    @property
    def faults(self) -> "tuple[EdgekdError, ...]":
        """The individual faults: this error itself, or the contents of a `Faults`."""
        return (self,)

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        allowed = f" (allowed: {self.allowed})" if self.allowed else ""
        return f"{place}{self.message}{allowed}"


class InputError(EdgekdError):
    """What the user gave is wrong: a recipe, a file, an option, a name."""

    exit_code = 2


class Faults(InputError):
    """All faults of one input, so that the user can fix them together. If any of them is the user's
    own, it decides the exit code, because it has to be fixed first."""

    def __init__(self, faults: Sequence[EdgekdError]) -> None:
        super().__init__(f"{len(faults)} faults")
        self._faults = tuple(faults)
        self.exit_code = min((fault.exit_code for fault in faults), default=type(self).exit_code)

    @property
    def faults(self) -> tuple[EdgekdError, ...]:
        return self._faults

    def __str__(self) -> str:
        return "\n".join(str(fault) for fault in self.faults)


class Collector:
    """Runs checks and collects the errors they raise, so that all faults are reported together."""

    def __init__(self, kept: type[EdgekdError] = EdgekdError) -> None:
        self.faults: list[EdgekdError] = []
        self._kept = kept

    def attempt(self, check: Callable[P, R], *arguments: P.args, **keys: P.kwargs) -> R | None:
        """The result of the check, or None if it raised an error that is collected. Other errors
        propagate."""
        try:
            return check(*arguments, **keys)
        except self._kept as error:
            self.faults.extend(error.faults)
            return None


class MissingPackage(InputError):
    """An optional dependency is not installed; the hint is the pip command that installs it:
    edgekd's own `extra`, or the package itself where it belongs to none."""

    def __init__(self, package: str, extra: str, *, where: str = "") -> None:
        super().__init__(
            f"{package} is not installed",
            where=where,
            hint=f"pip install 'edgekd[{extra}]'" if extra else f"pip install {package}",
        )


class MissingTool(InputError):
    """A command is not installed here; the hint is how to install it."""


class ToolError(EdgekdError):
    """A compiler, a runtime, a device or the disk failed at something that should have worked."""

    exit_code = 3


class MissingRuntime(ToolError):
    """A device lacks the runtime for a file; the hint is how to install it there."""


class Interrupted(EdgekdError):
    """The user interrupted the command, and no results are kept."""

    exit_code = 130


def raise_all(faults: Sequence[EdgekdError]) -> None:
    """Raise nothing for an empty sequence, a single fault itself, and `Faults` for several. A fault
    that two checks found is said once."""
    different = list({str(fault): fault for fault in faults}.values())
    if len(different) == 1:
        raise different[0]
    if different:
        raise Faults(different)


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or its class if the message is empty."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)


def summary_of(error: BaseException) -> str:
    """An exception's class and the first line of its message."""
    line, kind = first_line(error), type(error).__name__
    return kind if line == kind else f"{kind}: {line}"


def unexpected_error(error: Exception, where: str, what: str) -> ToolError:
    """An exception that a stage or a compiler raised without meaning to, as an error of a run:
    `what` failed, and the log has the traceback."""
    return ToolError(
        f"{what} fails on this network: {summary_of(error)}",
        where=where,
        hint="log.txt in the output folder has the whole message",
        detail="".join(traceback.format_exception(error)),
    )


def caught(error: Exception, where: str, what: str) -> EdgekdError:
    """The error itself if it is one of edgekd's, otherwise what `unexpected_error` makes of it."""
    return error if isinstance(error, EdgekdError) else unexpected_error(error, where, what)


def nearest(name: str, choices: Iterable[str]) -> str:
    """A hint with the closest allowed spelling, or an empty string."""
    close = difflib.get_close_matches(name, list(choices), n=1)
    return f"did you mean '{close[0]}'?" if close else ""
