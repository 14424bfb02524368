"""Which versions of the tools are installed that results depend on."""

from importlib.metadata import PackageNotFoundError, version

import edgekd

PACKAGES = (
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


def installed_versions() -> dict[str, str]:
    """edgekd's own version and those of the packages that are there."""
    found = {"edgekd": edgekd.__version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
