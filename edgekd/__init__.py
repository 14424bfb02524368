"""edgekd compresses a trained model for an edge device and measures the deployed file."""

from edgekd.version import __version__

__all__ = ["__version__"]
