"""States that a controller of a pole on a cart meets, with what it does there."""

import torch
from torch import Tensor

from edgekd.data.samples import Samples
from edgekd.data.sets import SETS
from edgekd.data.source import Source
from edgekd.data.tasks._cart_pole import STEP_S, begin, fallen, forces, moved
from edgekd.data.tasks.policy import Policy

EPISODES, STRAYING = 32, 0.3
"""The number of simultaneous poles, and the share of random steps, so that the states are not
only near the centre but also those after a student's mistakes (Ross et al. 2011)."""


@SETS.register(paper="Barto, Sutton & Anderson 1983, neuronlike adaptive elements")
def cart_pole(train: int = 4000, test: int = 1000, seed: int = 0) -> Source:
    """States (4,) on the way of a linear-quadratic regulator, and its pushes: a policy."""
    gain = regulator()
    parts = _visited(train, gain, 2 * seed), _visited(test, gain, 2 * seed + 1)
    return Source(*parts, labels=("left", "right"))


def _visited(count: int, gain: Tensor, seed: int) -> Samples:
    generator = torch.Generator().manual_seed(seed)
    state, states = begin(EPISODES, seed), []
    for step in range(-(-count // EPISODES)):
        states.append(state)
        stray = torch.rand(EPISODES, generator=generator) < STRAYING
        chance = torch.randint(0, 2, (EPISODES,), generator=generator)
        state = moved(state, forces(torch.where(stray, chance, pushes(state, gain))))
        state = torch.where(fallen(state)[:, None], begin(EPISODES, seed + step), state)
    x = torch.cat(states)[:count]
    return Samples(x, pushes(x, gain), task=Policy(environment="cart-pole"))


def pushes(state: Tensor, gain: Tensor) -> Tensor:
    """(N,) 1 where the regulator's force points to the right."""
    return (state @ gain < 0).long()


def regulator() -> Tensor:
    """(4,) the gain of the linear-quadratic regulator of the upright pole, unit costs: Riccati's
    recursion on the linearized dynamics."""
    zero, small = torch.zeros(1, 4, dtype=torch.float64), 1e-5
    rest = moved(zero, torch.zeros(1))
    steps = small * torch.eye(4, dtype=torch.float64)
    a = ((moved(steps, torch.zeros(4)) - rest) / small).T
    b = ((moved(zero, torch.full((1,), small)) - rest) / small).T
    cost = torch.eye(4, dtype=torch.float64)
    value = cost.clone()
    gain = torch.zeros(1, 4, dtype=torch.float64)
    for _ in range(int(60 / STEP_S)):
        gain = torch.linalg.solve(1 + b.T @ value @ b, b.T @ value @ a)
        value = cost + a.T @ value @ (a - b @ gain)
    return gain[0].float()
