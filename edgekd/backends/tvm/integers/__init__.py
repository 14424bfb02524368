"""The quantized graph as integer kernels: what is recognized, its arithmetic and its schedules.

`reading` turns the graph into steps (`steps`) without TVM, so that the plan can say beforehand what
stays in float. `lower` writes the steps as a Relax module of kernels over 8-bit tensors, images with
their channels last.
"""
