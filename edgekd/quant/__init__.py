"""The target-driven quantizer, calibration and quantization-aware training."""
