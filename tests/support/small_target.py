"""A target with one compiler, so that the plan has to load no other."""

SMALL_TARGET = """
name = "small"
title = "Small"
summary = "Any x86-64 processor, ONNX Runtime only"
channel_multiple = 4
[hardware]
architecture = "x86_64"
cpu = "any"
cores = 2
memory_bytes = 1000000000
[quantization]
activations = "uint8-affine"
weight_bits = 7
[backends.onnx]
threads = 1
"""
