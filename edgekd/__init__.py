"""edgekd compresses a trained model for an edge device and measures the deployed file.

    report = edgekd.compress(model, data=data, target="x86", stages=[edgekd.Quantize()])

Importing it imports nothing heavy: each name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgekd.version import __version__

if TYPE_CHECKING:
    from edgekd.api import bench, compress, diagnose, inspect, loss, plan
    from edgekd.errors import EdgekdError, InputError, ToolError
    from edgekd.report.files import load_report
    from edgekd.report.values import Report
    from edgekd.searching.call import search
    from edgekd.searching.request import SearchOptions
    from edgekd.stages.cluster import Cluster
    from edgekd.stages.distill import Distill
    from edgekd.stages.factorize import Factorize
    from edgekd.stages.prune import Prune
    from edgekd.stages.quantize import Quantize
    from edgekd.values.target import Target, load_target

__all__ = [
    "Cluster",
    "Distill",
    "EdgekdError",
    "Factorize",
    "InputError",
    "Prune",
    "Quantize",
    "Report",
    "SearchOptions",
    "Target",
    "ToolError",
    "__version__",
    "bench",
    "compress",
    "diagnose",
    "inspect",
    "load_report",
    "load_target",
    "loss",
    "plan",
    "search",
]

_HOMES = {
    "edgekd.api": ("bench", "compress", "diagnose", "inspect", "loss", "plan"),
    "edgekd.errors": ("EdgekdError", "InputError", "ToolError"),
    "edgekd.report.files": ("load_report",),
    "edgekd.report.values": ("Report",),
    "edgekd.searching.call": ("search",),
    "edgekd.searching.request": ("SearchOptions",),
    "edgekd.stages.cluster": ("Cluster",),
    "edgekd.stages.distill": ("Distill",),
    "edgekd.stages.factorize": ("Factorize",),
    "edgekd.stages.prune": ("Prune",),
    "edgekd.stages.quantize": ("Quantize",),
    "edgekd.values.target": ("Target", "load_target"),
}


def __getattr__(name: str) -> Any:
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'edgekd' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
