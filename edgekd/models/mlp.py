"""A multilayer perceptron for measurements and states."""

from collections.abc import Sequence

from torch import Tensor, nn


class Perceptron(nn.Module):
    """Linear layers with ReLU between them: (B, features) -> (B, outputs)."""

    def __init__(self, features: int, outputs: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        inputs = features
        for width in hidden:
            self.layers.append(nn.Linear(inputs, width))
            self.layers.append(nn.ReLU())
            inputs = width
        self.head = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.layers(x))
        return outputs


def mlp(features: int = 10, outputs: int = 1, hidden: Sequence[int] = (32, 32)) -> Perceptron:
    """A perceptron with these hidden layers."""
    return Perceptron(features, outputs, hidden)
