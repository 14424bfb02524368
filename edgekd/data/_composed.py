"""Scenes composed of scikit-learn's digits, with exact targets; the same for the same seed."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Pasted:
    """One digit in a scene; its ink lies in the box [top, bottom) x [left, right)."""

    digit: int
    ink: Array
    top: int
    left: int

    @property
    def bottom(self) -> int:
        return self.top + int(self.ink.shape[0])

    @property
    def right(self) -> int:
        return self.left + int(self.ink.shape[1])


def digits_of(part: str) -> tuple[Array, NDArray[np.int64]]:
    """Images (N, 8, 8) in [0, 1] and their labels: every fifth digit belongs to the test part, so
    that no test scene has a digit that a training scene has."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    test = np.arange(len(bunch.target)) % 5 == 4
    chosen = test if part == "test" else ~test
    return (bunch.images[chosen] / 16).astype(np.float32), bunch.target[chosen].astype(np.int64)


def inked(image: Array) -> Array:
    """The smallest part of an image that contains all its ink."""
    rows, columns = np.nonzero(image > 0.2)
    return image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def scenes(
    part: str, count: int, size: int, least: int, most: int, seed: int
) -> Iterator[tuple[Array, list[Pasted]]]:
    """`count` scenes (size, size) with `least` to `most` digits that don't touch each other, each
    enlarged once or twice, over faint noise."""
    images, labels = digits_of(part)
    random = np.random.default_rng([seed, part == "test"])
    for _ in range(count):
        canvas = random.uniform(0, 0.15, (size, size)).astype(np.float32)
        taken = np.zeros((size, size), bool)
        pasted: list[Pasted] = []
        wanted = int(random.integers(least, most + 1))
        for _ in range(50):
            if len(pasted) == wanted:
                break
            index = int(random.integers(len(images)))
            scale = int(random.integers(1, 3))
            ink = np.kron(inked(images[index]), np.ones((scale, scale), np.float32))
            top = int(random.integers(0, size - ink.shape[0] + 1))
            left = int(random.integers(0, size - ink.shape[1] + 1))
            area = np.s_[
                max(0, top - 1) : top + ink.shape[0] + 1, max(0, left - 1) : left + ink.shape[1] + 1
            ]
            if taken[area].any():
                continue
            taken[area] = True
            pasted_digit = Pasted(int(labels[index]), ink, top, left)
            place = np.s_[
                pasted_digit.top : pasted_digit.bottom, pasted_digit.left : pasted_digit.right
            ]
            canvas[place] = np.maximum(canvas[place], ink)
            pasted.append(pasted_digit)
        yield canvas, pasted
