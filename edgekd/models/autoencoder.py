"""The fully connected autoencoder of MLPerf Tiny's anomaly detection (ToyADMOS, DCASE 2020).

Banbury 2021: 640 inputs, four layers of 128, a bottleneck of 8, four layers of 128, 640 outputs;
a batch norm and a ReLU after each but the last.
"""

from collections.abc import Sequence

from torch import Tensor, nn


class Autoencoder(nn.Module):
    """(B, features) -> (B, features); a high reconstruction error indicates an anomaly."""

    def __init__(self, features: int, hidden: Sequence[int], bottleneck: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential()
        inputs = features
        for width in (*hidden, bottleneck):
            self.encoder.append(_dense(inputs, width))
            inputs = width
        self.decoder = nn.Sequential()
        for width in reversed(hidden):
            self.decoder.append(_dense(inputs, width))
            inputs = width
        self.output = nn.Linear(inputs, features)

    def forward(self, x: Tensor) -> Tensor:
        reconstruction: Tensor = self.output(self.decoder(self.encoder(x)))
        return reconstruction


def _dense(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU())


def autoencoder(
    features: int = 640, hidden: Sequence[int] = (128, 128, 128, 128), bottleneck: int = 8
) -> Autoencoder:
    """MLPerf Tiny's autoencoder; 269,992 values with batch-norm statistics at the defaults."""
    return Autoencoder(features, hidden, bottleneck)
