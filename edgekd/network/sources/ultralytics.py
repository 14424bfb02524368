"""YOLO networks of ultralytics."""

import os
import types
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from edgekd.errors import InputError, summary_of
from edgekd.network.checkpoints import conversion
from edgekd.network.sources import ModelRequest, Source, refuse_arguments
from edgekd.network.sources._importing import built, imported
from edgekd.registry import SOURCES

TASKS = {
    "classify": "ClassificationModel",
    "detect": "DetectionModel",
    "segment": "SegmentationModel",
    "semantic": "SemanticModel",
    "pose": "PoseModel",
    "obb": "OBBModel",
    "depth": "DepthModel",
}
"""The class of each task that a configuration's head can be for."""


@SOURCES.register()
class Ultralytics(Source):
    """A YOLO of ultralytics by its configuration: "ultralytics:yolo11n.yaml".

    Or by a checkpoint that ultralytics can read without unpickling: "ultralytics:runs/best.pt".
    Arguments of a configuration are those of its class: `nc` (classes), `ch` (channels).
    """

    packages: ClassVar[Mapping[str, str]] = {"ultralytics": "ultralytics"}
    extra = "ultralytics"
    example: ClassVar[Mapping[str, Any]] = {"source": "ultralytics:yolo11n.yaml"}

    def load(self, request: ModelRequest) -> nn.Module:
        os.environ.setdefault("YOLO_OFFLINE", "1")
        tasks = imported("ultralytics.nn.tasks", request)
        with _restricted(tasks):
            if request.name.endswith(".pt"):
                return _with_plain_head(_from_checkpoint(tasks, request))
            return _with_plain_head(_from_configuration(tasks, request))

    def files(self, request: ModelRequest) -> Iterable[Path]:
        return [request.path] if "/" in request.name else []


def _with_plain_head(module: nn.Module) -> nn.Module:
    """The network, with a head that computes the same in training and afterwards, for any size.

    Ultralytics' heads return the raw maps alone while they train, and decoded boxes beside them
    later, so a loss would read other outputs than the deployed file has. They also keep the anchors
    of the last batch and compare its size, which fixes an export to one batch size.
    """
    for part in module.modules():
        if getattr(part, "dynamic", None) is False:
            part.dynamic = True  # type: ignore[assignment]
            part.train = types.MethodType(_train_layers, part)  # type: ignore[method-assign]
            part.training = False
    return module


def _train_layers(self: nn.Module, mode: bool = True) -> nn.Module:
    """Train or freeze the layers of a head, whose own `forward` stays that of inference."""
    nn.Module.train(self, mode)
    self.training = False
    return self


@contextmanager
def _restricted(tasks: Any) -> Iterator[None]:
    """Have ultralytics build networks from known layers, without evaluating text as code, and take
    back the classes that it lets the restricted unpickler load."""
    before, safe = tasks.SAFE_LOAD, torch.serialization.get_safe_globals()
    level = tasks.LOGGER.level
    tasks.SAFE_LOAD = True
    tasks.LOGGER.setLevel("ERROR")
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(safe)
        tasks.SAFE_LOAD = before
        tasks.LOGGER.setLevel(level)


def _from_configuration(tasks: Any, request: ModelRequest) -> nn.Module:
    name = str(request.path) if "/" in request.name else request.name
    try:
        table = tasks.yaml_model_load(name)
        kind = getattr(tasks, TASKS[tasks.guess_model_task(table)])
    except Exception as error:
        raise InputError(
            f"ultralytics can't read '{request.name}': {summary_of(error)}",
            where=f"{request.where}.source",
            allowed="a configuration that it has (yolo11n.yaml), a path to one, or to a .pt file",
        ) from error
    return built(lambda **keys: kind(table, verbose=False, **keys), request)


def _from_checkpoint(tasks: Any, request: ModelRequest) -> nn.Module:
    refuse_arguments(request, "a checkpoint")
    path = request.path
    if not path.is_file():
        raise InputError("no such file", where=str(path), hint="nothing is downloaded")
    try:
        table, _ = tasks.torch_safe_load(str(path), safe_only=True)
        module = table.get("ema") or table["model"]
    except Exception as error:
        raise InputError(
            f"ultralytics can't read it without unpickling: {summary_of(error)[:200]}",
            where=str(path),
            hint=f"if you trust the file, convert it: {conversion(path)}; then name its .yaml as "
            "the source and the result as weights",
        ) from error
    if not isinstance(module, nn.Module):
        raise InputError("it has no model", where=str(path))
    return module.float()
