"""From an int32 sum, or a float, to an integer of a grid, in one order of operations everywhere.

A product in float32 is rounded half to even after it was clamped, as the quantized graph and ONNX
Runtime round. The clamp between keeps compilers from contracting product and rounding.
"""

from typing import Any

from edgekd.backends.tvm.integers.grid import Grid

ROUND = "llvm.lrint"
"""LLVM's rounding half to even to an integer, one instruction on most processors. TVM does not
vectorize its own, and its simplifier drops a large number that is added and subtracted again."""


def requantized(total: Any, factor: Any, grid: Grid) -> Any:
    """int32 `total` times float32 `factor` on the grid."""
    return rounded(total.astype("float32") * factor, grid)


def rounded(steps: Any, grid: Grid) -> Any:
    """A float number of steps from the zero point as an integer of the grid."""
    from tvm import tirx

    low = tirx.const(float(grid.low - grid.zero_point), "float32")
    high = tirx.const(float(grid.high - grid.zero_point), "float32")
    clamped = tirx.max(tirx.min(steps, high), low)
    whole = tirx.call_llvm_pure_intrin("int32", ROUND, clamped)
    return (whole + tirx.const(grid.zero_point, "int32")).astype(grid.dtype)
