"""Finished work by content: a key identifies the inputs, a folder holds the outputs.

A folder appears under its key only when it is complete (written elsewhere, then renamed), so a run
that is killed at any moment leaves either all of a step or none of it. Unfinished work stays in a
work folder, where the same step finds its checkpoints again.
"""

import errno
import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from edgekd.errors import InputError, ToolError
from edgekd.package import package_folder

ROLES = ("computes", "measures", "presents")
"""What code is for: computing results (training, compiling), measuring files, or requesting and
presenting results, which no result depends on."""

SOURCE_SUFFIXES = (".py", ".c", ".h", ".jinja")

_MARKER = re.compile(r"^# code-key: (.*)$", re.MULTILINE)


def cache_folder() -> Path:
    """The folder that runs share and that can be rebuilt: $EDGEKD_CACHE, or edgekd's folder in the
    user's cache."""
    named = os.environ.get("EDGEKD_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgekd"


def key_of(*parts: Any) -> str:
    """A hash of plain values; the same values in the same order give the same key."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def role_of(file: Path, root: Path) -> str:
    """What a source file of the package at `root` is for, one of `ROLES`.

    A module is marked by a line `# code-key: presents` below its docstring, a folder by the same
    line in its `__init__.py`, for everything below it. A file's own marker takes precedence, then
    the nearest folder's. Code without a marker computes. Raises `ValueError` for an unknown role.
    """
    folders = [folder for folder in file.parents if folder.is_relative_to(root)]
    for source in (file, *(folder / "__init__.py" for folder in folders)):
        marked = _MARKER.search(source.read_text(encoding="utf-8")) if source.is_file() else None
        if marked and marked[1] not in ROLES:
            raise ValueError(f"{source}: '# code-key: {marked[1]}' is none of {', '.join(ROLES)}")
        if marked:
            return marked[1]
    return "computes"


def code_files(root: Path, measured: bool = False) -> list[Path]:
    """The source files of a package that compute results and, with `measured`, those that
    measure."""
    roles = ("computes", "measures") if measured else ("computes",)
    sources = (file for file in sorted(root.rglob("*")) if file.suffix in SOURCE_SUFFIXES)
    return [file for file in sources if role_of(file, root) in roles]


def hash_code(root: Path, measured: bool = False) -> str:
    """A hash of the names and contents of `code_files`."""
    digest = hashlib.sha256()
    for file in code_files(root, measured):
        digest.update(str(file.relative_to(root)).encode() + file.read_bytes())
    return digest.hexdigest()[:24]


@functools.cache
def code_key(measured: bool = False) -> str:
    """`hash_code` of edgekd itself, so that results of older code are not reused."""
    return hash_code(package_folder(), measured)


NOT_WRITABLE = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST,
    errno.ENAMETOOLONG,
)  # fmt: skip


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn the operating system's errors about a folder into one clear error."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ToolError(
                "the disk is full; finished work is kept",
                where=str(error.filename or folder),
                hint="free some space and run the same command again to continue from there",
            ) from None
        if error.errno in NOT_WRITABLE:
            raise _not_writable(error, folder) from None
        raise


def _not_writable(error: OSError, folder: Path) -> InputError:
    return InputError(
        f"not writable: {error.strerror}",
        where=str(error.filename or folder),
        allowed="a folder that you can write to",
        hint="choose another folder",
    )


def make_folder(folder: Path) -> None:
    """Create a folder and its parents. Raises `InputError` if the system refuses
    (in /proc by claiming that the new folder does not exist), `ToolError` if the disk is full."""
    with disk_errors(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:
            raise _not_writable(error, folder) from None


@contextmanager
def read_errors(
    path: Path, kind: str = "a file", hint: str = "", where: str = ""
) -> Iterator[None]:
    """Turn the operating system's refusal to open a file into one `InputError`.

    `kind` is the kind of file that is needed. Errors about the file's content propagate, including
    an `OSError` of a reader.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        reasons = {errno.ENOENT: "no such file", errno.EISDIR: f"a folder, where {kind} is needed"}
        message = reasons.get(error.errno, f"not readable: {error.strerror}")
        raise InputError(message, where=where or str(path), hint=hint) from None


class Store:
    """Finished steps under one folder, by key. Without `resume`, only what this store itself has
    published is found."""

    def __init__(self, root: Path, resume: bool = True) -> None:
        self.root, self.resume = root, resume
        self._published: set[Path] = set()

    def find(self, name: str, key: str) -> Path | None:
        """The folder of a finished step, or None."""
        folder = self.root / f"{name}-{key}"
        known = self.resume or folder in self._published
        if not known or not folder.is_dir():
            return None
        # What a process left that was killed between publishing and clearing up.
        shutil.rmtree(self.root / "unfinished" / f"{name}-{key}", ignore_errors=True)
        return folder

    def unfinished(self, name: str, key: str) -> Path:
        """The path of `work`, whether or not it exists."""
        return self.root / "unfinished" / f"{name}-{key}"

    def work(self, name: str, key: str) -> Path:
        """The folder where an unfinished step keeps what it needs to continue after a kill."""
        folder = self.unfinished(name, key)
        if not self.resume:
            shutil.rmtree(folder, ignore_errors=True)
        make_folder(folder)
        return folder

    @contextmanager
    def taken(self, name: str, key: str) -> Iterator[None]:
        """Wait until no other process works on a step, and keep others waiting while the block
        lasts. The processes that `torchrun` starts work on it together."""
        if os.environ.get("WORLD_SIZE", "1") != "1":
            yield
            return
        with locked(self.work(name, key), wait=True):
            yield

    def publish(self, name: str, key: str, write: Callable[[Path], None]) -> Path:
        """Have `write` fill a temporary folder, then give it its name in one rename."""
        final = self.root / f"{name}-{key}"
        beside = self.root / "unfinished" / f"{name}-{key}.{os.getpid()}.writing"
        with disk_errors(beside):
            for left in beside.parent.glob(f"{name}-{key}.*.writing"):
                if not _runs(int(left.name.split(".")[-2])):  # left by a killed process
                    shutil.rmtree(left, ignore_errors=True)
            make_folder(beside)
            try:
                write(beside)
                shutil.rmtree(final, ignore_errors=True)
                try:
                    beside.rename(final)
                except OSError as error:
                    if error.errno != errno.ENOTEMPTY:  # another process was faster
                        raise
            finally:
                shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(self.root / "unfinished" / f"{name}-{key}", ignore_errors=True)
        self._published.add(final)
        return final


def _runs(process: int) -> bool:
    """Whether another process with this id is running."""
    return process != os.getpid() and Path(f"/proc/{process}").exists()


@contextmanager
def locked(path: Path, wait: bool = False) -> Iterator[int]:
    """Hold the lock of a folder, or of a file, which is created if need be; yields the descriptor.

    A child process that inherits it holds the lock too. A killed process holds none. While another
    process holds it, this waits or raises `BlockingIOError`.
    """
    opened = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield opened
    finally:
        os.close(opened)


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Refuse a second run in the same folder while the block lasts. The processes that `torchrun`
    starts are one run."""
    with ExitStack() as stack:
        if os.environ.get("RANK", "0") == "0":
            try:
                stack.enter_context(locked(folder))
            except BlockingIOError:
                raise InputError(
                    "another edgekd run is using this folder",
                    where=str(folder),
                    hint="wait until it ends, or choose another folder with --out",
                ) from None
        yield


@contextmanager
def file_beside(path: Path) -> Iterator[Path]:
    """A temporary name in the same folder for a file that the block writes. It is renamed to `path`
    if the block succeeds and removed if it fails."""
    beside = _beside(path)
    with disk_errors(path.parent):
        try:
            make_folder(path.parent)
            beside.unlink(missing_ok=True)
            yield beside
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """The same for a folder, which exists and is empty inside the block; an existing folder at
    `path` is replaced."""
    beside = _beside(path)
    with disk_errors(path.parent):
        try:
            shutil.rmtree(beside, ignore_errors=True)
            make_folder(beside)
            yield beside
            if path.exists():
                shutil.rmtree(path)
            beside.rename(path)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.writing")


def write_beside(path: Path, content: str | bytes) -> None:
    """Write a whole file under another name in the same folder, then rename it into place."""
    with file_beside(path) as beside:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)


def check_writable(folder: Path) -> None:
    """Refuse an output folder that can't be written to, before any work is done for it."""
    make_folder(folder)
    with disk_errors(folder), tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(b"a folder of edgekd")
