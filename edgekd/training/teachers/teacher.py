"""The interface of a teacher."""

from typing import Any, Protocol

from torch import nn

from edgekd.values.tree import OutputName, Tree


class Teacher(Protocol):
    """A frozen source of logits.

    `key` is the hash of its content, which cached logits are stored under. `module` is None for a
    black box (ONNX, TFLite, Keras, recorded logits): losses on features then have nothing to tap.
    `weight` is its share if several teachers are averaged.
    """

    @property
    def name(self) -> str:
        """The teacher's name in plans and reports."""

    @property
    def key(self) -> str:
        """SHA-256 of its content."""

    @property
    def weight(self) -> float:
        """Its share among several teachers."""

    @property
    def module(self) -> nn.Module | None:
        """The network in eval mode with frozen parameters, or None."""

    def logits(self, x: Tree, output: OutputName = None) -> Any:
        """(B, ...) for a batch, without gradient: the output that the task reads, or another."""
