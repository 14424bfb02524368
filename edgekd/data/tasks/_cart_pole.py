"""A pole on a cart, many at once: Barto, Sutton & Anderson 1983, Euler steps of 20 ms.

A state is (position, speed, angle, turning speed) in m, m/s, rad, rad/s; an action pushes the cart
with 10 N to the left (0) or to the right (1). An episode ends beyond 2.4 m or 12 degrees.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

GRAVITY, CART_KG, POLE_KG, HALF_LENGTH_M, PUSH_N, STEP_S = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
FARTHEST_M, LEANING_RAD = 2.4, math.radians(12)


def begin(count: int, seed: int) -> Tensor:
    """(count, 4) states near the middle."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(count, 4, generator=generator) - 0.5) * 0.1


def moved(state: Tensor, force: Tensor) -> Tensor:
    """States (N, 4) after one step under forces (N,) in N."""
    _, speed, angle, turning = state.unbind(1)
    sine, cosine = angle.sin(), angle.cos()
    mass = CART_KG + POLE_KG
    push = (force + POLE_KG * HALF_LENGTH_M * turning**2 * sine) / mass
    inertia = HALF_LENGTH_M * (4 / 3 - POLE_KG * cosine**2 / mass)
    twist = (GRAVITY * sine - cosine * push) / inertia
    pull = push - POLE_KG * HALF_LENGTH_M * twist * cosine / mass
    changed = torch.stack([speed, pull, turning, twist], 1)
    return state + STEP_S * changed


def forces(actions: Tensor) -> Tensor:
    """(N,) forces of actions (N,)."""
    return (2.0 * actions - 1.0) * PUSH_N


def fallen(state: Tensor) -> Tensor:
    """(N,) whether an episode is over."""
    return (state[:, 0].abs() > FARTHEST_M) | (state[:, 2].abs() > LEANING_RAD)


def returns(act: Callable[[Tensor], Tensor], episodes: int, steps: int, seed: int) -> Tensor:
    """(episodes,) steps that each pole stays up, at most `steps`; `act` maps states to actions."""
    state = begin(episodes, seed)
    alive = torch.ones(episodes, dtype=torch.bool)
    total = torch.zeros(episodes, dtype=torch.float64)
    for _ in range(steps):
        state = torch.where(alive[:, None], moved(state, forces(act(state))), state)
        alive &= ~fallen(state)
        total += alive
        if not bool(alive.any()):
            break
    return total
