"""A graph network over dense adjacency: features and edges in one tensor.

Kipf & Welling 2017 with the sum and the mean over neighbours (Xu et al. 2019): the edges are given
with the sample, so aggregation is a matrix product.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn


class GraphLayer(nn.Module):
    """relu(W1 h + W2 A h): each node and the sum of its neighbours, (B, N, in) -> (B, N, out)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.own = nn.Linear(inputs, outputs)
        self.around = nn.Linear(inputs, outputs, bias=False)
        self.relu = nn.ReLU()

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        output: Tensor = self.relu(self.own(nodes) + self.around(torch.matmul(edges, nodes)))
        return output


class GraphNetwork(nn.Module):
    """(B, N, features + N), a node's features and its row of the adjacency -> (B, classes)."""

    def __init__(self, features: int, classes: int, width: int, depth: int) -> None:
        super().__init__()
        self.features = features
        sizes = [features, *[width] * depth]
        self.layers = nn.ModuleList(
            GraphLayer(inputs, outputs) for inputs, outputs in pairwise(sizes)
        )
        self.hidden = nn.Linear(width, width)
        self.relu = nn.ReLU()
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        nodes, edges = x[:, :, : self.features], x[:, :, self.features :]
        for layer in self.layers:
            nodes = layer(nodes, edges)
        logits: Tensor = self.classifier(self.relu(self.hidden(nodes).mean(1)))
        return logits


def graph_network(
    features: int = 2, classes: int = 4, width: int = 16, depth: int = 2
) -> GraphNetwork:
    """A classifier of whole graphs."""
    return GraphNetwork(features, classes, width, depth)
