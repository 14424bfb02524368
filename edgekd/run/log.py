"""log.txt of a run: its plan, its steps, and the full output of tools that failed."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from edgekd.errors import EdgekdError
from edgekd.report.values import Report, StageReport
from edgekd.store import write_beside

LOG_NAME = "log.txt"


def write_log(
    folder: Path, report: Report, failures: Mapping[str, Mapping[str, EdgekdError]]
) -> None:
    """Write the log of a finished run; `failures` are those of each target's backends."""
    lines = [*report.plan, *(_stage_line(stage) for stage in report.stages)]
    for target, errors in failures.items():
        for backend, error in errors.items():
            lines += error_lines(error, f"{target}: no file of backend '{backend}': ")
    write_beside(folder / LOG_NAME, "\n".join(lines) + "\n")


def append_errors(folder: Path, errors: Sequence[EdgekdError]) -> None:
    """Add the full output of failed tools to a run's log; errors without details add nothing. A
    folder that can't be written to is skipped, since that is reported as an error elsewhere.
    """
    faults = [fault for error in errors for fault in error.faults if fault.detail]
    lines = [line for fault in faults for line in error_lines(fault)]
    if lines:
        path = folder / LOG_NAME
        with suppress(OSError, EdgekdError):
            before = path.read_text(encoding="utf-8") if path.is_file() else ""
            write_beside(path, before + "\n".join(lines) + "\n")


@contextmanager
def errors_logged(folder: Path) -> Iterator[None]:
    """Add the details of an error raised in the block to the log, and reraise it."""
    try:
        yield
    except EdgekdError as error:
        append_errors(folder, [error])
        raise


def error_lines(error: EdgekdError, prefix: str = "") -> list[str]:
    """An error as one line, followed by its details, indented."""
    detail = textwrap.indent(error.detail.rstrip(), "    ").splitlines()
    return [f"error: {prefix}{error}", *detail]


def _stage_line(stage: StageReport) -> str:
    accuracy = "unknown" if stage.accuracy is None else f"{stage.accuracy:.4f}"
    state = "reused" if stage.cached else f"{stage.seconds:.1f} s"
    return f"done: {stage.line} ({state}), test accuracy {accuracy}, key {stage.key}"
