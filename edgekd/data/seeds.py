"""Random numbers that depend on a seed and on what they are used for, and on nothing else."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(seed: int, *uses: object) -> int:
    """A separate seed for each use, so that no two uses draw the same numbers."""
    digest = hashlib.sha256(repr((seed, *uses)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seeded_generator(seed: int, *uses: object) -> torch.Generator:
    """A CPU generator with the seed that `derive_seed` gives for this use."""
    return torch.Generator().manual_seed(derive_seed(seed, *uses))


@contextmanager
def seeded(seed: int, *uses: object) -> Iterator[None]:
    """Seed torch's default CPU generator for this use, and restore its state afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, *uses))
        yield
