"""Weights that share a few values: clustering with trained centroids.

Deep Compression, Han et al. 2016 (arXiv:1510.00149), section 3: k-means over the weights of a
layer, with centroids initialized linearly between the smallest and the largest weight (section
3.2), which preserves the rare large weights. In training, a centroid's gradient is the sum of its
weights' gradients (eq. 3), and no weight changes its cluster. Pruned weights stay zero: they have
index 0.
"""

import torch
from torch import Tensor, nn

ROUNDS = 50


def nearest_centroids(values: Tensor, centroids: Tensor) -> Tensor:
    """The index of each value's nearest centroid, the lower one in a tie; `centroids` are
    sorted."""
    edges = (centroids[1:] + centroids[:-1]) / 2
    return torch.bucketize(values, edges)


def k_means(values: Tensor, count: int) -> Tensor:
    """At most `count` sorted centroids of (n,) float64 values, by Lloyd's algorithm with linear
    initialization. Centroids without values are dropped at the end.
    """
    values = values.double()
    centroids = torch.linspace(float(values.min()), float(values.max()), count).double()
    for _ in range(ROUNDS):
        index = nearest_centroids(values, centroids)
        sums = torch.zeros(count, dtype=torch.float64).index_add_(0, index, values)
        sizes = torch.bincount(index, minlength=count)
        moved = torch.where(sizes > 0, sums / sizes.clamp_min(1), centroids)
        if torch.equal(moved, centroids):
            break
        centroids = moved
    index = nearest_centroids(values, centroids)
    return centroids[torch.bincount(index, minlength=count) > 0]


class SharedWeight(nn.Module):
    """A weight of any shape as uint8 indices into at most 256 trained centroids. If the weight has
    zeros, centroid 0 is zero and is not trained.
    """

    index: Tensor

    def __init__(self, weight: Tensor, bits: int) -> None:
        super().__init__()
        flat = weight.detach().flatten()
        used = flat[flat != 0]
        self.zero = bool((flat == 0).any())
        room = 2**bits - int(self.zero)
        centroids = k_means(used, room) if len(used) else torch.zeros(0)
        index = torch.zeros(len(flat), dtype=torch.int64)
        index[flat != 0] = nearest_centroids(used.double(), centroids.double()) + int(self.zero)
        self.register_buffer("index", index.to(torch.uint8).view(weight.shape))
        self.centroids = nn.Parameter(centroids.float())

    def table(self) -> Tensor:
        """All (k,) centroids, beginning with the fixed zero if there is one."""
        zero = self.centroids.new_zeros(int(self.zero))
        return torch.cat([zero, self.centroids])

    def forward(self, weight: Tensor) -> Tensor:
        """The weight rebuilt from the centroids; only the argument's shape is used."""
        return self.table()[self.index.long()]
