"""How far a network's outputs are from others, whatever their structure."""

from torch import nn

from edgekd.network.evaluation import predict
from edgekd.values.tree import Tree, leaves


def relative_error(expected: Tree, module: nn.Module, samples: Tree) -> float:
    """The root of the squared error of all outputs on `samples` over that of the outputs."""
    pairs = list(zip(leaves(expected), leaves(predict(module, samples)), strict=True))
    error = sum(float((a.double() - b.double()).square().sum()) for a, b in pairs)
    size = sum(float(a.double().square().sum()) for a, _ in pairs)
    return float((error / max(size, 1e-30)) ** 0.5)
