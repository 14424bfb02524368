"""The diagnosis of a pair of files."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.measure.diagnosis import Diagnosis, LayerDiagnosis
from edgekd.measure.diagnosis.pair import LINEAR, Pair, PairedLayer
from edgekd.measure.diagnosis.repair import advised
from edgekd.measure.diagnosis.tensors import inner_values
from edgekd.measure.diagnosis.trials import (
    final_outputs,
    in_16_bits,
    is_editable,
    marked,
    quantized_alone,
    restored,
)
from edgekd.measure.layer_times import LayerTimes
from edgekd.values.progress import Progress, silent

ACCUMULATOR = 2.0**31


def sqnr(expected: np.ndarray, found: np.ndarray) -> float:
    """10 log10(sum e^2 / sum (e - f)^2) in dB, at most 200."""
    noise = float(np.square(expected - found).sum())
    signal = float(np.square(expected).sum())
    if not signal:
        return 200.0 if not noise else -200.0
    return min(200.0, 10 * math.log10(signal / noise)) if noise else 200.0


def diagnose_pair(
    pair: Pair,
    inputs: Sequence[np.ndarray],
    times: LayerTimes | None = None,
    float_times: LayerTimes | None = None,
    progress: Progress = silent,
    wide: str = "",
) -> Diagnosis:
    """Every layer of the quantized file, the worst first.

    `inputs` are samples (N, ...), channels first, one array for each input. `times` are those of
    the quantized file, `float_times` those of the float one. `wide` says what activations of 16
    bits cost where the file runs, if it can have them. Raises `InputError` if a file does not
    run on them.
    """
    keys = [[layer.floating_output for layer in pair.layers],
            [layer.quantized_output for layer in pair.layers]]  # fmt: skip
    sources = [
        layer.floating.source
        for layer in pair.layers
        if layer.owns_input and layer.input_grid is not None
    ]
    floats = inner_values(pair.floating_path, pair.floating, inputs,
                          [*keys[0], *sources, *pair.floating.outputs])  # fmt: skip
    integers = inner_values(pair.quantized_path, pair.quantized, inputs,
                            [*keys[1], *pair.quantized.outputs], _linear_grids(pair))  # fmt: skip
    final = [_joined(found, graph.outputs)
             for found, graph in ((floats, pair.floating), (integers, pair.quantized))]  # fmt: skip
    trials = _trials(pair, inputs, final[0], progress)
    whole = sqnr(*final)
    rows = [_row(layer, floats, integers, (times, float_times), trials.get(layer.name))
            for layer in pair.layers]  # fmt: skip
    rows = advised(rows, pair, floats, whole, wide)
    notes = [f"no counterpart in the quantized file: {', '.join(pair.unmatched[:4])}"
             ] if pair.unmatched else []  # fmt: skip
    if not trials:
        notes.append("the final error by layer needs two ONNX files: layers are ranked by the "
                     "error of their own weights and grids")  # fmt: skip
    ranked = sorted(rows, key=lambda row: badness(row, len(rows)), reverse=True)
    return Diagnosis(
        reference=pair.floating_path.name, file=pair.quantized_path.name, samples=len(inputs[0]),
        final_sqnr=whole, layers=tuple(ranked),
        unit=times.unit if times and times.rows else "",
        cost_kind=times.kind if times and times.rows else "unavailable", notes=tuple(notes),
    )  # fmt: skip


def _linear_grids(pair: Pair) -> dict[str, tuple[float, int]]:
    """The grids of operators that take integers and grids in one, whose tensors have none."""
    return {
        layer.quantized_output: (layer.output_grid.scale, layer.output_grid.zero_point)
        for layer in pair.layers
        if layer.quantized.op.startswith(LINEAR) and layer.output_grid is not None
        and not pair.quantized.tensors[layer.quantized_output].scales
    }  # fmt: skip


def badness(row: LayerDiagnosis, count: int) -> tuple[bool, float]:
    """How bad a layer is among `count`: first those with a cause that makes more than an equal part
    of the final noise, which a repair takes away, then the others, whose error is rounding; by
    their share of the noise, or by the noise of their own weights and grid where that is not known.
    """
    own = [value for value in (row.weight_sqnr, row.grid_sqnr) if value is not None]
    if row.error_share is None:
        return bool(row.causes), float(sum(10 ** (-value / 10) for value in own))
    return bool(row.causes) and row.error_share >= 1 / count, row.error_share


def _joined(found: Mapping[str, np.ndarray], keys: Sequence[str]) -> np.ndarray:
    return np.concatenate([found[key].reshape(len(found[key]), -1) for key in keys], axis=1)


@dataclass(frozen=True)
class _Trial:
    alone: float
    share: float
    left: float | None
    wide: float | None


def _trials(
    pair: Pair, inputs: Sequence[np.ndarray], expected: np.ndarray, progress: Progress
) -> dict[str, _Trial]:
    """What quantizing one layer does to the final output, and what leaving one in float does."""
    if not is_editable(pair):
        return {}
    import onnx

    floating, quantized = (marked(_loaded(onnx, path))
                           for path in (pair.floating_path, pair.quantized_path))  # fmt: skip
    noises: dict[str, float] = {}
    left: dict[str, float | None] = {}
    wide: dict[str, float | None] = {}
    for done, layer in enumerate(pair.layers):
        progress("one layer at a time", done, len(pair.layers))
        found = _outputs(lambda layer=layer: quantized_alone(floating, [layer]), inputs)  # type: ignore[misc]
        if found is not None:
            noises[layer.name] = float(np.square(expected - found).sum())
        for made, repaired in ((left, restored), (wide, in_16_bits)):
            found = None
            if not layer.quantized.op.startswith(LINEAR):
                found = _outputs(
                    lambda layer=layer, repaired=repaired: repaired(quantized, pair, [layer]),  # type: ignore[misc]
                    inputs,
                )
            made[layer.name] = None if found is None else sqnr(expected, found)
    total, signal = sum(noises.values()) or 1.0, float(np.square(expected).sum())
    return {
        name: _Trial(_decibels(signal, noise), noise / total, left[name], wide[name])
        for name, noise in noises.items()
    }


def _decibels(signal: float, noise: float) -> float:
    return min(200.0, 10 * math.log10(signal / noise)) if signal and noise else 200.0


def _loaded(onnx: Any, path: Path) -> Any:
    from edgekd.formats.onnx_steps import unfold_steps

    return unfold_steps(onnx.load(path))


def _outputs(make: Callable[[], Any], inputs: Sequence[np.ndarray]) -> np.ndarray | None:
    """The outputs of an edited model, None where the edit gives no valid one."""
    try:
        return final_outputs(make(), inputs)
    except Exception as error:
        if type(error).__module__.startswith(("onnxruntime", "onnx")):
            return None
        raise


def _row(
    layer: PairedLayer,
    floats: Mapping[str, np.ndarray],
    integers: Mapping[str, np.ndarray],
    both: tuple[LayerTimes | None, LayerTimes | None],
    trial: _Trial | None,
) -> LayerDiagnosis:
    expected, found = floats[layer.floating_output], integers[layer.quantized_output]
    grid, cost = layer.output_grid, _cost(layer, both[0])
    same = layer.floating.weight.size == layer.quantized.weight.size
    low, high = float(expected.min()), float(expected.max())
    return LayerDiagnosis(
        layer=layer.name,
        operator=layer.quantized.op,
        output_sqnr=sqnr(expected, found) if expected.shape == found.shape else None,
        weight_sqnr=sqnr(layer.floating.weight.reshape(-1), layer.quantized.weight.reshape(-1))
        if same else None,
        grid_sqnr=None if grid is None else sqnr(expected, grid.rounded(expected)),
        alone_sqnr=trial.alone if trial else None,
        error_share=trial.share if trial else None,
        restored_sqnr=trial.left if trial else None,
        wide_sqnr=trial.wide if trial else None,
        low=low, high=high,
        grid_low=grid.low if grid else None, grid_high=grid.high if grid else None,
        saturated=None if grid is None else _saturated(expected, grid.low, grid.high, grid.scale),
        used=None if grid is None else min(1.0, (high - low) / (grid.high - grid.low)),
        outlier=_outlier(layer), bias_load=_bias_load(layer),
        cost=cost[0], cost_share=cost[1], float_cost=_cost(layer, both[1])[0],
    )  # fmt: skip


def _saturated(values: np.ndarray, low: float, high: float, step: float) -> float:
    """The share of values more than half a step beyond the grid."""
    beyond = (values < low - step / 2) | (values > high + step / 2)
    return float(beyond.mean())


def _outlier(layer: PairedLayer) -> float | None:
    """The largest weight over the root mean square of the weights on the same scale, at worst."""
    weight = layer.floating.weight
    rows = (
        weight.reshape(len(weight), -1)
        if len(layer.quantized.scales) > 1
        else weight.reshape(1, -1)
    )
    roots = np.sqrt(np.square(rows).mean(axis=1))
    ratios = np.abs(rows).max(axis=1)[roots > 0] / roots[roots > 0]
    return float(ratios.max()) if ratios.size else None


def _bias_load(layer: PairedLayer) -> float | None:
    """The largest bias in steps of the accumulator, as a share of an int32."""
    bias, grid, scales = layer.floating.bias, layer.input_grid, layer.quantized.scales
    if bias is None or grid is None or not scales:
        return None
    steps = np.asarray(scales if len(scales) == len(bias) else scales[:1]) * grid.scale
    loads = np.abs(bias) / np.where(steps > 0, steps, np.inf) / ACCUMULATOR
    return float(loads.max())


def _cost(layer: PairedLayer, times: LayerTimes | None) -> tuple[float | None, float | None]:
    rows = [row for row in times.rows if _same(row.layer, layer)] if times else []
    if not rows:
        return None, None
    return sum(row.value for row in rows), sum(row.share for row in rows)


def _same(name: str, layer: PairedLayer) -> bool:
    own = {layer.name, layer.floating.name, layer.quantized.name}
    flat = name.replace(".", "_")
    return any(flat == each.replace(".", "_") for each in own)
