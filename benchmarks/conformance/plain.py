"""Textbook networks that no package of the suite carries, in the form in which they are usually
written: nothing in them is there for edgekd."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def double(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
    )  # fmt: skip


class UNet(nn.Module):
    """Ronneberger et al. 2015, two levels."""

    def __init__(self, classes: int = 4, width: int = 16) -> None:
        super().__init__()
        self.down1, self.down2 = double(3, width), double(width, 2 * width)
        self.bottom = double(2 * width, 4 * width)
        self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.conv2 = double(4 * width, 2 * width)
        self.up1 = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.conv1 = double(2 * width, width)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(F.max_pool2d(first, 2))
        x = self.bottom(F.max_pool2d(second, 2))
        x = self.conv2(torch.cat([self.up2(x), second], 1))
        return self.head(self.conv1(torch.cat([self.up1(x), first], 1)))


class SuperResolution(nn.Module):
    """Shi et al. 2016: sub-pixel convolution."""

    def __init__(self, factor: int = 2) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 5, padding=2), nn.Conv2d(32, 32, 3, padding=1)
        self.conv3 = nn.Conv2d(32, factor**2, 3, padding=1)
        self.shuffle = nn.PixelShuffle(factor)

    def forward(self, x: Tensor) -> Tensor:
        return self.shuffle(self.conv3(torch.tanh(self.conv2(torch.tanh(self.conv1(x))))))


class Autoencoder(nn.Module):
    """Strided convolutions, and transposed ones back."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(32, 16, 3, stride=2, padding=1, output_padding=1), nn.ReLU(),
            nn.ConvTranspose2d(16, 1, 3, stride=2, padding=1, output_padding=1), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


class LSTMClassifier(nn.Module):
    """Two layers; the last step decides."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 32, num_layers=2, batch_first=True)
        self.head = nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        outputs, _ = self.lstm(x)
        return self.head(outputs[:, -1])


class GRUClassifier(nn.Module):
    """One layer; the last state decides."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.gru = nn.GRU(8, 32, batch_first=True)
        self.head = nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        _, state = self.gru(x)
        return self.head(state[-1])


class BiLSTMTagger(nn.Module):
    """Embeddings, a bidirectional LSTM, a class for each word."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 32)
        self.lstm = nn.LSTM(32, 32, batch_first=True, bidirectional=True)
        self.head = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        outputs, _ = self.lstm(self.embedding(x))
        return self.head(outputs)


class Chomp(nn.Module):
    """Drops the surplus steps at the end of a padded convolution, which makes it causal."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, : -self.size].contiguous()


class TemporalBlock(nn.Module):
    """Bai et al. 2018, with their weight normalization."""

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.weight_norm
        pad = 2 * dilation
        self.net = nn.Sequential(
            norm(nn.Conv1d(inputs, outputs, 3, padding=pad, dilation=dilation)), Chomp(pad),
            nn.ReLU(), nn.Dropout(0.1),
            norm(nn.Conv1d(outputs, outputs, 3, padding=pad, dilation=dilation)), Chomp(pad),
            nn.ReLU(), nn.Dropout(0.1),
        )  # fmt: skip
        self.downsample = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(self.net(x) + shortcut)


class TCN(nn.Module):
    """Three temporal blocks; the last step decides."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            TemporalBlock(8, 32, 1), TemporalBlock(32, 32, 2), TemporalBlock(32, 32, 4)
        )
        self.head = nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x)[:, :, -1])


class WaveNet(nn.Module):
    """van den Oord et al. 2016: gated dilated convolutions with skips, causal by padding."""

    def __init__(self, classes: int = 10, width: int = 16) -> None:
        super().__init__()
        self.first = nn.Conv1d(8, width, 1)
        self.filters = nn.ModuleList(nn.Conv1d(width, width, 2, dilation=2**i) for i in range(4))
        self.gates = nn.ModuleList(nn.Conv1d(width, width, 2, dilation=2**i) for i in range(4))
        self.residuals = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(4))
        self.skips = nn.ModuleList(nn.Conv1d(width, 2 * width, 1) for _ in range(4))
        self.end1, self.end2 = nn.Conv1d(2 * width, width, 1), nn.Conv1d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.first(x), 0
        for i, (filter, gate) in enumerate(zip(self.filters, self.gates, strict=True)):
            padded = F.pad(x, (2**i, 0))
            gated = torch.tanh(filter(padded)) * torch.sigmoid(gate(padded))
            total = total + self.skips[i](gated)
            x = x + self.residuals[i](gated)
        return self.end2(F.relu(self.end1(F.relu(total))))


class DLRM(nn.Module):
    """Naumov et al. 2019: embeddings and dense features, their products, and a network on top."""

    def __init__(self, classes: int = 2, width: int = 8) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(20, width) for _ in range(4))
        self.bottom = nn.Sequential(nn.Linear(13, 32), nn.ReLU(), nn.Linear(32, width), nn.ReLU())
        self.top = nn.Sequential(nn.Linear(width + 10, 32), nn.ReLU(), nn.Linear(32, classes))
        rows, columns = torch.tril_indices(5, 5, offset=-1)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)

    def forward(self, dense: Tensor, sparse: Tensor) -> Tensor:
        x = self.bottom(dense)
        vectors = [x, *(table(sparse[:, i]) for i, table in enumerate(self.tables))]
        stacked = torch.stack(vectors, 1)
        products = torch.bmm(stacked, stacked.transpose(1, 2))[:, self.rows, self.columns]
        return self.top(torch.cat([x, products], 1))


class PointNet(nn.Module):
    """Qi et al. 2017 without the transforms: shared layers, a maximum over the points."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv1d(3, 32, 1), nn.BatchNorm1d(32), nn.ReLU(),
            nn.Conv1d(32, 64, 1), nn.BatchNorm1d(64), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.max(self.features(x), 2)[0])


class CRNN(nn.Module):
    """Shi et al. 2015: convolutions, then a bidirectional LSTM over the columns."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d((16, 1)),
        )  # fmt: skip
        self.rnn = nn.LSTM(32, 16, bidirectional=True, batch_first=True)
        self.head = nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        columns = self.cnn(x).squeeze(2).permute(0, 2, 1)
        outputs, _ = self.rnn(columns)
        return self.head(outputs)


class VoiceActivity(nn.Module):
    """A detector in the manner of silero: convolutions, an LSTM cell, its state in and out."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv1d(1, 32, 16, stride=8, padding=4), nn.ReLU(),
            nn.Conv1d(32, 32, 3, stride=2, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.cell = nn.LSTMCell(32, 32)
        self.head = nn.Linear(32, classes)

    def forward(self, x: Tensor, state: Tensor) -> dict[str, Tensor]:
        features = self.encoder(x).mean(2)
        hidden, cell = self.cell(features, (state[:, 0], state[:, 1]))
        return {"logits": self.head(F.relu(hidden)), "state": torch.stack([hidden, cell], 1)}
