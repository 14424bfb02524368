"""The version of the package, which artifacts, locks and generated sources carry."""

__version__ = "0.2.0"
