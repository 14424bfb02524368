"""Disease progression from ten measurements: a real regression that scikit-learn carries."""

import torch

from edgekd.data.samples import Samples
from edgekd.data.sets import SETS
from edgekd.data.source import Source
from edgekd.data.tasks.regression import Regression


@SETS.register(paper="Efron, Hastie, Johnstone, Tibshirani 2004, least angle regression")
def diabetes() -> Source:
    """442 patients: 10 standardized measurements to the progression after a year, in standard
    deviations of the training part. Every fifth patient is in the test set."""
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes()
    x = torch.from_numpy(bunch.data).float() * len(bunch.data) ** 0.5
    y = torch.from_numpy(bunch.target).float().unsqueeze(1)
    test = torch.arange(len(y)) % 5 == 4
    y = (y - y[~test].mean()) / y[~test].std()
    task = Regression(tolerance=0.5)
    return Source(Samples(x[~test], y[~test], task=task), Samples(x[test], y[test], task=task))
