"""A network that was taught scikit-learn's digits, as a stage gets it and as its teacher."""

from pathlib import Path
from typing import Any

import torch
from contexts import context
from torch import nn

from edgekd.data.samples import Data
from edgekd.models.resnet import resnet8
from edgekd.training.loop import fit_labels
from edgekd.training.teachers.module import ModuleTeacher
from edgekd.training.teachers.outputs import Outputs
from edgekd.training.teaching import Teaching

torch.set_num_threads(1)


def teach_digits(data: Data, work: Path, **arguments: Any) -> nn.Module:
    """A small ResNet after six epochs."""
    torch.manual_seed(0)
    training = Teaching(epochs=6, batch_size=32, learning_rate=3e-3)
    module = resnet8(channels=1, **arguments)
    return fit_labels(module, context(training, data=data, work=work))


def teacher(module: nn.Module) -> ModuleTeacher:
    return ModuleTeacher("teacher", "key", 1.0, module, Outputs())
