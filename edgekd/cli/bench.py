"""The command line of `edgekd bench`."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from edgekd.cli.options import AsJson
from edgekd.errors import Collector, InputError, Interrupted, raise_all

FULL_S, QUICK_S = 62.0, 2.0
"""The time per file, including warm-up, unless the model is slow."""


def bench(
    artifact: Annotated[list[Path], typer.Argument(help="One or more model files.")],
    target: Annotated[
        str | None,
        typer.Option(help="A target's name or .toml file; none by default."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="host, ssh://BOARD, or emulated://NAME.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Measure briefly.")] = False,
    baseline: Annotated[
        Path | None, typer.Option(help="Report each file's ratio to this one.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Thread count.")] = None,
    affinity: Annotated[str | None, typer.Option(help="CPU cores to pin to, such as 2,3.")] = None,
    provider: Annotated[
        str | None,
        typer.Option(
            help="ONNX Runtime's execution provider: cpu, cuda, xnnpack, or its full name."
        ),
    ] = None,
    delegate: Annotated[
        str | None, typer.Option(help="A LiteRT delegate: the path of its shared library.")
    ] = None,
    delegate_option: Annotated[
        list[str] | None, typer.Option(help="An option of the delegate, as KEY=VALUE; repeatable.")
    ] = None,
    kernels: Annotated[
        str | None, typer.Option(help="LiteRT's kernels: optimized or reference.")
    ] = None,
    end_to_end: Annotated[
        bool,
        typer.Option(
            "--end-to-end", help="Include quantization and layout conversion in the latency."
        ),
    ] = False,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            help="An input's shape if the file leaves it open: x=1,3,224,224[:DTYPE]; repeatable."
        ),
    ] = None,
    input_range: Annotated[
        list[str] | None,
        typer.Option("--input", help="An input's range of values: ids=0..30521; repeatable."),
    ] = None,
    signature: Annotated[
        str | None, typer.Option(help="The signature of a TFLite file that has several.")
    ] = None,
    budget: Annotated[
        list[str] | None, typer.Option(help="A budget, such as latency_ms=5; repeatable.")
    ] = None,
    accept: Annotated[
        list[str] | None, typer.Option(help="Let simulated or estimated values satisfy a budget.")
    ] = None,
    meter: Annotated[
        str | None, typer.Option(help="A command that prints lines of SECONDS WATTS.")
    ] = None,
    meter_format: Annotated[
        str,
        typer.Option(
            help="The meter's output: watts, nvidia-smi, tegrastats or tegrastats:RAIL+RAIL."
        ),
    ] = "watts",
    per_layer: Annotated[
        bool, typer.Option("--per-layer", help="Also list the time of each operator.")
    ] = False,
    predict: Annotated[
        bool,
        typer.Option(
            "--predict", help="Estimate latencies from files measured with --per-layer; run none."
        ),
    ] = False,
    throughput: Annotated[
        bool, typer.Option("--throughput", help="Also measure samples per second.")
    ] = False,
    batches: Annotated[
        str | None, typer.Option(help="With --throughput: batches, such as 1,8.")
    ] = None,
    streams: Annotated[
        str | None,
        typer.Option(help="With --throughput: copies that run side by side, such as 1,4."),
    ] = None,
    as_json: AsJson = False,
    plot: Annotated[
        Path | None, typer.Option(help="Plot the samples to this .svg or .html file.")
    ] = None,
) -> None:
    """Measure model files on a device, interleaved in one process, and check budgets."""
    from edgekd.benchmark.files import bench_files as run
    from edgekd.benchmark.options import parse_range
    from edgekd.benchmark.plot import check_plot, write_plot
    from edgekd.benchmark.text import bench_lines
    from edgekd.devices.opening import open_device
    from edgekd.measure.budgets import EXIT_CODES, run_verdict
    from edgekd.measure.meters.external import check_meter
    from edgekd.values.target import load_target

    options = {
        "threads": threads, "affinity": affinity, "provider": provider, "delegate": delegate,
        "delegate_options": delegate_option, "kernels": kernels,
        "scope": "end-to-end" if end_to_end else None, "signature": signature,
    }  # fmt: skip
    collect = Collector()
    wanted = _wanted(options, shape or [], budget or [], accept or [], collect)
    ranges = [collect.attempt(parse_range, text) for text in input_range or []]
    wanted = wanted.model_copy(update={"ranges": tuple(ranges)})
    load = collect.attempt(_load, throughput, batches, streams)
    wanted = wanted.model_copy(update={"per_layer": per_layer, "load": load})
    collect.attempt(check_meter, meter, meter_format)
    wanted = wanted.model_copy(update={"meter": meter or "", "meter_format": meter_format})
    if plot is not None:
        collect.attempt(check_plot, plot)
    profile = collect.attempt(load_target, target) if target else None
    raise_all(collect.faults)
    files = len({*artifact, *([baseline] if baseline else [])})
    opened = open_device(device or "host", progress=_teller(files * (QUICK_S if quick else FULL_S)))
    if predict:
        _predict(artifact, profile, opened, wanted, as_json)
        return
    try:
        results = run(artifact, profile, opened, quick=quick, baseline=baseline, wanted=wanted)
    except KeyboardInterrupt:
        raise Interrupted("interrupted: the results are discarded", hint="run it again") from None
    finally:
        opened.close()
        _teller(0.0)(0.0)
    if as_json:
        typer.echo(json.dumps([result.model_dump(mode="json") for result in results], indent=1))
    else:
        typer.echo("\n".join(bench_lines(results)))
    if plot is not None:
        write_plot(results, plot)
    verdict = run_verdict([judgement for result in results for judgement in result.budgets])
    raise typer.Exit(EXIT_CODES[verdict])


def _predict(paths: list[Path], target: Any, device: Any, wanted: Any, as_json: bool) -> None:
    """Print what the files are estimated to take on a device."""
    from edgekd.benchmark.prediction import predict_files

    try:
        found = predict_files(paths, target, device, wanted)
    finally:
        device.close()
    if as_json:
        typer.echo(json.dumps([each.model_dump(mode="json") for each in found], indent=1))
        return
    typer.echo("\n".join(each.text for each in found))


def _load(throughput: bool, batches: str | None, streams: str | None) -> Any:
    """The batches and streams to measure, or None. Raises `InputError` for numbers that are none,
    or that are given without --throughput."""
    from edgekd.benchmark.options import parse_counts
    from edgekd.benchmark.throughput import Load

    given = {"--batches": batches, "--streams": streams}
    named = [name for name, text in given.items() if text]
    if not throughput:
        if named:
            raise InputError("it is for throughput", where=named[0], hint="add --throughput")
        return None
    return Load(**{name[2:]: parse_counts(given[name] or "", name) for name in named})


def _teller(whole_s: float) -> Callable[[float], None]:
    """Show progress on a terminal, once per window, because redrawing a bar would disturb the
    measurement. A total of 0 s clears the line."""

    def tell(seconds: float) -> None:
        text = f"measuring: {seconds:.0f} s of about {whole_s:.0f} s" if whole_s else ""
        typer.echo(f"\r\033[K{text}", nl=False, err=True)

    return tell if sys.stderr.isatty() else lambda seconds: None


def _wanted(
    options: dict[str, Any], shapes: list[str], budgets: list[str], accept: list[str],
    collect: Collector,
) -> Any:  # fmt: skip
    """The parsed options; faults are added to `collect`."""
    from edgekd.benchmark.files import Wanted
    from edgekd.benchmark.options import parse_affinity, parse_pairs, parse_shape
    from edgekd.measure.budgets import check_accept, parse_budget

    collect.faults += check_accept(accept)
    given = {key: value for key, value in options.items() if value}
    if "affinity" in given:
        given["affinity"] = collect.attempt(parse_affinity, given["affinity"])
    if "delegate_options" in given:
        pairs = given["delegate_options"]
        given["delegate_options"] = collect.attempt(parse_pairs, pairs, "--delegate-option")
    if given.get("kernels", "optimized") not in ("optimized", "reference"):
        allowed = "optimized, reference"
        fault = InputError(f"'{given['kernels']}'", where="--kernels", allowed=allowed)
        collect.faults.append(fault)
    parsed = [collect.attempt(parse_shape, text) for text in shapes]
    limits = [collect.attempt(parse_budget, text) for text in budgets]
    if collect.faults:
        return Wanted()
    return Wanted(
        options=given,
        shapes=tuple(parsed),
        budgets=dict(limit for limit in limits if limit),
        accept=tuple(accept),
    )
