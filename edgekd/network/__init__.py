"""Networks in PyTorch: loading, storing, running, and counting their cost."""
