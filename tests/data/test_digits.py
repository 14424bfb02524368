import torch
from sklearn.datasets import load_digits

from edgekd.data.sets import digits as module


def test_the_digits_read_from_the_file_are_those_that_scikit_learn_gives():
    images, labels = module._read()
    wanted = load_digits()
    assert (images == wanted.images).all()
    assert (labels == wanted.target).all()


def test_where_the_file_lies_elsewhere_scikit_learn_is_asked(monkeypatch):
    before = module.digits()
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    after = module.digits()
    assert torch.equal(before.train.x, after.train.x)
    assert torch.equal(before.test.y, after.test.y)
