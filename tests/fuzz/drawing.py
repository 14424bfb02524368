"""Draws a whole network from a seed."""

import random

import torch
from operators import BY_RANK, linear
from programs import Program, Step, Trace

SHAPES = ((3, 9, 7), (1, 8, 8), (4, 11, 5), (6, 6, 6), (2, 12, 12), (5, 16), (12, 7), (10,), (17,))
FEWEST, MOST = 5, 40
STAY = 0.75
"""How often a network goes on from its last value, and not from an earlier one."""


def draw(seed: int) -> Program:
    """A network of 5 to 40 operators that gives finite numbers which are not all alike."""
    for attempt in range(100):
        program = _drawn(random.Random(f"{seed} {attempt}"), seed)
        if len(program.steps) >= FEWEST and _is_sound(program):
            return program
    raise RuntimeError(f"no network from seed {seed}")


def _drawn(rng: random.Random, seed: int) -> Program:
    net = Trace(rng.choice(SHAPES))
    wanted = rng.randint(FEWEST, MOST)
    value, tries = 0, 0
    while len(net.steps) < wanted and tries < 200:
        tries += 1
        if rng.random() > STAY:
            value = rng.choice(
                [place for place, each in enumerate(net.values) if not isinstance(each, tuple)]
            )
        operators = BY_RANK[net.values[value].dim()]
        (operator,) = rng.choices([*operators], [*operators.values()])
        before = len(net.steps)
        try:
            value = operator(rng, net, value)
        except (RuntimeError, ValueError, IndexError):  # sizes that don't fit
            net.undo(before)
    _end(rng, net, value)
    return Program(net.shape, tuple(net.steps), seed).read_only()


def _end(rng: random.Random, net: Trace, value: int) -> None:
    """Often a head, as classifiers have one; else the value as it is."""
    if rng.random() < 0.35:
        if value != len(net.steps):
            net.add(Step("{0} * 1.0", (value,)))
        return
    dims = net.values[value].dim()
    if dims == 4:
        value = net.add(Step(rng.choice(["{0}.mean((2, 3))", "{0}.flatten(1)"]), (value,)))
    elif dims == 3:
        value = net.add(Step(rng.choice(["{0}.mean(1)", "{0}.flatten(1)"]), (value,)))
    linear(rng, net, value)


def _is_sound(program: Program) -> bool:
    module = program.network()
    if not any(True for _ in module.parameters()):
        return False
    with torch.no_grad():
        output = module(program.samples(8))
    spread = float(output.std(0).mean())
    return bool(output.isfinite().all()) and spread > 1e-2 and float(output.abs().max()) < 1e3
