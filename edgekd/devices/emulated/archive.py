"""A file system as a cpio archive ("newc"), which a Linux kernel unpacks into memory at boot.

It is written here because this way owners and device files need no root privileges, and the same
content gives the same bytes.
"""

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_LAST = "TRAILER!!!"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Entry:
    """One file, folder, symbolic link or device; a folder or device has no content."""

    name: str
    mode: int
    content: bytes | Path = b""
    device: tuple[int, int] = (0, 0)

    @property
    def size(self) -> int:
        """The size of its content in bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


def entries_of(root: Path, left_out: Iterable[str] = ()) -> Iterator[Entry]:
    """The contents of a folder, sorted by name; `left_out` are prefixes of relative paths to
    skip."""
    without = tuple(left_out)
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if name.startswith(without):
            continue
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            yield Entry(name, mode, str(path.readlink()).encode())
        elif stat.S_ISDIR(mode):
            yield Entry(name, stat.S_IFDIR | 0o755)
        elif stat.S_ISREG(mode):
            yield Entry(name, mode, path)


def write_archive(entries: Iterable[Entry], to: Path) -> None:
    """Write the entries in order; a folder has to come before its contents."""
    with to.open("wb") as stream:
        for number, entry in enumerate(entries, 1):
            _header(stream, entry, number)
            if isinstance(entry.content, bytes):
                stream.write(entry.content)
            else:
                with entry.content.open("rb") as source:
                    while block := source.read(_BLOCK):
                        stream.write(block)
            _pad(stream)
        _header(stream, Entry(_LAST, 0), 0)


def _header(stream: BinaryIO, entry: Entry, number: int) -> None:
    name = entry.name.encode() + b"\0"
    # inode, mode, owner, group, links, time, size, device (2), its own device (2), name, check
    fields = (number, entry.mode, 0, 0, 1, 0, entry.size, 0, 0, *entry.device, len(name), 0)
    stream.write(b"070701" + b"".join(b"%08x" % field for field in fields) + name)
    _pad(stream)


def _pad(stream: BinaryIO) -> None:
    stream.write(b"\0" * (-stream.tell() % 4))
