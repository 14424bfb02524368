"""Each criterion against numbers worked out by hand."""

import pytest
import torch

from edgekd.errors import InputError
from edgekd.registry import CRITERIA
from edgekd.stages.prune.criteria import Criterion
from edgekd.values.tables import build

W = torch.tensor([[1.0, -2.0], [3.0, 0.5]])
G = torch.tensor([[0.5, 1.0], [-1.0, 2.0]])
ZERO = torch.zeros(2, 2)


def made(name: str, **table: object) -> Criterion:
    criterion: Criterion = build(CRITERIA.get(name), table, "criterion")
    return criterion


def after(criterion: Criterion, *batches: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    score = torch.zeros_like(batches[0][0])
    for value, gradient in batches:
        score = criterion.step(score, value, gradient)
    return criterion.finish(score, batches[0][0], batches[-1][0], len(batches))


def test_every_criterion_is_listed_with_its_paper() -> None:
    assert CRITERIA.names() == [
        "activation-energy", "bn-scale", "distance-moved", "magnitude-l1", "magnitude-l2",
        "movement", "nested", "soft-movement", "taylor",
    ]  # fmt: skip
    assert all(CRITERIA.get(name).paper.startswith("https://") for name in CRITERIA.names())


def test_l1_of_a_channel_is_the_sum_of_absolute_values() -> None:
    criterion = made("magnitude-l1")
    scores = criterion.finish(ZERO, W, W, 0)
    assert criterion.channel(scores.sum(1)).tolist() == [3.0, 3.5]


def test_l2_of_a_channel_is_its_euclidean_norm() -> None:
    criterion = made("magnitude-l2")
    scores = criterion.finish(ZERO, W, W, 0)
    expected = [5.0**0.5, 9.25**0.5]
    assert criterion.channel(scores.sum(1)).tolist() == pytest.approx(expected)


def test_taylor_is_the_mean_square_of_weight_times_gradient() -> None:
    # (w g)^2: 0.25, 4, 9, 1 in the first batch and 1, 16, 36, 4 in the second.
    scores = after(made("taylor"), (W, G), (W, 2 * G))
    assert scores.tolist() == [[0.625, 10.0], [22.5, 2.5]]


def test_movement_falls_where_training_shrinks_a_weight() -> None:
    # A positive product of weight and gradient moves the weight towards zero.
    scores = after(made("movement", rate=0.5), (W, G), (W, G))
    assert scores.tolist() == [[-0.5, 2.0], [3.0, -1.0]]


def test_soft_movement_is_penalised_movement_through_a_sigmoid() -> None:
    criterion = made("soft-movement", rate=1.0, penalty=2.0)
    first = criterion.step(torch.zeros(1), torch.tensor([1.0]), torch.tensor([0.5]))
    assert first.item() == pytest.approx(-1.0)  # 0 - (1 * 0.5 + 2 * 0.25)
    assert criterion.finish(first, first, first, 1).item() == pytest.approx(0.2689414)


def test_distance_is_from_the_first_weight_to_the_last() -> None:
    scores = made("distance-moved").finish(ZERO, W, W + G, 3)
    assert torch.allclose(scores, G.abs())


def test_bn_scale_is_the_absolute_scale() -> None:
    gamma = torch.tensor([-2.0, 0.1])
    assert made("bn-scale").finish(torch.zeros(2), gamma, gamma, 0).tolist() == [2.0, gamma[1]]


def test_energy_is_the_mean_square() -> None:
    values = torch.tensor([1.0, 3.0])
    scores = after(made("activation-energy"), (values, values), (2 * values, values))
    assert scores.tolist() == [2.5, 22.5]


@pytest.mark.parametrize(
    ("name", "table"), [("movement", {"rate": 0.0}), ("soft-movement", {"penalty": -1.0})]
)
def test_a_parameter_out_of_range_is_refused(name: str, table: dict[str, float]) -> None:
    with pytest.raises(InputError, match="above 0"):
        made(name, **table)
