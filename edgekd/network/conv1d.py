"""transformers' `Conv1D`: a linear layer x W + b whose weight is (in, out), as in GPT-2. It is
recognized by its attributes, so that transformers need not be imported.
"""

from typing import Any

from torch import Tensor, nn


def is_linear_by_columns(layer: nn.Module) -> bool:
    """Whether a layer is a `Conv1D`."""
    named = type(layer).__name__ == "Conv1D" and isinstance(getattr(layer, "nf", None), int)
    weight = getattr(layer, "weight", None)
    return named and not isinstance(layer, nn.Conv1d) and getattr(weight, "ndim", 0) == 2


def linear_matrix(layer: Any) -> Tensor:
    """The (out, in) weight matrix of an `nn.Linear` or `Conv1D`, detached from the graph."""
    weight: Tensor = layer.weight.detach()
    return weight.T if is_linear_by_columns(layer) else weight
