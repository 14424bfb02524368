"""Handwritten digits, the embedded default: no download, no account."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from edgekd.data.samples import Samples
from edgekd.data.sets import SETS
from edgekd.data.source import Source
from edgekd.data.split import held_out


@SETS.register(paper="Alpaydin & Kaynak, UCI Optical Recognition of Handwritten Digits, 1998")
def digits() -> Source:
    """1,797 handwritten digits that scikit-learn carries: (1, 8, 8), 10 classes, in [0, 1].

    Every fifth sample of each class is the test set (359 samples or so).
    """
    images, labels = _read()
    x = torch.from_numpy(images).float().div(16).unsqueeze(1)
    y = torch.from_numpy(labels).long()
    train, test = held_out(y, share=0.2)
    return Source(
        train=Samples(x[train], y[train]),
        test=Samples(x[test], y[test]),
        labels=tuple(str(digit) for digit in range(10)),
    )


def _read() -> tuple[np.ndarray, np.ndarray]:
    """(N, 8, 8) gray values from 0 to 16, and (N,) labels, from scikit-learn's file: its path alone
    costs nothing, where importing scikit-learn takes seconds."""
    spec = find_spec("sklearn")
    path = Path(spec.origin if spec and spec.origin else "").parent / "datasets/data/digits.csv.gz"
    if not path.is_file():  # it lies elsewhere in some other version, which knows where
        from sklearn.datasets import load_digits

        bunch = load_digits()
        return bunch.images, bunch.target
    table = np.loadtxt(path, delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1]
