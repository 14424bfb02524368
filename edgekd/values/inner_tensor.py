"""One tensor inside a compiled file, as its runtime computed it."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class InnerTensor:
    """One quantized tensor that a runtime computed: `values` as floats, `scale` of its grid."""

    name: str
    values: np.ndarray
    scale: float
