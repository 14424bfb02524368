"""The command line of `edgekd diagnose`."""

from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli.options import AsJson


def diagnose(
    model: Annotated[
        Path, typer.Argument(help="A finished run's folder, or the float .onnx or .tflite file.")
    ],
    quantized: Annotated[
        Path | None, typer.Argument(help="The quantized file; without it an ONNX is calibrated.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Which target of the run, or whose scheme to calibrate for.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Samples for files: an .npz, a .npy, or a folder of .npy files."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the layers to this .svg or .html file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find the layers of a quantized model that cost accuracy, and what would help each."""
    from edgekd.api import diagnose as run
    from edgekd.benchmark.plot import check_plot
    from edgekd.report.diagnosis import diagnosis_lines, diagnosis_picture
    from edgekd.store import write_beside

    if plot is not None:
        check_plot(plot)
    diagnosis = run(model, quantized, target=target, data=data)
    if as_json:
        typer.echo(diagnosis.model_dump_json(indent=1))
    else:
        typer.echo("\n".join(diagnosis_lines(diagnosis)))
    if plot is not None:
        svg = diagnosis_picture(diagnosis, page=False)
        page = f'<!doctype html><meta charset="utf-8"><title>{model.name}</title>{svg}'
        write_beside(plot, svg if plot.suffix.lower() == ".svg" else page)
