"""Networks of timm (PyTorch Image Models)."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from edgekd.errors import InputError
from edgekd.network.sources import ModelRequest, Source
from edgekd.network.sources._importing import built, check_name, imported
from edgekd.registry import SOURCES


@SOURCES.register()
class Timm(Source):
    """A network of timm by its name: "timm:mobilenetv3_small_100".

    Arguments go to `timm.create_model`. Weights are random unless `pretrained = true` asks timm to
    download them.
    """

    packages: ClassVar[Mapping[str, str]] = {"timm": "timm"}
    extra = "timm"
    example: ClassVar[Mapping[str, Any]] = {
        "source": "timm:mobilenetv3_small_100",
        "arguments": {"num_classes": 10},
    }

    def load(self, request: ModelRequest) -> nn.Module:
        timm = imported("timm", request)
        plain = ModelRequest(
            request.name.partition(".")[0], request.arguments, request.folder, request.where
        )  # what follows a point names pretrained weights
        check_name(plain, timm.list_models(), "timm", "timm.list_models()")
        if "checkpoint_path" in request.arguments:
            raise InputError(
                "timm would load this checkpoint by itself",
                where=f"{request.where}.arguments.checkpoint_path",
                hint="give it as weights = ...",
            )
        return built(lambda **keys: timm.create_model(request.name, **keys), request)
