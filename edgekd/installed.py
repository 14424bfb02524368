"""What is installed on this machine: Python modules, package versions and programs."""

import importlib
import os
import shutil
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgekd.errors import EdgekdError, InputError
from edgekd.version import __version__

RESULTS_DEPEND_ON = (
    "torch",
    "torchao",
    "nncf",
    "onnx",
    "onnxruntime",
    "litert-torch",
    "ai-edge-litert",
    "apache-tvm",
    "numpy",
    "ethos-u-vela",
    "tflite-micro",
)


def has_module(name: str) -> bool:
    """Whether a module is installed, determined without importing it.

    A folder without code does not count: an uninstall leaves one behind if files such as caches
    were added to the package.
    """
    try:
        spec = find_spec(name)
    except ModuleNotFoundError:  # its parent package is missing
        return False
    return spec is not None and spec.origin is not None


def missing_programs(tools: Mapping[str, str], where: str) -> list[EdgekdError]:
    """A fault for each program that is not on the PATH; the values are Debian package names."""
    return [
        InputError(f"{tool} is not installed", where=where, hint=f"apt install {package}")
        for tool, package in tools.items()
        if shutil.which(tool) is None
    ]


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those packages that are installed."""
    versions = {}
    for name in packages:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def tool_versions() -> dict[str, str]:
    """The versions of edgekd and of the packages that its results depend on."""
    return {"edgekd": __version__, **versions_of(RESULTS_DEPEND_ON)}


def tools_here(names: Iterable[str]) -> dict[str, tuple[str, int, int] | None]:
    """The path, size and modification time of each command, None if it is not on the PATH. A
    replaced program is noticed without asking it for its version."""
    paths = {name: shutil.which(name) for name in names}
    stats = {path: Path(path).stat() for path in paths.values() if path}
    return {
        name: (path, stats[path].st_size, stats[path].st_mtime_ns) if path else None
        for name, path in paths.items()
    }


def switch_telemetry_off() -> None:
    """Keep ONNX Runtime and NNCF, the two libraries that send usage data, from doing so.

    Both read these variables when they are first imported. What the user's environment says wins.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("NNCF_CI", "1")  # NNCF's only switch: it takes the run for a CI job


def quiet_libraries() -> None:
    """Keep libraries' own messages (missing GPU kernels, their deprecations) out of stderr."""
    import logging
    import warnings

    for name in ("torchao", "torch.utils._pytree", "torch.onnx"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")


_DECLARED: list[Any] = []
"""Kept for as long as the process lives, because their operators go with them."""


def import_torchvision() -> None:
    """Let torchvision be imported beside a PyTorch that its compiled operators don't load with.

    They are built for one PyTorch: a CUDA build of torchvision beside a CPU build of PyTorch
    fails with "operator torchvision::nms does not exist", though few networks use any. With their
    schemas declared it imports, and calling one still fails.
    """
    import torch

    try:
        importlib.import_module("torchvision")
    except ImportError:
        return  # its absence is reported where it is needed
    except RuntimeError as error:
        if "torchvision::" not in str(error) or _DECLARED:
            raise
        declared = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            declared.define(schema)  # type: ignore[no-untyped-call]
        _DECLARED.append(declared)
        importlib.import_module("torchvision")
