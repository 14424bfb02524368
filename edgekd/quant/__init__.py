"""The target-driven quantizer and what quantization-aware training needs."""
