"""The rows of the table: each method with the settings of its paper, or the package's defaults."""

from typing import Any

from edgekd.registry import LOSSES
from edgekd.training.losses import DepthsLoss, FeatureLoss

KL = {"name": "kl", "weight": 0.9, "temperature": 4.0}
BESIDE = {"name": "kl", "weight": 0.9, "temperature": 4.0}
LAST = {"student": "stages.2", "teacher": "stages.2"}
WIDE = {"student": ["stages.1", "stages.2"], "teacher": ["stages.0", "stages.1"]}
"""Layers with as many channels on both sides, for losses that bridge none."""

RESPONSES = (
    "kl", "reverse-kl", "js", "mse-logits", "huber-logits", "dkd", "dist", "logit-standardized",
    "ttm", "wttm",
)  # fmt: skip

WEIGHTS = {
    "mse-logits": 0.3, "huber-logits": 0.3, "hint": 1.0, "attention": 5.0, "nst": 10.0, "mmd": 5.0,
    "vid": 0.5, "cosine": 1.0, "crd": 0.8, "review": 0.5, "adversarial": 0.1, "rkd-distance": 25.0,
    "rkd-angle": 50.0, "similarity": 100.0, "correlation": 10.0, "pkt": 10.0, "dkd": 0.9,
}  # fmt: skip
"""What brings a loss to the size of the others, from the papers where they say."""

LEFT_OUT = {
    "transformer": "needs encoder blocks", "minilm": "needs encoder blocks",
    "ctc": "sequences", "sequence": "sequences", "own-samples": "texts",
    "keypoint": "heatmaps", "graph": "graphs",
    "policy": "states", "regression": "real numbers", "cross-modal": "paired inputs",
    "cross-lingual": "paired inputs", "segmentation-pairs": "segmentations",
    "segmentation-pixels": "segmentations", "segmentation-holistic": "segmentations",
    "detection-rank": "detectors", "detection-scores": "detectors", "detection-boxes": "detectors",
    "detection-localization": "detectors", "detection-features": "detectors",
    "scheme offline": "every row without a scheme", "scheme multi-teacher": "one teacher here",
    "scheme lwf": "tasks in turn", "scheme dark-experience-replay": "tasks in turn",
    "scheme distillation-token": "needs a Transformer with that token",
}  # fmt: skip
"""What has no place on one class an image, or none between these two networks."""


def rows() -> dict[str, dict[str, Any]]:
    """Name -> what a distill stage is given besides the shared budget."""
    table: dict[str, dict[str, Any]] = {
        "cross-entropy": {"losses": [], "label_weight": 1.0},
        "kl": {"losses": [KL]},
    }
    for name in LOSSES.names():
        if name != "kl" and name not in LEFT_OUT:
            table[name] = _loss_row(name)
    return {**table, **_scheduled(), **_schemes()}


def _loss_row(name: str) -> dict[str, Any]:
    own: dict[str, Any] = {"name": name, "weight": WEIGHTS.get(name, 0.9)}
    make = LOSSES.get(name).make
    if name == "dkd":
        own.update(beta=2.0)  # the paper's choice by how sure the teacher is, from 1 to 10
    if name in RESPONSES:
        return {"losses": [own]}
    if name == "crd":
        own.update(LAST, negatives=256)
    elif name == "gram":
        own.update(student=WIDE["student"][1], teacher=WIDE["teacher"][1])
    elif name == "fsp":
        own.update(WIDE)
    elif issubclass(make, DepthsLoss) or not getattr(make, "accepts_outputs", False):
        own["layers"] = "auto"
    elif issubclass(make, FeatureLoss):
        own.update(LAST)
    return {"losses": [BESIDE, own]}  # as the papers do: beside Hinton's


def _scheduled() -> dict[str, dict[str, Any]]:
    temperatures: dict[str, dict[str, Any]] = {
        "linear": {"start": 8.0, "end": 1.0},
        "cosine": {"start": 8.0, "end": 1.0},
        "inverse-sqrt": {"start": 8.0},
        "learned": {"epochs": 5},
        "spread": {"base": 1.0},
        "batch-size": {"start": 4.0, "reference": 128},
    }
    found: dict[str, dict[str, Any]] = {
        f"kl, T {name}": {"losses": [{**KL, "temperature": {"schedule": name, **keys}}]}
        for name, keys in temperatures.items()
    }
    annealed = {"schedule": "linear", "start": 1.0, "end": 0.1}
    found["kl, weight annealed"] = {"losses": [{**KL, "weight": annealed}]}
    found["kl, weight balanced"] = {
        "losses": [{**KL, "weight": {"schedule": "balanced"}}],
        "label_weight": 0.5,
    }
    for wish in ("disagreement", "inverse-frequency"):
        found[f"kl, samples by {wish}"] = {"losses": [KL], "sample_weights": wish}
    found["kl, teacher calibrated"] = {"losses": [KL], "calibrate_teachers": True}
    return found


def _schemes() -> dict[str, dict[str, Any]]:
    plain: dict[str, Any] = {"losses": [KL]}
    between = {"factory": "edgekd.models.resnet:resnet8",
               "arguments": {"channels": 1, "widths": [12, 24, 48], "stem_stride": 2}}  # fmt: skip
    scale = {"mean": 0.286, "std": 0.353}  # of Fashion-MNIST's pixels: all that is known of them
    return {
        "scheme mutual": {**plain, "scheme": "mutual", "label_weight": 1.0},
        "scheme born-again": {**plain, "scheme": "born-again"},
        "scheme ensemble": {**plain, "scheme": "ensemble"},
        "scheme own-teacher": {**plain, "scheme": "own-teacher"},
        "scheme black-box": {**plain, "scheme": "black-box"},
        "scheme last-epoch": {**plain, "scheme": "last-epoch"},
        "scheme elastic": {**plain, "scheme": "elastic"},
        "scheme on-the-fly": {**plain, "scheme": "on-the-fly", "label_weight": 1.0},
        "scheme progressive": {
            **plain,
            "scheme": {"name": "progressive", "assistants": [between]},
        },
        "scheme specialists": {**plain, "scheme": "specialists"},
        "scheme federated": {
            **plain,
            "scheme": {"name": "federated", "rounds": 4, "local_epochs": 10, "public_share": 0.2},
        },
        "scheme data-free": {
            **plain,
            "label_weight": 0.0,
            "scheme": {"name": "data-free", "samples": 1000, "statistics": 1.0, **scale},
        },
        "scheme deep-inversion": {
            **plain,
            "label_weight": 0.0,
            "scheme": {"name": "deep-inversion", "images": 256, "iterations": 300, **scale},
        },
    }
