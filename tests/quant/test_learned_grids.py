"""Trained grids in the int8 graph: the same before training, and what was learned in the file."""

import pytest
import torch
from torch import nn

from edgekd.errors import InputError
from edgekd.quant.inspection import float_islands
from edgekd.quant.learned_grids import LearnedEnds, LearnedGrid, learn_grids, settle_grids
from edgekd.quant.mixed import Mixed, check_reached, sensitivities, widened
from edgekd.quant.post_training import PostTraining
from edgekd.quant.qat import finish_qat, prepare_qat
from edgekd.quant.ranges import RangeRule
from edgekd.quant.trials import Int8Trial
from edgekd.values.target import Scheme

SCHEMES = [
    Scheme(activations="uint8-affine", weight_bits=7),
    Scheme(activations="int8-affine"),
    Scheme(activations="int8-symmetric"),
]


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.activations)
@pytest.mark.parametrize("method", ["lsq", "pact"])
def test_learned_grids_start_where_calibration_ended(method, scheme, network, samples) -> None:
    plain = finish_qat(prepare_qat(network, samples[:1], samples, scheme), samples[:1])
    graph = prepare_qat(network, samples[:1], samples, scheme)
    learn_grids(graph, method)
    settle_grids(graph)
    same = finish_qat(graph, samples[:1])
    with torch.no_grad():
        expected, found = plain(samples), same(samples)
    # A scale may differ in its last bit, which moves a value at the edge of a step by one.
    assert float((expected - found).abs().max()) <= 0.05 * float(expected.abs().max())
    assert float((expected - found).abs().mean()) <= 0.005 * float(expected.abs().max())


@pytest.mark.parametrize("method", ["lsq", "pact"])
def test_what_is_learned_is_what_the_finished_graph_computes(method, network, samples) -> None:
    graph = prepare_qat(network, samples[:1], samples, SCHEMES[1])
    learn_grids(graph, method)
    kinds = LearnedGrid if method == "lsq" else LearnedEnds
    grids = {id(part): part for part in graph.modules() if isinstance(part, kinds)}
    assert len(grids) > 10
    graph.train()
    graph(samples).square().mean().backward()
    ratios = {n: p for n, p in graph.named_parameters() if n.endswith("ratio")}
    assert ratios
    with torch.no_grad():
        for parameter in ratios.values():
            assert parameter.grad is not None
            assert parameter.dim() == 1
            parameter.mul_(0.7)
    graph.eval()
    with torch.no_grad():
        trained = graph(samples)
        settle_grids(graph)
        finished = finish_qat(graph, samples[:1])(samples)
    assert float((trained - finished).abs().max()) <= 0.05 * float(trained.abs().max())


def test_an_end_at_zero_stays_there_and_symmetric_ends_stay_so(network, samples) -> None:
    for scheme in SCHEMES[1:]:
        graph = prepare_qat(network, samples[:1], samples, scheme)
        learn_grids(graph, "pact")
        ends = [part for part in graph.modules() if isinstance(part, LearnedEnds)]
        for part in ends:
            low, high = part.ends()
            assert float(high.detach()) > 0
            if scheme.activations == "int8-symmetric":
                assert float(low) == -float(high)
            else:
                assert float(low) <= 0
        if scheme.activations == "int8-affine":
            assert any(part.lower is None for part in ends)  # behind a ReLU
            assert any(part.lower is not None for part in ends)


