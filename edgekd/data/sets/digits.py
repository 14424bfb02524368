"""Handwritten digits, the embedded default: no download, no account."""

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
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = torch.from_numpy(bunch.images).float().div(16).unsqueeze(1)
    y = torch.from_numpy(bunch.target).long()
    train, test = held_out(y, share=0.2)
    return Source(
        train=Samples(x[train], y[train]),
        test=Samples(x[test], y[test]),
        labels=tuple(str(digit) for digit in range(10)),
    )
