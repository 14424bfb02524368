"""Recurrent networks on real data: scikit-learn's digits, read row by row."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, fx, nn
from torch.nn import functional as F

from edgekd.network.calling import take_one_argument
from edgekd.quant.qat import finish_qat, freeze_ranges, prepare_qat
from edgekd.values.target import Scheme

EPOCHS, BATCH, TRAINED = 25, 64, 1300


class Net(nn.Module):
    """(B, 8 rows, 8 columns) -> (B, 10)"""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.layer, self.head = kind(8, 48, batch_first=True), nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][:, -1])


def rows_and_labels() -> tuple[Tensor, Tensor]:
    pixels, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return torch.tensor(pixels / 16, dtype=torch.float32).view(-1, 8, 8)[order], torch.tensor(
        labels
    )[order]


def fit(module: nn.Module, x: Tensor, y: Tensor, epochs: int, rate: float) -> None:
    optimizer = torch.optim.Adam(module.parameters(), rate)
    module.train()
    for epoch in range(epochs):
        if isinstance(module, fx.GraphModule) and epoch >= epochs - 2:
            freeze_ranges(module)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
        for batch in order.split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(module(x[batch]), y[batch]).backward()
            optimizer.step()
    module.eval()


def accuracy(module: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return 100 * float((module(x).argmax(1) == y).float().mean())


@pytest.mark.slow
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_trained_int8_network_is_a_quarter_in_size_and_within_a_point(
    kind: type[nn.RNNBase],
) -> None:
    torch.manual_seed(0)
    x, y = rows_and_labels()
    train, labels, test, expected = x[:TRAINED], y[:TRAINED], x[TRAINED:], y[TRAINED:]
    net = Net(kind)
    take_one_argument(net)
    fit(net, train, labels, EPOCHS, 5e-3)
    before = accuracy(net, test, expected)
    assert before > 94
    graph = prepare_qat(net, x[:1], train[:256], Scheme(activations="int8-affine"))
    fit(graph, train, labels, 6, 1e-3)
    finished = finish_qat(graph, x[:1])
    assert accuracy(finished, test, expected) >= before - 1
    stored = sum(value.nbytes for value in finished.buffers())
    assert stored < sum(value.nbytes for value in net.parameters()) * 0.45
