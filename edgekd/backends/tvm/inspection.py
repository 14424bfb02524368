"""What a library that TVM compiled says about itself, read without loading it."""

from pathlib import Path

from edgekd.formats.library import read_library
from edgekd.values.inspection import Inspection
from edgekd.values.target import Target


def inspect_library(path: Path, target: Target | None) -> Inspection:
    """The kernels, machine and sizes of a library that TVM compiled, judged for a target if one is
    given. Raises `InputError` for any other file."""
    library = read_library(path)
    notes = []
    if not library.kernels:
        notes.append("it exports no TVM kernels")
    if target is not None and library.machine != target.hardware.architecture:
        notes.append(
            f"compiled for {library.machine}; {target.name} is {target.hardware.architecture}"
        )
    if target is not None and target.accelerator("cuda") is not None and not library.gpu_code:
        notes.append("it contains no GPU machine code")
    unknown = "a compiled library does not record it"
    return Inspection(
        path=path,
        format="so",
        file_bytes=path.stat().st_size,
        ops=dict.fromkeys(library.kernels, 1),
        dtypes={},
        notes=tuple(notes),
        reasons={"parameter_bytes": unknown, "activation_bytes": unknown},
        facts={
            "machine": library.machine,
            "gpu_code": library.gpu_code or "none",
            "read_only_bytes": library.constant_bytes,
        },
    )
