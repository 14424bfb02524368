"""An ONNX file as a PyTorch module, which stages can quantize and backends compile.

Each operator has one function in `shapes`, `pointwise`, `tensors` or `images`; operators with
weights become layers (`layers`). A file with an operator that none of them covers is not converted.
"""

from edgekd.network.onnx_module.convert import module_of_onnx
from edgekd.network.onnx_module.table import covered

__all__ = ["covered", "module_of_onnx"]
