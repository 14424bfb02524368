"""Recurrent layers as unrolled graphs: their values, and what is refused."""

import pytest
import torch
from torch import Tensor, fx, nn

from edgekd.errors import InputError
from edgekd.network.calling import take_one_argument
from edgekd.network.taps import Taps, is_within
from edgekd.quant.calibration import calibrate
from edgekd.quant.export import export_graph
from edgekd.quant.inspection import float_islands
from edgekd.quant.qat import finish_qat, prepare_qat
from edgekd.quant.recurrent import RECURRENT
from edgekd.quant.rewrite import QUANTIZE
from edgekd.quant.weight_only import finish_narrow, narrowed, stored_weights, weighted_layers
from edgekd.values.target import Scheme
from edgekd.values.tree import Tree, leaves, rows

X = torch.randn(5, 7, 4, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    """All outputs of a recurrent layer: the sequence and the states, the batch first."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y, states = self.layer(x if self.layer.batch_first else x.transpose(0, 1))
        states = states if isinstance(states, tuple) else (states,)
        first = y if self.layer.batch_first else y.transpose(0, 1)
        return first, *(state.transpose(0, 1) for state in states)


class Stateful(nn.Module):
    """A recurrent layer whose state is an input and an output."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        states = [h.transpose(0, 1), c.transpose(0, 1)]
        y, last = self.layer(x, tuple(states) if isinstance(self.layer, nn.LSTM) else states[0])
        return y[:, -1], (last[1] if isinstance(self.layer, nn.LSTM) else last).transpose(0, 1)


def assert_equal(module: nn.Module, x: Tree) -> None:
    module.eval()
    take_one_argument(module)
    graph = export_graph(module, x)
    assert not [node for node in graph.graph.nodes if node.target in RECURRENT]
    expected, found = (leaves(run(x)) for run in (module, graph))
    for mine, theirs in zip(expected, found, strict=True):
        torch.testing.assert_close(theirs, mine, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"num_layers": 2, "bias": False}])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_an_unrolled_layer_computes_what_the_layer_does(
    kind: type[nn.RNNBase], options: dict[str, object]
) -> None:
    assert_equal(Net(kind(4, 3, batch_first=True, **options)), X)


@pytest.mark.parametrize("batch_first", [True, False])
def test_two_bidirectional_layers_with_a_projection_are_equal(batch_first: bool) -> None:
    layer = nn.LSTM(4, 6, 2, bidirectional=True, proj_size=3, batch_first=batch_first)
    assert_equal(Net(layer), X)


def test_a_relu_layer_is_equal() -> None:
    assert_equal(Net(nn.RNN(4, 3, nonlinearity="relu")), X)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_states_as_inputs_and_outputs_are_equal(kind: type[nn.RNNBase]) -> None:
    layer = kind(4, 3, 2, batch_first=True, bidirectional=True)
    states = torch.randn(2, 5, 4, 3)
    assert_equal(Stateful(layer), {"x": X, "h": states[0], "c": states[1]})


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
@pytest.mark.parametrize("given", [True, False])
def test_cells_are_equal(kind: type[nn.RNNCellBase], given: bool) -> None:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = kind(4, 3)

        def forward(self, x: Tensor, h: Tensor) -> object:
            if not given:
                return self.cell(x) if kind is not nn.LSTMCell else (*self.cell(x), h)
            return self.cell(x, (h, h + 1) if kind is nn.LSTMCell else h)

    assert_equal(Cell(), {"x": X[:, 0], "h": torch.randn(5, 3)})


def test_a_packed_sequence_is_refused_by_the_name_of_the_layer() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.GRU(4, 3, batch_first=True)

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
            return self.encoder(packed)[1][0]

    net = Packed().eval()
    take_one_argument(net)
    with pytest.raises(InputError, match="recurrent layer 'encoder' reads a packed sequence"):
        export_graph(net, {"x": X[:1], "lengths": torch.tensor([7])})