def one_bad_layer() -> tuple[nn.Module, torch.Tensor]:
    """The first of three layers has one weight so large that all others round to zero; what it is
    multiplied with is always zero."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)).eval()
    x = torch.rand(32, 8)
    with torch.no_grad():
        module[0].weight[0, 0] = 1000.0
        x[:, 0] = 0.0
    return module, x


def test_the_layer_that_suffers_most_comes_first_and_stays_wide() -> None:
    module, x = one_bad_layer()
    scheme = Scheme(activations="int8-affine", per_channel=False)
    trial = Int8Trial(prepare_qat(module, x[:1], x, scheme))
    errors = sensitivities(trial, module, x, lambda *_: None)
    assert next(iter(errors)) == "0"
    assert list(errors.values()) == sorted(errors.values(), reverse=True)
    assert widened(trial, errors, Mixed(layers=1), lambda _: 0.0, 0.0) == ("0",)
    graph = finish_qat(prepare_qat(module, x[:1], x, scheme, floats=("0",)), x[:1])
    assert float_islands(graph) == ["aten.linear (0)"]
    whole = finish_qat(prepare_qat(module, x[:1], x, scheme), x[:1])
    with torch.no_grad():
        expected = module(x)
        assert (graph(x) - expected).abs().mean() < 0.1 * (whole(x) - expected).abs().mean()


def test_as_few_layers_stay_wide_as_the_drop_allows() -> None:
    class Counting:
        graph = nn.Identity()
        layers = ["a", "b", "c", "d"]
        narrowed: tuple[str, ...] = ()

        def narrow(self, names) -> None:
            self.narrowed = tuple(names)

    trial = Counting()
    errors = {"c": 0.4, "a": 0.3, "d": 0.2, "b": 0.1}

    def score(_) -> float:
        return 0.9 - 0.02 * len(trial.narrowed)

    mixed = Mixed(accuracy_drop=4.0)
    assert widened(trial, errors, mixed, score, 0.9) == ("c", "a")  # type: ignore[arg-type]
    assert widened(trial, errors, Mixed(accuracy_drop=50), score, 0.9) == ()  # type: ignore[arg-type]
    assert len(widened(trial, errors, Mixed(accuracy_drop=0), score, 0.9)) == 4  # type: ignore[arg-type]


class Scripted:
    """A trial whose score falls by a number of points for each narrow layer."""

    graph = nn.Identity()
    narrowed: tuple[str, ...] = ()

    def __init__(self, **losses: float) -> None:
        self.losses = losses
        self.layers = list(losses)

    def narrow(self, names) -> None:
        self.narrowed = tuple(names)

    def score(self, _) -> float:
        return 0.9 - sum(self.losses[name] for name in self.narrowed) / 100


def test_a_layer_of_the_most_sensitive_that_need_not_stay_wide_is_made_narrow() -> None:
    """The outputs suffer most from a, the score from b: the prefix (a, b) needs b alone."""
    trial = Scripted(a=0.1, b=3.0, c=0.2)
    errors = {"a": 0.5, "b": 0.4, "c": 0.1}
    found = widened(trial, errors, Mixed(accuracy_drop=0.5), trial.score, 0.9)  # type: ignore[arg-type]
    assert found == ("b",)


def test_the_most_expensive_layers_are_made_narrow_first() -> None:
    trial = Scripted(a=0.4, b=0.4, c=3.0)
    errors = {"a": 0.5, "b": 0.4, "c": 0.3}
    for costs, kept in (({"a": 9.0, "b": 1.0}, ("b", "c")), ({"a": 1.0, "b": 9.0}, ("a", "c"))):
        found = widened(trial, errors, Mixed(accuracy_drop=0.5), trial.score, 0.9, costs)  # type: ignore[arg-type]
        assert found == kept


def test_a_drop_that_no_layer_keeps_within_is_refused_with_the_nearest() -> None:
    trial, mixed = Scripted(a=2.0, b=1.5), Mixed(accuracy_drop=0.5)
    wide = widened(trial, {"a": 0.5, "b": 0.4}, mixed, trial.score, 0.9)  # type: ignore[arg-type]
    with pytest.raises(InputError) as caught:
        check_reached(trial, wide, mixed, trial.score, 0.9, "float")  # type: ignore[arg-type]
    assert caught.value.message == "no layer can be narrow within 0.5 points"
    assert caught.value.allowed == "1.50 or more, which 'b' alone loses"


@pytest.mark.parametrize("keys", [{}, {"layers": 1, "accuracy_drop": 1.0}])
def test_mixed_needs_one_goal(keys) -> None:
    with pytest.raises(ValueError, match="one of 'accuracy_drop', 'layers' and 'weights_kb'"):
        Mixed(**keys)


@pytest.mark.parametrize(
    "choices",
    [
        PostTraining(RangeRule("mse"), weight_ranges="mse"),
        PostTraining(RangeRule("percentile"), equalize=True),
        PostTraining(RangeRule("octav"), smooth_quant=True),
        PostTraining(RangeRule("entropy"), absorb_biases=True),
    ],
    ids=["mse", "equalized", "smoothed", "absorbed"],
)
@pytest.mark.parametrize("method", ["qat", "lsq", "pact"])
def test_training_goes_on_from_each_way_to_calibrate(choices, method):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    x = torch.randn(64, 8)
    graph = prepare_qat(module, x[:1], x, Scheme(activations="int8-affine"), choices=choices)
    if method != "qat":
        learn_grids(graph, method)
    wanted = module(x).detach() * 1.5
    optimizer = torch.optim.Adam([p for p in graph.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(20):
        loss = (graph.train()(x) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    settle_grids(graph)
    finished = finish_qat(graph, x[:1])
    assert losses[-1] < 0.5 * losses[0]
    assert float((finished(x) - wanted).square().mean()) < 0.5 * losses[0]
