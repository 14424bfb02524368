"""For every loss a student, a teacher and data that it can teach with, all small."""

import torch
from contexts import context
from torch import Tensor, nn

from edgekd.data.samples import Data, Samples
from edgekd.data.tasks.ctc import CTC
from edgekd.data.tasks.detection import Detection
from edgekd.data.tasks.keypoints import Keypoints
from edgekd.data.tasks.regression import Regression
from edgekd.data.tasks.segmentation import Segmentation
from edgekd.data.tasks.tokens import Tokens
from edgekd.models.resnet import resnet8
from edgekd.models.transformer import transformer
from edgekd.registry import LOSSES
from edgekd.training.distillation import check_teaching
from edgekd.training.losses import FeatureLoss, OutputLoss, ResponseLoss
from edgekd.training.teachers.module import ModuleTeacher
from edgekd.training.teachers.outputs import Outputs
from edgekd.training.teaching import Teaching

torch.set_num_threads(1)
GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(24, 1, 8, 8, generator=GENERATOR)
LABELS = IMAGES.flatten(1)[:, :3].argmax(1)
LINEAR = {"schedule": "linear", "start": 8.0, "end": 2.0}


class Dense(nn.Module):
    """Maps for maps, as a detector, a segmenter or a network of heatmaps is built."""

    def __init__(self, outputs: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Conv2d(width, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.head(self.second(self.first(x).relu()).relu())
        return maps


class Rows(nn.Module):
    """(B, L) tokens -> (B, L, classes), each from its own token and those before it."""

    def __init__(self, width: int, classes: int = 4) -> None:
        super().__init__()
        self.embed, self.mix = nn.Embedding(classes, width), nn.Linear(width, width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        state = self.embed(x.long()).cumsum(1)
        return self.head(self.mix(state).relu())


class GraphNetwork(nn.Module):
    """(B, N, N) adjacency -> (B, classes), with its edges, nodes and pooled output as layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.edges, self.nodes, self.pooled = (
            nn.Softmax(2),
            nn.Linear(5, width),
            nn.Linear(width, 4),
        )
        self.weigh, self.head = nn.Linear(5, 5), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        nodes = self.nodes(self.edges(self.weigh(x)) @ x)
        return self.head(self.pooled(nodes.relu().mean(1)))


def seeded(make: type, *arguments: int) -> nn.Module:
    torch.manual_seed(sum(arguments))
    return make(*arguments).eval()


def resnet(width: int) -> nn.Module:
    torch.manual_seed(width)
    return resnet8(channels=1, classes=3, widths=(width, width, 2 * width)).eval()


def encoder(width: int) -> nn.Module:
    torch.manual_seed(width)
    return transformer(size=8, patch=4, width=width, depth=2, heads=2, classes=3).eval()


def data(x: Tensor = IMAGES, y: Tensor = LABELS, task=None, paired=None, classes: int = 3) -> Data:
    keys = {} if task is None else {"task": task}
    shown = {} if paired is None else {"paired": paired}
    train, rest = (
        Samples(x[:16], y[:16], **keys, **{k: v[:16] for k, v in shown.items()}),
        Samples(x[16:], y[16:], **keys, **{k: v[16:] for k, v in shown.items()}),
    )
    return Data("small", train, rest, rest, classes)


TOKEN_IDS = torch.randint(0, 4, (24, 6), generator=GENERATOR)
BOXES = torch.tensor([[[0.0, 0.3, 0.4, 0.4, 0.4]]]).repeat(24, 1, 1)
POINTS = torch.randint(0, 8, (24, 2, 2), generator=GENERATOR).float()
PIXELS = torch.randint(0, 3, (24, 8, 8), generator=GENERATOR)


def situation(name: str) -> tuple[nn.Module, nn.Module, Data]:
    """A student, a wider teacher, and samples of a task that the loss is for."""
    if name in ("transformer", "minilm"):
        return encoder(8), encoder(12), data()
    if name == "detection-distribution":  # 4 edges with 16 places each
        made = data(y=BOXES, task=Detection(), classes=59)
        return seeded(Dense, 64, 4), seeded(Dense, 64, 6), made
    if name.startswith("detection"):
        return seeded(Dense, 6, 4), seeded(Dense, 6, 6), data(y=BOXES, task=Detection(), classes=1)
    if name.startswith("segmentation"):
        return seeded(Dense, 3, 4), seeded(Dense, 3, 6), data(y=PIXELS, task=Segmentation())
    if name == "keypoint":
        return seeded(Dense, 2, 4), seeded(Dense, 2, 6), data(y=POINTS, task=Keypoints(), classes=0)
    if name in ("ctc", "sequence", "own-samples"):
        task = CTC() if name == "ctc" else Tokens()
        y = torch.ones(24, 2, dtype=torch.int64) if name == "ctc" else TOKEN_IDS
        return seeded(Rows, 8), seeded(Rows, 12), data(TOKEN_IDS.float(), y, task, classes=4)
    if name == "cross-lingual":
        x, y = IMAGES.flatten(1), torch.randn(24, 5, generator=GENERATOR)
        made = data(x, y, Regression(), paired=x.flip(1), classes=0)
        return seeded(nn.Linear, 64, 5), seeded(nn.Linear, 64, 5), made
    if name == "graph":
        x = torch.rand(24, 5, 5, generator=GENERATOR)
        return seeded(GraphNetwork, 4), seeded(GraphNetwork, 6), data(x)
    return resnet(4), resnet(4 if name in ("gram", "fsp") else 8), data()


def table(name: str) -> dict:
    """The loss as a recipe gives it."""
    make = LOSSES.get(name).make
    if name == "graph":
        layers = ["nodes", "edges", "pooled"]
        return {"name": name, "student": layers, "teacher": layers, "edge_budget": 0.5}
    if name == "cross-modal" or issubclass(make, ResponseLoss | OutputLoss):
        return {"name": name}
    if issubclass(make, FeatureLoss) and make.accepts_outputs and name != "segmentation-pairs":
        return {"name": name}
    if name == "segmentation-pairs":
        return {"name": name, "student": "second"}
    return {"name": name, "layers": "auto"}


def teaching(*losses: dict, **keys) -> Teaching:
    given = {"epochs": 2, "batch_size": 8, "learning_rate": 0.01, "keep": "last", **keys}
    return Teaching(losses=losses, **given)


def teacher_of(network: nn.Module) -> ModuleTeacher:
    return ModuleTeacher("big", "k1", 1.0, network.requires_grad_(False), Outputs())


def faults(*losses: dict, on: tuple | None = None, **keys) -> str:
    student, teacher, samples = on or (resnet(4), resnet(8), data())
    found = check_teaching(
        student, context(teaching(*losses, **keys), data=samples, teachers=[teacher_of(teacher)])
    )
    return " | ".join(f"{fault} -> {fault.hint}" for fault in found)
