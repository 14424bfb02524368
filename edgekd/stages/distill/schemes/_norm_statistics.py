"""A teacher's batch norm statistics, and how far a batch is from them."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle


def norms_of(network: nn.Module) -> list[_BatchNorm]:
    """The batch norms that have running statistics."""
    return [
        part
        for part in network.modules()
        if isinstance(part, _BatchNorm) and part.running_mean is not None
    ]


class NormStatistics:
    """A context in which `watch` measures how far a batch is from a network's batch statistics.

    sum over batch norms of |mean(x) - running mean|_2 + |var(x) - running var|_2, x being what goes
    into the norm: equation 4 of Yin et al. 2020. Other threads that use the network meanwhile are
    not counted.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._handles: list[RemovableHandle] = []
        self._parts: list[Tensor] = []
        self._watcher: int | None = None

    def __enter__(self) -> "NormStatistics":
        for norm in norms_of(self.network):
            self._handles.append(norm.register_forward_pre_hook(self._look))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._parts.clear()

    def _look(self, norm: nn.Module, inputs: Any) -> None:
        if self._watcher != threading.get_ident():
            return
        x = inputs[0]
        assert isinstance(norm, _BatchNorm)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        rest = [axis for axis in range(x.ndim) if axis != 1]
        mean, var = x.mean(rest), x.var(rest, unbiased=False)
        self._parts.append(torch.linalg.vector_norm(mean - norm.running_mean))
        self._parts.append(torch.linalg.vector_norm(var - norm.running_var))

    def watch(self, forward: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
        """The network's output for one forward pass, and the batch's distance."""
        self._watcher = threading.get_ident()
        try:
            outputs = forward()
            return outputs, torch.stack(self._parts).sum()
        finally:
            self._watcher = None
            self._parts.clear()
