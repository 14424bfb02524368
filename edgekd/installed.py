"""What is installed here: modules that can be imported, packages and their versions."""

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import edgekd

RESULTS_DEPEND_ON = (
    "torch",
    "torchao",
    "nncf",
    "onnx",
    "onnxruntime",
    "litert-torch",
    "ai-edge-litert",
    "apache-tvm",
    "torch-pruning",
    "numpy",
)


def has_module(name: str) -> bool:
    """Whether there is such a module, found without importing it. A folder without code is none:
    an uninstall leaves one behind where files were added to the package, such as caches."""
    try:
        spec = find_spec(name)
    except ModuleNotFoundError:  # of the package that it would be in
        return False
    return spec is not None and spec.origin is not None


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those of these packages that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def tool_versions() -> dict[str, str]:
    """edgekd's own version and those of the packages that its results depend on."""
    return {"edgekd": edgekd.__version__, **versions_of(RESULTS_DEPEND_ON)}
