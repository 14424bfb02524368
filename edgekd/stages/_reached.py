"""What a quantization leaves as it was, and what may not be left."""

from collections.abc import Sequence

from edgekd.errors import EdgekdError, InputError
from edgekd.network.taps import is_within
from edgekd.quant.mixed import Mixed
from edgekd.quant.reach import Reach, strict_faults
from edgekd.stages._coverage import untouched_of


def left_by(reach: Reach, floats: Sequence[str]) -> str:
    """What the quantization left, as shares of parameters and MACs by kind of layer."""
    touched = {layer for layer in reach.layers if not is_within(layer, floats)}
    text = untouched_of(reach.costs, sum(cost.parameters for cost in reach.costs), touched)
    return f"; {text}" if text else ""


def all_in_integers(
    reach: Reach, dtype: str, mixed: Mixed | None, ignored: Sequence[str], where: str
) -> list[EdgekdError]:
    """The faults of a stage that may leave nothing in float."""
    if dtype != "int8":
        text = f"{dtype} computes in float"
        return [InputError(text, where=f"{where}.strict", hint='dtype = "int8"')]
    if mixed is not None:
        text = "strict leaves nothing in float, and mixed does"
        return [InputError(text, where=f"{where}.mixed", hint="remove 'mixed' or 'strict'")]
    return strict_faults(reach, ignored, where)
