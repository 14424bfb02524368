"""How early the task becomes separable."""

from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional as F

from edgekd.data.samples import Data, Samples
from edgekd.data.tasks import Task
from edgekd.data.tasks.classification import Classification
from edgekd.measure.diagnostics import Curve, Line, Networks, OfNetworks, Plot
from edgekd.network.taps import Taps, layer_kinds
from edgekd.registry import DIAGNOSTICS

WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Linear)

POOLED = 4
"""Feature maps are averaged to at most this many cells per side before they are probed."""


@DIAGNOSTICS.register(paper="https://arxiv.org/abs/1610.01644")
@dataclass(frozen=True)
class Probes(OfNetworks):
    """Test accuracy of a linear classifier on each layer, and how early it is near its best.

    Alain & Bengio 2017: layers in order of execution, at most `layers` of them, evenly spread;
    feature maps are averaged to 4 x 4 cells. The classifier is ridge regression on one-hot labels,
    solved exactly on at most `samples` training samples. `separable` is the depth, from 0 to 1, of
    the first layer within 1 point of the best.
    """

    samples: int = 1000
    layers: int = 8
    ridge: float = 1e-2

    def __post_init__(self) -> None:
        if self.samples < 2 or self.layers < 1 or not self.ridge > 0:
            raise ValueError("samples must be 2 or more, layers 1 or more, ridge above 0")

    def fault(self, task: Task, data: Data) -> str:
        if not isinstance(task, Classification):
            return f"'probes' needs a classification task, found {task.name}"
        return ""

    def look(self, networks: Networks) -> tuple[list[Line], Plot | None]:
        data = networks.data
        train = data.train.some(self.samples)
        lines, curves = [], []
        for side, network in (("student", networks.student), ("teacher", networks.teacher)):
            if network is None:
                continue
            seen = side == "teacher"
            found = self._probed(network, train, data.test, data.classes, seen)
            if not found:
                reason = "it has no layer with weights whose output could be read"
                lines.append(Line(name=f"{side}: probes", student=None, reason=reason))
                continue
            lines += [Line.mean(f"{side}: {name}", right) for name, right in found.items()]
            scores = [float(right.mean()) for right in found.values()]
            depths = [number / max(1, len(found) - 1) for number in range(len(found))]
            curves.append(Curve(name=side, x=tuple(depths), y=tuple(scores)))
            early = separable(scores)
            lines.append(Line(name=f"{side}: separable at depth", student=early, unit=""))
        return lines, Plot(x="depth", y="probe accuracy", curves=tuple(curves))

    def _probed(
        self, network: nn.Module, train: Samples, test: Samples, classes: int, seen: bool
    ) -> dict[str, Tensor]:
        inputs = [part.shown if seen else part.x for part in (train, test)]
        chosen = spread(executed(network, inputs[0][:2]), self.layers)
        known, asked = (features(network, x, chosen) for x in inputs)
        return {
            name: probe(known[name], train.y, asked[name], test.y, classes, self.ridge)
            for name in chosen
        }


def executed(network: nn.Module, x: Tensor) -> list[str]:
    """The names of the layers with weights, in order of execution."""
    if isinstance(network, GraphModule):  # its layers are recorded in the nodes' metadata
        kinds = [kind.__name__ for kind in WEIGHTED]
        return [name for name, kind in layer_kinds(network).items() if kind in kinds]
    order: list[str] = []
    with ExitStack() as hooks, torch.no_grad():
        for name, layer in network.named_modules():
            if name and isinstance(layer, WEIGHTED):
                seen = layer.register_forward_hook(lambda *_, name=name: order.append(name))
                hooks.enter_context(seen)
        network(x)
    return list(dict.fromkeys(order))


def spread(names: list[str], most: int) -> list[str]:
    """At most `most` of the names, evenly spread, including the first and last."""
    if len(names) <= most:
        return names
    if most == 1:
        return names[-1:]
    return [names[round(number * (len(names) - 1) / (most - 1))] for number in range(most)]


def features(network: nn.Module, x: Tensor, names: list[str]) -> dict[str, Tensor]:
    """(N, features) of each layer, with feature maps averaged to a few cells."""
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    with torch.no_grad(), Taps(network, names) as taps:
        for part in torch.split(x, 256):
            network(part)
            for name in names:
                parts[name].append(_pooled(taps.outputs[name]))
    return {name: torch.cat(found).double() for name, found in parts.items()}


def _pooled(output: Tensor) -> Tensor:
    if output.ndim == 4:
        height, width = (min(POOLED, side) for side in output.shape[2:])
        output = F.adaptive_avg_pool2d(output, (height, width))
    elif output.ndim == 3:
        output = F.adaptive_avg_pool1d(output, min(POOLED**2, output.shape[2]))
    return output.flatten(1)


def probe(
    x: Tensor, y: Tensor, asked: Tensor, wanted: Tensor, classes: int, ridge: float
) -> Tensor:
    """1 for each sample of `asked` that ridge regression on standardized features gets right, else
    0. The regression has one-hot targets and a bias."""
    middle, spread_ = x.mean(0), x.std(0).clamp(min=1e-8)
    x, asked = (x - middle) / spread_, (asked - middle) / spread_
    one = torch.ones(len(x), 1, dtype=x.dtype)
    x = torch.cat([x, one], 1)
    targets = F.one_hot(y, classes).to(x.dtype)
    gram = x.T @ x + ridge * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    weights = torch.linalg.solve(gram, x.T @ targets)
    predicted = torch.cat([asked, torch.ones(len(asked), 1, dtype=x.dtype)], 1) @ weights
    right: Tensor = predicted.argmax(1) == wanted
    return right.double()


def separable(scores: list[float]) -> float:
    """The depth, from 0 (first layer) to 1 (last), of the first score within 0.01 of the best."""
    near = max(scores) - 0.01
    first = next(number for number, score in enumerate(scores) if score >= near)
    return first / max(1, len(scores) - 1)
