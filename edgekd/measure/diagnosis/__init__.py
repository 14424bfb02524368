"""What each layer of a quantized file costs in accuracy, found from a pair of files: the float one
and the quantized one, in ONNX or TFLite, whoever made them."""

from edgekd.values.measurement import Kind
from edgekd.values.tables import Value


class Repair(Value):
    """One change that would help a layer, what it is predicted to gain and what it costs; `recipe`
    is the line of a quantize stage that makes it."""

    what: str
    gain: str = ""
    cost: str = ""
    recipe: str = ""


class LayerDiagnosis(Value):
    """One layer. Signal-to-noise ratios are in dB, shares from 0 to 1; None is unknown.

    `output_sqnr` is the error at the layer's own output in the quantized file, with the errors of
    the layers before it; `weight_sqnr` that of its weights, `grid_sqnr` that of putting the float
    output on its grid. `alone_sqnr` is the error of the final output if only this layer is
    quantized, `error_share` its noise as a share of the sum over layers, and `restored_sqnr` the
    error of the final output if this layer alone is left in float, `wide_sqnr` if what it reads and
    writes has 16 bits. `saturated` is the share of
    float outputs beyond the grid, and `used` the part of the grid's range that they reach.
    `outlier` is the largest weight over the root mean square of its grid's weights, at worst.
    `bias_load` is the largest bias as a share of an int32 accumulator. `cost` is the layer's time
    (or instructions) in the quantized file, `float_cost` that in the float one.
    """

    layer: str
    operator: str
    output_sqnr: float | None = None
    weight_sqnr: float | None = None
    grid_sqnr: float | None = None
    alone_sqnr: float | None = None
    error_share: float | None = None
    restored_sqnr: float | None = None
    wide_sqnr: float | None = None
    low: float | None = None
    high: float | None = None
    grid_low: float | None = None
    grid_high: float | None = None
    saturated: float | None = None
    used: float | None = None
    outlier: float | None = None
    bias_load: float | None = None
    cost: float | None = None
    cost_share: float | None = None
    float_cost: float | None = None
    causes: tuple[str, ...] = ()
    repairs: tuple[Repair, ...] = ()


class Diagnosis(Value):
    """All layers of a quantized file, the worst first.

    `final_sqnr` is the error of the final output, `samples` the number of inputs. `unit` and
    `cost_kind` say what the layers' `cost` is. `notes` say what could not be found out, and why.
    """

    reference: str
    file: str
    samples: int
    final_sqnr: float
    layers: tuple[LayerDiagnosis, ...]
    unit: str = ""
    cost_kind: Kind = "unavailable"
    notes: tuple[str, ...] = ()
