"""transformers' `Conv1D`: a linear layer x W + b whose weight is (in, out), as in GPT-2.

It is known by what it is, not by its class, so that transformers is never imported for it.
"""

from typing import Any

from torch import Tensor, nn


def is_linear_by_columns(layer: nn.Module) -> bool:
    """Whether a layer is one of them."""
    named = type(layer).__name__ == "Conv1D" and isinstance(getattr(layer, "nf", None), int)
    weight = getattr(layer, "weight", None)
    return named and not isinstance(layer, nn.Conv1d) and getattr(weight, "ndim", 0) == 2


def linear_matrix(layer: Any) -> Tensor:
    """(out, in) the matrix of `nn.Linear`, or of one of these, without a gradient."""
    weight: Tensor = layer.weight.detach()
    return weight.T if is_linear_by_columns(layer) else weight
