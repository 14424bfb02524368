"""The command line of `edgekd unpack`."""

from pathlib import Path
from typing import Annotated

import typer


def unpack(
    file: Annotated[Path, typer.Argument(help="A .huffman file from a finished run.")],
    out: Annotated[Path | None, typer.Option(help="The file to write the model to.")] = None,
) -> None:
    """Restore an entropy-coded model, bit for bit."""
    from edgekd.quant.packed_onnx import unpack as unpacked
    from edgekd.store import read_errors, write_beside

    with read_errors(file, "a .huffman file"):
        content = unpacked(file.read_bytes(), str(file))
    path = out or file.with_name(file.name.removesuffix(".huffman") + ".unpacked.onnx")
    write_beside(path, content)
    typer.echo(f"{path}: {len(content):,} bytes")
