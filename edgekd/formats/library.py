"""A compiled library (.so) read as ELF: its processor, its kernels and the GPU code inside.

Read with `struct`: three fixed tables are all it takes, which is not worth a dependency that every
installation would need, since `edgekd inspect` reads a .so without any extra.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

from edgekd.errors import InputError
from edgekd.formats.graph import read_bytes

# ELF specification, e_machine
MACHINES = {3: "x86", 62: "x86_64", 40: "armv7", 183: "aarch64", 243: "riscv", 190: "cuda"}
FATBIN = b"\x50\xed\x55\xba"  # CUDA's fatbinary header; an embedded PTX or C source has none
CUBIN = b"\x7fELF\x02\x01\x01"


@dataclass(frozen=True)
class Library:
    """The facts in an ELF file.

    `kernels` are the exported functions that TVM calls; `constant_bytes` is its read-only data.
    `gpu_code` is "cubin" for a GPU's machine code, "fatbin" for CUDA's container of it, or "".
    """

    machine: str
    kernels: tuple[str, ...]
    constant_bytes: int
    gpu_code: str


def read_library(path: Path) -> Library:
    """The facts of a shared library. Raises `InputError` if the file is not one or is truncated."""
    content = read_bytes(path)
    if content[:4] != b"\x7fELF":
        raise InputError("not an ELF library", where=str(path))
    try:
        return _library(content)
    except (ArithmeticError, IndexError, KeyError, ValueError, struct.error) as error:
        raise InputError(f"a truncated or corrupt library: {error}", where=str(path)) from None


def _library(content: bytes) -> Library:
    wide = content[4] == 2
    if content[5] != 1:
        raise ValueError("it is big-endian")
    (machine,) = struct.unpack_from("<H", content, 18)
    sections = _sections(content, wide)
    names = sections[struct.unpack_from("<H", content, 62 if wide else 50)[0]]
    table = _slice(content, names[2], names[3])
    by_name = {_string(table, name): (offset, size) for name, _, offset, size in sections}
    if ".dynsym" not in by_name or ".dynstr" not in by_name:
        raise ValueError("it exports nothing")
    symbols = _slice(content, *by_name[".dynsym"])
    strings = _slice(content, *by_name[".dynstr"])
    exported = _functions(symbols, strings, wide)
    kernels = [
        name.removeprefix("__tvm_ffi_")
        for name in exported
        if name.startswith("__tvm_ffi_") and not name.startswith("__tvm_ffi__")
    ]
    gpu = "cubin" if content.find(CUBIN, 4) > 0 and _has_gpu_elf(content) else ""
    return Library(
        machine=MACHINES.get(machine, f"machine {machine}"),
        kernels=tuple(sorted(kernels)),
        constant_bytes=sum(size for name, (_, size) in by_name.items() if name == ".rodata"),
        gpu_code=gpu or ("fatbin" if FATBIN in content else ""),
    )


def _has_gpu_elf(content: bytes) -> bool:
    at = content.find(CUBIN, 4)
    while at > 0 and at + 20 <= len(content):
        if struct.unpack_from("<H", content, at + 18)[0] == 190:
            return True
        at = content.find(CUBIN, at + 1)
    return False


def _sections(content: bytes, wide: bool) -> list[tuple[int, int, int, int]]:
    """(name offset, type, file offset, size) of each section."""
    (start,) = struct.unpack_from("<Q" if wide else "<I", content, 40 if wide else 32)
    entry, count = struct.unpack_from("<HH", content, 58 if wide else 46)
    layout = "<IIQQQQ" if wide else "<IIIIII"
    sections = []
    for index in range(count):
        name, kind, _, _, offset, size = struct.unpack_from(layout, content, start + index * entry)
        sections.append((name, kind, offset, 0 if kind == 8 else size))  # 8: takes no file space
    return sections


def _functions(symbols: bytes, strings: bytes, wide: bool) -> list[str]:
    """Names of the functions and objects that a symbol table defines."""
    step = 24 if wide else 16
    names = []
    for at in range(0, len(symbols) - step + 1, step):
        (name,) = struct.unpack_from("<I", symbols, at)
        (section,) = struct.unpack_from("<H", symbols, at + (6 if wide else 14))
        if section:
            names.append(_string(strings, name))
    return names


def _slice(content: bytes, offset: int, size: int) -> bytes:
    if offset + size > len(content):
        raise ValueError(f"a section ends at {offset + size} of {len(content)} bytes")
    return content[offset : offset + size]


def _string(table: bytes, offset: int) -> str:
    end = table.index(b"\0", offset)
    return table[offset:end].decode("utf-8", errors="replace")
