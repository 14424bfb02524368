"""Networks of torchvision."""

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import nn

from edgekd.network.sources import ModelRequest, Source
from edgekd.network.sources._importing import built, check_name, imported
from edgekd.registry import SOURCES


@SOURCES.register()
class Torchvision(Source):
    """A network of torchvision by its name: "torchvision:mobilenet_v2".

    Arguments go to `torchvision.models.get_model`. Weights are random unless `weights = "DEFAULT"`
    among the arguments asks torchvision to download them.
    """

    packages: ClassVar[Mapping[str, str]] = {"torchvision": "torchvision"}
    extra = "torchvision"
    example: ClassVar[Mapping[str, Any]] = {"source": "torchvision:mobilenet_v2"}

    def load(self, request: ModelRequest) -> nn.Module:
        models = imported("torchvision", request).models
        check_name(request, models.list_models(), "torchvision", "torchvision.models.list_models()")
        builder = models.get_model_builder(request.name)
        # Several builders download their backbone's weights unless they are told not to.
        untrained = {"weights": None, "weights_backbone": None, "init_weights": True}
        takes = inspect.signature(inspect.unwrap(builder)).parameters
        quiet = {key: value for key, value in untrained.items() if key in takes}
        return built(lambda **keys: models.get_model(request.name, **keys), request, **quiet)
