"""Whether an artifact computes what its reference does, in steps of the output scale (LSB)."""

from typing import Literal

from pydantic import FiniteFloat, NonNegativeInt

from edgekd.config import Value


class Histogram(Value):
    """How many outputs differ by how much.

    `counts[i]` is the number of outputs with `edges[i] <= difference < edges[i + 1]`; the last bin
    has no upper edge. `edges` are as many as `counts`, in `unit`: LSB, or relative error.
    """

    unit: Literal["lsb", "relative"]
    edges: tuple[FiniteFloat, ...]
    counts: tuple[NonNegativeInt, ...]


class Parity(Value):
    """An artifact's outputs held against the reference's, over the same inputs.

    `max_lsb` and `mean_lsb` are |difference| / output scale: set for quantized artifacts. Float
    ones have `max_relative` and `mean_relative` instead: |difference| over the reference's largest
    magnitude. `tolerance` is the most that passes, in the same unit. `worst_sample` is the index
    of the input with the largest difference and `worst_output` the output in it;
    `first_difference` names the first layer that differs, once `first_difference()` has looked.
    """

    reference: str
    samples: NonNegativeInt
    top1_agreement: FiniteFloat
    verdict: Literal["pass", "fail"]
    tolerance: FiniteFloat
    histogram: Histogram
    max_lsb: FiniteFloat | None = None
    mean_lsb: FiniteFloat | None = None
    max_relative: FiniteFloat | None = None
    mean_relative: FiniteFloat | None = None
    worst_sample: NonNegativeInt
    worst_output: NonNegativeInt
    worst_reference: FiniteFloat
    worst_value: FiniteFloat
    first_difference: str = ""
    reason: str = ""
