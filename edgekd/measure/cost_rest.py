"""What weighted facts leave over of operators' costs, learned from their shapes.

Shapes are rows (N, F) of `edgekd.measure.cost_facts.shape_of`, rests logarithms of the measured
cost over the weighted facts.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgekd.measure.cost_facts import SIZES, Group

Rest = Callable[[Sequence[Group], np.ndarray], np.ndarray]
"""Gives the logarithm of each operator's factor from its group and its shape."""

TREES = 200

LENGTH = 0.7
"""Over how many doublings of its sizes an operator's rest tells that of another, at about 0.5."""

NOISES = (1e-3, 0.01, 0.1, 1.0)
"""The shares of the variance that may be noise."""

MOST_SHAPES = 1500


def forest_rest(groups: Sequence[Group], shapes: np.ndarray, rests: np.ndarray) -> Rest:
    """A forest over all groups (Geurts et al. 2006)."""
    from sklearn.ensemble import ExtraTreesRegressor

    forest = ExtraTreesRegressor(TREES, min_samples_leaf=2, random_state=0)
    forest.fit(shapes, rests)
    return lambda groups, asked: np.asarray(forest.predict(asked))


def interpolated_rest(groups: Sequence[Group], shapes: np.ndarray, rests: np.ndarray) -> Rest:
    """The mean of a Gaussian process for each group (Rasmussen and Williams 2006, equation 2.25):
    near a measured shape its own rest, far from all of them none. How much of the rests is noise is
    decided by the likelihood (equation 2.30)."""
    known: dict[Group, tuple[np.ndarray, np.ndarray]] = {}
    for group in dict.fromkeys(groups):
        own = [place for place, other in enumerate(groups) if other == group]
        points, means, counts = _distinct(shapes[own], rests[own])
        known[group] = (points, _solved(points, means, counts))

    def rest(asked: Sequence[Group], where: np.ndarray) -> np.ndarray:
        found = np.zeros(len(asked))
        for place, group in enumerate(asked):
            if group in known:
                points, weights = known[group]
                found[place] = float((_kernel(where[place : place + 1], points) @ weights)[0])
        return found

    return rest


def _distinct(shapes: np.ndarray, rests: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The shapes without repetitions, the median rest of each, and how often each was measured."""
    points, inverse, counts = np.unique(shapes, axis=0, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(-1)
    means = np.array([float(np.median(rests[inverse == place])) for place in range(len(points))])
    return points[:MOST_SHAPES], means[:MOST_SHAPES], counts[:MOST_SHAPES]


def _solved(points: np.ndarray, means: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The weights (N,) of the points with the most likely share of noise."""
    kernel = _kernel(points, points)
    best: tuple[float, Any] = (-np.inf, np.zeros(len(points)))
    for noise in NOISES:
        matrix = kernel + np.diag(noise / counts)
        sign, size = np.linalg.slogdet(matrix)
        weights = np.linalg.solve(matrix, means)
        variance = max(float(means @ weights) / len(means), 1e-12)
        likelihood = -0.5 * (len(means) * np.log(variance) + size)
        if sign > 0 and likelihood > best[0]:
            best = (likelihood, weights)
    return np.asarray(best[1])


def _kernel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N, M): how far one shape's rest is another's, by the distance of their logarithmic sizes."""
    distances = np.abs(first[:, None, :SIZES] - second[None, :, :SIZES]).max(axis=2)
    smooth: np.ndarray = np.exp(-distances / LENGTH)
    return smooth
