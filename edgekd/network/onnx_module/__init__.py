"""An ONNX file as a PyTorch module, which stages can quantize and backends compile.

Each operator has one function in `shapes`, `pointwise`, `tensors` or `images`; operators with
weights become layers (`layers`). A file with an operator that none of them covers is not converted.
`convert.module_of_onnx` does it, `coverage.covered` names the operators.
"""
