"""Graphs of four families, distinguished only by their edges."""

import numpy as np
import torch
from numpy.typing import NDArray

from edgekd.data.samples import Samples
from edgekd.data.sets import SETS
from edgekd.data.source import Source

FAMILIES = ("random", "ring", "communities", "hubs")


@SETS.register(paper="Erdos & Renyi 1959; Watts & Strogatz 1998; Barabasi & Albert 1999")
def random_graphs(train: int = 800, test: int = 200, nodes: int = 16, seed: int = 0) -> Source:
    """Graphs of `nodes` nodes and about as many edges in four families: classification.

    A sample (nodes, 2 + nodes) has one row per node: a constant, its degree over `nodes`, then its
    row of the adjacency matrix. Nodes are in random order.
    """
    if nodes < 8:
        raise ValueError(f"nodes must be at least 8, found {nodes}")
    train_part = _part(train, nodes, np.random.default_rng([seed, 0]))
    test_part = _part(test, nodes, np.random.default_rng([seed, 1]))
    return Source(train_part, test_part, labels=FAMILIES)


def _part(count: int, nodes: int, random: np.random.Generator) -> Samples:
    y = np.arange(count) % len(FAMILIES)
    makers = (_random, _ring, _communities, _hubs)
    samples = []
    for label in y:
        edges = np.triu(makers[label](nodes, random), 1)
        edges = (edges | edges.T).astype(np.float32)
        order = random.permutation(nodes)
        edges = edges[order][:, order]
        degree = edges.sum(1, keepdims=True) / nodes
        samples.append(np.concatenate([np.ones((nodes, 1)), degree, edges], 1))
    x = torch.from_numpy(np.stack(samples).astype(np.float32))
    return Samples(x, torch.from_numpy(y))


def _random(nodes: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """Every edge is as likely as any other; four a node on average."""
    return random.random((nodes, nodes)) < 4 / (nodes - 1)


def _ring(nodes: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """A ring whose nodes know two neighbours on each side; a tenth of the edges go elsewhere."""
    edges = np.zeros((nodes, nodes), bool)
    for node in range(nodes):
        for step in (1, 2):
            other = (node + step) % nodes
            if random.random() < 0.1:
                other = int(random.integers(nodes))
            edges[min(node, other), max(node, other)] = node != other
    return edges


def _communities(nodes: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """Two halves with many edges inside and few between."""
    half = np.arange(nodes) < nodes // 2
    likely = np.where(half[:, None] == half, 7 / nodes, 1 / nodes)
    return random.random((nodes, nodes)) < likely


def _hubs(nodes: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """Each node joins two earlier ones, the likelier the more edges these have."""
    edges = np.zeros((nodes, nodes), bool)
    edges[0, 1] = edges[0, 2] = edges[1, 2] = True
    for node in range(3, nodes):
        degree = (edges | edges.T)[:node, :node].sum(1)
        chosen = random.choice(node, 2, replace=False, p=degree / degree.sum())
        edges[chosen, node] = True
    return edges
