"""What a quantization left as it was."""

from collections.abc import Sequence

from edgekd.network.taps import is_within
from edgekd.quant.reach import Reach
from edgekd.stages._coverage import untouched_of


def left_by(reach: Reach, floats: Sequence[str]) -> str:
    """What the quantization left, as shares of parameters and MACs by kind of layer."""
    touched = {layer for layer in reach.layers if not is_within(layer, floats)}
    text = untouched_of(reach.costs, sum(cost.parameters for cost in reach.costs), touched)
    return f"; {text}" if text else ""
