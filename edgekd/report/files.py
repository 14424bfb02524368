"""report.json and report.html on disk: written atomically, read back and validated."""

import json
import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekd.errors import InputError, ToolError
from edgekd.report.values import Report
from edgekd.store import read_errors
from edgekd.values.tables import parse

JSON_NAME, HTML_NAME = "report.json", "report.html"
DIGITS = 6


def rounded(tree: Any, digits: int = DIGITS) -> Any:
    """The same tables, floats rounded to `digits` significant digits; whole numbers stay whole."""
    if isinstance(tree, float):
        kept = not math.isfinite(tree) or tree.is_integer()
        return tree if kept else float(f"{tree:.{digits}g}")
    if isinstance(tree, dict):
        return {key: rounded(value, digits) for key, value in tree.items()}
    if isinstance(tree, list):
        return [rounded(value, digits) for value in tree]
    return tree


def report_text(report: Report) -> str:
    """The content of report.json; the same report gives the same bytes."""
    tables = rounded(report.as_json())
    return json.dumps(tables, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def write_report(report: Report, folder: Path) -> tuple[Path, Path]:
    """Write report.json and report.html into an existing folder and return their paths.

    The page is rendered from the content of report.json, so both show the same digits. Raises
    `ToolError` if the folder can't be written; nothing is left half-written.
    """
    from edgekd.report.html import html

    text = report_text(report)
    page = html(Report.model_validate(json.loads(text)))
    return _write(folder / JSON_NAME, text), _write(folder / HTML_NAME, page)


def _write(path: Path, text: str) -> Path:
    """Write to a temporary file and rename it, so that readers see the old file or the new one."""
    beside: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as stream:
            beside = Path(stream.name)
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        beside.chmod(0o644)
        beside.replace(path)
    except OSError as error:
        if beside is not None:
            beside.unlink(missing_ok=True)
        raise ToolError(
            f"can't be written: {error.strerror}",
            where=str(path),
            hint="is the disk full or read-only?",
        ) from None
    return path


def load_report(path: str | Path) -> Report:
    """The report in a file, or in a run's folder. Raises `InputError` for anything else."""
    file = Path(path) / JSON_NAME if Path(path).is_dir() else Path(path)
    try:
        with read_errors(file, "a report.json", hint="give a folder that 'edgekd compress' wrote"):
            table = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"not a readable report: {error}", where=str(file)) from None
    if not isinstance(table, dict) or "schema" not in table:
        raise InputError("not an edgekd report: it has no 'schema'", where=str(file))
    if table["schema"] != 1:
        raise InputError(
            f"unknown report schema {table['schema']!r}",
            where=str(file),
            allowed="1",
            hint="use the version of edgekd that wrote it",
        )
    return parse(Report, table, str(file)).kept_in(file.parent)


def compare_runs(folders: Sequence[Path], out: Path) -> Path:
    """Write one page that compares the runs in several folders, and return its path.

    Each run is named by the part of its path that distinguishes it from the others.
    """
    from edgekd.report.html import compare_html

    reports = [load_report(folder) for folder in folders]
    page = compare_html(list(zip(_short_names(folders), reports, strict=True)))
    return _write(out, page)


def _short_names(folders: Sequence[Path]) -> list[str]:
    """The last parts of each path, as few as make all names different."""
    paths = [folder.resolve() for folder in folders]
    most = max(len(path.parts) for path in paths)
    for count in range(1, most + 1):
        names = ["/".join(path.parts[-count:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise InputError("the same run is given twice", where=", ".join(map(str, folders)))
