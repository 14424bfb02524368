"""Random numbers of one sample's draw: torch, numpy and random, seeded for it alone."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from edgekd.data.seeds import derive_seed


def seed_draw(seed: int, row: int, generators: Sequence[Any] = ()) -> None:
    """Seed the global generators of torch, numpy and random for one sample, and the others that
    are given."""
    drawn = derive_seed(seed, "sample", row)
    torch.default_generator.manual_seed(drawn)  # manual_seed keeps a traceback for each GPU
    np.random.seed(drawn % 2**32)
    random.seed(drawn)
    for generator in generators:
        _seed(generator, drawn)


def generators_of(owner: object) -> list[Any]:
    """The generators among an object's attributes, and the transforms (albumentations') that have
    one inside; a data set within a data set is looked into as well."""
    found: list[Any] = []
    seen: set[int] = set()
    while owner is not None and id(owner) not in seen:
        seen.add(id(owner))
        attributes = vars(owner) if hasattr(owner, "__dict__") else {}
        found += [value for value in (owner, *attributes.values()) if _is_generator(value)]
        owner = attributes.get("dataset")
    return found


def _is_generator(value: object) -> bool:
    kinds = torch.Generator | np.random.Generator | np.random.RandomState | random.Random
    return isinstance(value, kinds) or callable(getattr(value, "set_random_seed", None))


def _seed(generator: Any, seed: int) -> None:
    if isinstance(generator, torch.Generator):
        generator.manual_seed(seed)
    elif isinstance(generator, np.random.Generator):
        kind = type(generator.bit_generator)
        generator.bit_generator.state = kind(seed).state
    elif isinstance(generator, np.random.RandomState):
        generator.seed(seed % 2**32)
    elif isinstance(generator, random.Random):
        generator.seed(seed)
    else:
        generator.set_random_seed(seed % 2**32)


@contextmanager
def callers_randomness() -> Iterator[None]:
    """The state of the global generators as it was, restored after draws in this process."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)
