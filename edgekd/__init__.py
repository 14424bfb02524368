"""edgekd compresses a trained model for an edge device and measures the deployed file."""

__version__ = "0.1.0"
