"""What would help a layer, read from its diagnosis: the cause, the repair, its gain, its cost."""

from collections.abc import Mapping, Sequence

import numpy as np

from edgekd.measure.diagnosis import LayerDiagnosis, Repair
from edgekd.measure.diagnosis.pair import Grid, Pair, PairedLayer

SATURATED = 0.01
"""More outputs than this share beyond the grid are a fault of its range."""
USED = 0.25
"""A range of which less than this share is reached wastes two bits or more."""
OUTLIER = 12.0
"""Of 10,000 normal weights the largest is about 4 root mean squares; of a heavy tail about 8."""
LOAD = 0.5
NOTICEABLE = 0.5
"""A gain below this many dB is no repair."""


def advised(
    rows: Sequence[LayerDiagnosis],
    pair: Pair,
    floats: Mapping[str, np.ndarray],
    whole: float,
    wide: str = "",
) -> list[LayerDiagnosis]:
    """The rows with their causes and repairs; `whole` is the final error in dB, `wide` what
    activations of 16 bits cost, if the file can have them."""
    layers = {layer.name: layer for layer in pair.layers}
    return [
        row.model_copy(update=_advice(row, layers[row.layer], floats, (whole, wide), len(rows)))
        for row in rows
    ]


def _advice(
    row: LayerDiagnosis,
    layer: PairedLayer,
    floats: Mapping[str, np.ndarray],
    final: tuple[float, str],
    count: int,
) -> dict[str, tuple[object, ...]]:
    causes: list[str] = []
    repairs: list[Repair] = []
    values, grid = floats[layer.floating_output], layer.output_grid
    if grid is not None:
        _range(row, values, grid, causes, repairs)
    _input_range(layer, floats, causes, repairs)
    _weights(row, layer, causes, repairs)
    if row.bias_load is not None and row.bias_load > LOAD:
        causes.append(f"a bias reaches {100 * row.bias_load:.0f} % of an int32 accumulator")
        words = "a larger input or weight scale for this layer, or its bias in float"
        repairs.append(Repair(what=words))
    _in_float(row, layer, final[0], repairs)
    _in_16_bits(row, *final, repairs)
    if not causes and row.error_share is not None and SPREAD < row.error_share < 4 / count:
        words = "its error is rounding alone, and no larger than that of its neighbours"
        repairs.append(Repair(what="QAT of the whole network", gain=words))
    return {"causes": tuple(causes), "repairs": tuple(repairs)}


SPREAD = 0.05
"""A layer with less of the final noise needs no repair of its own."""


def _range(
    row: LayerDiagnosis, values: np.ndarray, grid: Grid, causes: list[str], repairs: list[Repair]
) -> None:
    """Saturation and dead range: the error on a grid over the whole range of the samples."""
    now = row.grid_sqnr if row.grid_sqnr is not None else 0.0
    low, high = min(row.low or 0.0, 0.0), max(row.high or 0.0, 0.0)
    better = _grid_over(low, high, grid)
    gain = _sqnr(values, better.rounded(values)) - now
    if row.saturated and row.saturated > SATURATED:
        causes.append(f"{100 * row.saturated:.1f} % of its outputs are beyond its grid "
                      f"[{grid.low:.3g}, {grid.high:.3g}]")  # fmt: skip
        words = f"widen its range to [{low:.3g}, {high:.3g}]"
        repairs.append(Repair(what=words, gain=f"its grid: {now:.0f} to {now + gain:.0f} dB",
                              cost="none at run time"))  # fmt: skip
    elif row.used is not None and row.used < USED:
        causes.append(f"its outputs reach {100 * row.used:.1f} % of its grid "
                      f"[{grid.low:.3g}, {grid.high:.3g}]")  # fmt: skip
        words = f"narrow its range to [{low:.3g}, {high:.3g}]"
        repairs.append(Repair(what=words, gain=f"its grid: {now:.0f} to {now + gain:.0f} dB",
                              cost="none at run time"))  # fmt: skip
    spread = channel_spread(values)
    if spread is not None and spread > 30 and now < 25:
        causes.append(f"one channel's outputs are {spread:.0f} times those of the median channel")
        repairs.append(Repair(what="equalize its channels with the next layer, or split the range",
                              cost="none at run time"))  # fmt: skip


def _input_range(
    layer: PairedLayer,
    floats: Mapping[str, np.ndarray],
    causes: list[str],
    repairs: list[Repair],
) -> None:
    """Saturation and dead range of an input that no other layer writes, such as a sum."""
    values, grid = floats.get(layer.floating.source), layer.input_grid
    if values is None or grid is None or not layer.owns_input:
        return
    beyond = (values < grid.low - grid.scale / 2) | (values > grid.high + grid.scale / 2)
    low, high = float(values.min()), float(values.max())
    used = (high - low) / (grid.high - grid.low)
    if beyond.mean() > SATURATED:
        words = f"{100 * beyond.mean():.1f} % of its input is beyond"
    elif used < USED:
        words = f"its input reaches {100 * used:.1f} % of"
    else:
        return
    causes.append(f"{words} the input's grid [{grid.low:.3g}, {grid.high:.3g}]")
    repairs.append(Repair(what=f"set that range to [{min(low, 0.0):.3g}, {max(high, 0.0):.3g}]",
                          cost="none at run time"))  # fmt: skip


