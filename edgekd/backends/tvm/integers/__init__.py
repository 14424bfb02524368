"""The quantized graph as integer kernels: what is recognized, its arithmetic and its schedules.

`reading` turns the graph into `steps` without TVM, so that the plan can say what stays in float.
`lower` writes these as a Relax module of kernels over 8-bit tensors, images with channels last.
"""
