"""A teacher that is a PyTorch network."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from edgekd.training.teachers.outputs import Outputs
from edgekd.values.tree import OutputName, Tree


@dataclass(frozen=True)
class ModuleTeacher:
    """A `Teacher` with layers to tap. `notes` say what the user should know."""

    name: str
    key: str
    weight: float
    network: nn.Module
    outputs: Outputs
    notes: tuple[str, ...] = ()

    @property
    def module(self) -> nn.Module | None:
        """The network, frozen and in eval mode."""
        return self.network

    def logits(self, x: Tree, output: OutputName = None) -> Any:
        """(B, ...) for a batch on the network's device."""
        with torch.no_grad():
            return self.outputs.logits(self.network(x), output)
