"""Networks as PyTorch holds them: loading, storing, running, and counting what they cost."""