def channel_spread(values: np.ndarray) -> float | None:
    """The largest channel's magnitude over the median channel's, for outputs (N, C, ...)."""
    if values.ndim < 2 or values.shape[1] < 4:
        return None
    largest = np.abs(values).max(axis=tuple(n for n in range(values.ndim) if n != 1))
    median = float(np.median(largest))
    return float(largest.max()) / median if median > 0 else None


def _weights(
    row: LayerDiagnosis, layer: PairedLayer, causes: list[str], repairs: list[Repair]
) -> None:
    if row.weight_sqnr is None:
        return
    weight, per_channel = layer.floating.weight, len(layer.quantized.scales) > 1
    limit = 127
    rows = weight.reshape(len(weight), -1)
    best = _rounded(rows, np.abs(rows).max(axis=1, keepdims=True) / limit)
    possible = _sqnr(rows, best)
    lacks = possible - row.weight_sqnr > 9
    if lacks and not per_channel:
        causes.append(f"one scale for all weights: {row.weight_sqnr:.0f} dB where one for each "
                      f"channel gives {possible:.0f}")  # fmt: skip
        repairs.append(Repair(what="a scale for each channel, or equalize with the layer before",
                              gain=f"its weights: {row.weight_sqnr:.0f} to {possible:.0f} dB",
                              cost="none at run time"))  # fmt: skip
    elif lacks:
        causes.append(f"its stored weights are off: {row.weight_sqnr:.0f} dB where 8 bits give "
                      f"{possible:.0f}")  # fmt: skip
        repairs.append(Repair(what="quantize its weights again from the float ones",
                              gain=f"its weights: {row.weight_sqnr:.0f} to {possible:.0f} dB",
                              cost="none at run time"))  # fmt: skip
    elif row.outlier is not None and row.outlier > OUTLIER and row.weight_sqnr < 35:
        clipped = _clipped(rows, limit)
        causes.append(f"its largest weight is {row.outlier:.0f} times the root mean square")
        repairs.append(Repair(what="clip the weight's range, or equalize with the layer before",
                              gain=f"its weights: {row.weight_sqnr:.0f} to {clipped:.0f} dB",
                              cost="none at run time"))  # fmt: skip


def _in_float(
    row: LayerDiagnosis,
    layer: PairedLayer,
    whole: float,
    repairs: list[Repair],
) -> None:
    """Keeping the layer in float, where it is known to help."""
    if row.restored_sqnr is None or row.restored_sqnr - whole < NOTICEABLE:
        return
    cost = f"{3 * layer.floating.weight.size:,} more bytes in float"
    if row.cost is not None and row.float_cost is not None:
        cost += f"; {row.float_cost:,.3g} us in float where integers take {row.cost:,.3g}"
    repairs.append(Repair(what="keep it in float",
                          gain=f"final output: {whole:.1f} to {row.restored_sqnr:.1f} dB",
                          cost=cost, recipe=f'ignore = ["{row.layer}"]'))  # fmt: skip


def _in_16_bits(row: LayerDiagnosis, whole: float, wide: str, repairs: list[Repair]) -> None:
    """Activations of 16 bits for the layer, where they help and the file can have them."""
    if not wide or row.wide_sqnr is None or row.wide_sqnr - whole < NOTICEABLE:
        return
    cost = "2 bytes for each value that it reads and writes"
    if row.cost_share is not None:
        cost += f"; it takes {100 * row.cost_share:.2g} % of the time, and {wide}"
    else:
        cost += f"; {wide}"
    repairs.append(Repair(what="give what it reads and writes 16 bits",
                          gain=f"final output: {whole:.1f} to {row.wide_sqnr:.1f} dB",
                          cost=cost, recipe=f'int16_layers = ["{row.layer}"]'))  # fmt: skip


def _grid_over(low: float, high: float, like: Grid) -> Grid:
    steps = like.most - like.least
    scale = (high - low) / steps or like.scale
    return Grid(scale, round(like.least - low / scale), like.least, like.most)


def _rounded(rows: np.ndarray, steps: np.ndarray) -> np.ndarray:
    safe = np.where(steps > 0, steps, 1.0)
    result: np.ndarray = np.rint(rows / safe) * safe
    return result


def _clipped(rows: np.ndarray, limit: int) -> float:
    """The best error over ranges that are cut off to a share of the largest weight."""
    best = -200.0
    for share in np.linspace(0.2, 1.0, 17):
        steps = share * np.abs(rows).max(axis=1, keepdims=True) / limit
        safe = np.where(steps > 0, steps, 1.0)
        found = np.clip(np.rint(rows / safe), -limit, limit) * safe
        best = max(best, _sqnr(rows, found))
    return best


def _sqnr(expected: np.ndarray, found: np.ndarray) -> float:
    noise = float(np.square(expected - found).sum())
    signal = float(np.square(expected).sum())
    return min(200.0, 10 * float(np.log10(signal / noise))) if signal and noise else 200.0
