"""Clamps, and what they are on a grid."""

from typing import Any

import torch
from torch import fx

aten = torch.ops.aten

_NONE, _SIX = (0.0, None), (0.0, 6.0)
_FIXED = {
    aten.relu.default: _NONE,
    aten.relu_.default: _NONE,
    aten.relu6.default: _SIX,
    aten.relu6_.default: _SIX,
}
_NAMED = {
    aten.hardtanh.default: ("min_val", "max_val", (-1.0, 1.0)),
    aten.hardtanh_.default: ("min_val", "max_val", (-1.0, 1.0)),
    aten.clamp.default: ("min", "max", (None, None)),
    aten.clamp_min.default: ("min", "", (None, None)),
}

Bounds = tuple[float | None, float | None]


def clamp_bounds(node: fx.Node) -> Bounds | None:
    """The bounds of a clamp; None for another operator, or bounds that are computed."""
    if node.target in _FIXED:
        return _FIXED[node.target]
    if node.target not in _NAMED:
        return None
    least, most, defaults = _NAMED[node.target]
    given: list[Any] = [
        node.args[place] if len(node.args) > place else node.kwargs.get(name, default)
        for place, name, default in ((1, least, defaults[0]), (2, most, defaults[1]))
    ]
    return None if any(isinstance(bound, fx.Node) for bound in given) else (given[0], given[1])


def saturates(bounds: Bounds, grid: tuple[Any, ...]) -> bool:
    """Whether a grid (scale, zero point, lowest, highest, type) ends at the bounds or before them,
    so that quantizing alone clamps the values."""
    scale, zero, low, high, *_ = grid
    least, most = bounds
    return (least is None or round(least / scale) + zero <= low) and (
        most is None or round(most / scale) + zero >= high
    )
