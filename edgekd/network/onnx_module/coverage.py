"""Which operators can be converted: importing this file registers all of them."""

from edgekd.network.onnx_module import images, pointwise, shapes, tensors  # noqa: F401
from edgekd.network.onnx_module.layers import LAYERS
from edgekd.network.onnx_module.table import OPERATORS


def covered() -> tuple[str, ...]:
    """The names of all operators that can be converted."""
    return tuple(sorted({*OPERATORS, *LAYERS}))
