"""Sets of indices that must be removed together.

An atom is one index of one dimension of one parameter, such as row 3 of `conv.weight`. Atoms that
an operation lines up are joined; those that must stay are frozen, with the reason.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]

FIXED = 0
"""The atom of a position that no parameter makes, such as a channel of zeros from padding."""

FIXED_REASON = "they are combined with channels whose number is fixed"


@dataclass(frozen=True)
class Range:
    """The atoms of one dimension of one parameter: `first` to `first + size - 1`."""

    parameter: str
    dim: int
    first: int
    size: int

    @property
    def atoms(self) -> Numbers:
        """(size,) the atoms in order."""
        return np.arange(self.first, self.first + self.size)


class Atoms:
    """Disjoint sets of atoms, with path compression; atom 0 is `FIXED` and is never joined."""

    def __init__(self) -> None:
        self.ranges: dict[tuple[str, int], Range] = {}
        self.outputs: list[Numbers] = []
        self._store: Numbers = np.arange(1024)
        self._count = 1
        self._frozen: list[tuple[Numbers, str]] = []

    def of(self, parameter: str, dim: int, size: int) -> Numbers:
        """(size,) the atoms of one dimension, numbered when first asked for."""
        found = self.ranges.get((parameter, dim))
        if found is None:
            found = self.ranges[parameter, dim] = Range(parameter, dim, self._count, size)
            self._count += size
            if self._count > len(self._store):
                more = np.arange(len(self._store), 2 * self._count)
                self._store = np.concatenate([self._store, more])
        return found.atoms

    def find(self, atoms: Numbers) -> Numbers:
        """The representative of each atom's set."""
        found = self._store[atoms]
        while True:
            above = self._store[found]
            if np.array_equal(above, found):
                return found
            found = above

    def join(self, first: Numbers, second: Numbers) -> None:
        """Put `first[k]` and `second[k]` into one set, for every k; beside `FIXED` they freeze."""
        one, other = np.broadcast_arrays(first, second)
        one, other = one.ravel(), other.ravel()
        fixed = (one == FIXED) != (other == FIXED)
        if fixed.any():
            self.freeze(np.maximum(one, other)[fixed], FIXED_REASON)
        alive = (one != FIXED) & (other != FIXED)
        roots = np.stack([self.find(one[alive]), self.find(other[alive])])
        roots = np.unique(np.sort(roots[:, roots[0] != roots[1]], axis=0), axis=1)
        if len(np.unique(roots[1])) == roots.shape[1] and not np.isin(roots[1], roots[0]).any():
            self._store[roots[1]] = roots[0]
            return
        for left, right in roots.T.tolist():
            low, high = sorted((self._root(left), self._root(right)))
            self._store[high] = low

    def join_rows(self, rows: Numbers) -> None:
        """Put the atoms of each column of a (n, m) array into one set."""
        for row in rows[1:]:
            self.join(rows[0], row)

    def freeze(self, atoms: Numbers, reason: str) -> None:
        """Say that these must stay, and why."""
        alive = np.unique(atoms[atoms != FIXED])
        if len(alive):
            self._frozen.append((alive, reason))

    def frozen(self) -> dict[int, str]:
        """The first reason of every set that must stay, by its representative."""
        reasons: dict[int, str] = {}
        for atoms, reason in self._frozen:
            for root in np.unique(self.find(atoms)):
                reasons.setdefault(int(root), reason)
        return reasons

    def of_outputs(self) -> set[int]:
        """The representatives of the sets that reach the network's outputs."""
        return self.representatives(self.outputs)

    def representatives(self, arrays: Iterable[Numbers]) -> set[int]:
        """Those of the sets that any of the atoms are in."""
        return _members(self.find(atoms[atoms != FIXED]) for atoms in arrays)

    def roots(self) -> Numbers:
        """(atoms,) the representative of every atom there is."""
        return self.find(np.arange(self._count))

    def owners(self, atoms: Numbers) -> set[tuple[str, int]]:
        """The parameters' dimensions that atoms are of."""
        ranges = list(self.ranges.values())
        firsts = np.array([each.first for each in ranges])
        numbers = np.unique(np.searchsorted(firsts, atoms[atoms != FIXED], side="right") - 1)
        return {(ranges[number].parameter, ranges[number].dim) for number in numbers.tolist()}

    def _root(self, atom: int) -> int:
        while self._store[atom] != atom:
            self._store[atom] = self._store[self._store[atom]]
            atom = int(self._store[atom])
        return atom


def _members(arrays: Iterable[Numbers]) -> set[int]:
    return {int(each) for array in arrays for each in array}