def test_a_step_of_a_cell_is_the_one_computed_by_hand() -> None:
    """Every weight is 1, x = 0.5, h = 0.25 and c = 2: every weighted sum is 0.5 + 0.25 = 0.75, and
    sigmoid(0.75) = 0.679179, tanh(0.75) = 0.635149."""
    x, h, c = torch.tensor([[0.5]]), torch.tensor([[0.25]]), torch.tensor([[2.0]])

    def graph_of(cell: nn.Module, example: Tree) -> fx.GraphModule:
        for parameter in cell.parameters():
            nn.init.ones_(parameter)
        take_one_argument(cell.eval())
        return export_graph(cell, example)

    # n = tanh(0.5 + 0.679179 * 0.25), h' = (1 - 0.679179) n + 0.679179 * 0.25
    gru = graph_of(nn.GRUCell(1, 1, bias=False), (x, h))
    assert float(gru((x, h))) == pytest.approx(0.357425, abs=1e-6)
    # c' = 0.679179 * 2 + 0.679179 * 0.635149, h' = 0.679179 tanh(c')
    lstm = graph_of(Wrapped(nn.LSTMCell(1, 1, bias=False)), (x, h, c))
    hidden, state = lstm((x, h, c))
    assert float(state) == pytest.approx(1.789737, abs=1e-6)
    assert float(hidden) == pytest.approx(0.642322, abs=1e-6)
    plain = graph_of(nn.RNNCell(1, 1, bias=False), (x, h))
    assert float(plain((x, h))) == pytest.approx(0.635149, abs=1e-6)


class Wrapped(nn.Module):
    """An LSTM cell with its states as two inputs."""

    def __init__(self, cell: nn.LSTMCell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        return self.cell(x, (h, c))


class Streaming(nn.Module):
    """One frame and the state in, two logits and the next state out."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(4, 8), nn.Linear(8, 2)

    def forward(self, frame: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = self.cell(frame, state)
        return self.head(state), state


@pytest.fixture(scope="module")
def streaming() -> tuple[fx.GraphModule, Tree]:
    torch.manual_seed(0)
    net = Streaming().eval()
    take_one_argument(net)
    x = {"frame": torch.randn(64, 4), "state": torch.rand(64, 8) * 2 - 1}
    return calibrate(net, rows(x, slice(0, 1)), x, Scheme(activations="int8-affine")), x


def test_a_state_goes_in_and_comes_out_on_one_grid(streaming: tuple[fx.GraphModule, Tree]) -> None:
    graph, _ = streaming
    readers = [node for node in graph.graph.nodes if node.target in QUANTIZE]
    entry = next(node for node in readers if node.args[0].name.endswith("state"))
    output = next(node for node in graph.graph.nodes if node.op == "output")
    _, state = leaves(output.args[0])
    assert entry.args[1:3] == state.args[1:3]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("trained", [False, True])
def test_all_steps_share_their_grids_and_weights(kind: type[nn.RNNBase], trained: bool) -> None:
    torch.manual_seed(0)
    net = Net(kind(4, 8, batch_first=True)).eval()
    take_one_argument(net)
    scheme = Scheme(activations="int8-affine")
    if trained:
        graph = finish_qat(prepare_qat(net, X[:1], X, scheme), X[:1])
    else:
        graph = calibrate(net, X[:1], X, scheme)
    assert float_islands(graph) == []
    integers = [value for value in graph.buffers() if value.dtype is torch.int8]
    weights = [value for value in integers if value.dim() == 2 and value.numel() > 10]
    assert len(weights) == 2
    sums = [node for node in graph.graph.nodes if node.target is torch.ops.aten.add.Tensor]
    grids = {user.args[1:3] for node in sums for user in node.users}
    # An LSTM adds up its gates and its cell, a GRU two kinds of gates and its state.
    assert len(grids) == (2 if kind is nn.LSTM else 3)


def test_narrow_weights_are_stored_once_for_all_steps() -> None:
    net = Net(nn.GRU(4, 8, batch_first=True)).eval()
    take_one_argument(net)
    graph = export_graph(net, X[:1])
    layers = weighted_layers(graph)
    assert len(layers) == 2
    assert all(is_within(name, ["layer"]) for name in layers)
    finished = finish_narrow(narrowed(graph, dict.fromkeys(layers, "int4"), 4))
    assert len(stored_weights(finished)) == 2


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_tap_reads_the_sequence_of_a_layer_before_and_after_unrolling(
    kind: type[nn.RNNBase],
) -> None:
    net = Net(kind(4, 3, 2, batch_first=True, bidirectional=True)).eval()
    take_one_argument(net)
    values = []
    for module in (net, export_graph(net, X[:1])):
        with Taps(module, ["layer"]) as taps, torch.no_grad():
            module(X)
            values.append(taps.outputs["layer"])
    assert values[0].shape == (5, 7, 6)
    torch.testing.assert_close(values[1], values[0])
