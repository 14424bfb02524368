"""A linear layer as two: the truncated SVD, plain or weighted by the layer's inputs.

W (o, i) is replaced by B A with A (r, i) and B (o, r). Whatever is minimized, the best B has
orthonormal columns U and A = U^T W: plainly U are the first left singular vectors of W (Eckart &
Young 1936), and for inputs with second moment C = E[x x^T] those of W C^(1/2), which makes
E||W x - B A x||^2 least (Zhang et al. 2015, arXiv:1505.06798, section 2).
"""

from typing import Any

import torch
from torch import Tensor, nn

from edgekd.network.conv1d import linear_matrix


def basis(matrix: Tensor, moment: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """U (o, k) and the singular values (k,) of W or W C^(1/2), descending; k = min(o, i). `moment`
    is C (i, i), symmetric and positive semidefinite. In double precision.
    """
    matrix = matrix.double()
    if moment is None:
        left, values, _ = torch.linalg.svd(matrix, full_matrices=False)
        return left, values
    # Of W C^(1/2) only its square W C W^T is needed, which is far smaller than C for convolutions.
    squares, vectors = torch.linalg.eigh(matrix @ moment.double() @ matrix.T)
    count = min(matrix.shape)
    return vectors.flip(1)[:, :count], squares.flip(0)[:count].clamp_min(0).sqrt()


def root_of(moment: Tensor) -> Tensor:
    """The symmetric square root of a positive semidefinite matrix."""
    values, vectors = torch.linalg.eigh((moment + moment.T) / 2)
    root: Tensor = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    return root


def linear_macs(layer: nn.Module, positions: int, rank: int) -> int:
    """Multiply-accumulates of both factors: rank (i + o) at each position."""
    return positions * rank * sum(linear_matrix(layer).shape)


def split_linear(layer: Any, left: Tensor, rank: int) -> nn.Sequential:
    """Two linear layers through `rank` features; the bias stays with the second."""
    weight = linear_matrix(layer).double()
    kept = left[:, :rank]
    first = nn.Linear(weight.shape[1], rank, bias=False)
    second = nn.Linear(rank, weight.shape[0], bias=layer.bias is not None)
    with torch.no_grad():
        first.weight.copy_(kept.T @ weight)
        second.weight.copy_(kept)
        if layer.bias is not None:
            second.bias.copy_(layer.bias)
    return nn.Sequential(first, second)
