"""A network that can't be traced is refused with what in its forward is to blame."""

import pytest
import torch
from torch import Tensor, nn

from edgekd.errors import InputError
from edgekd.quant.export import export_graph


class Forward(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.use = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.use(x)


def by_value(x):
    return x * 2 if x.sum() > 0 else x


@pytest.mark.parametrize(
    ("forward", "words"),
    [
        (lambda x: x.reshape(2, -1), r"forward\(\) works for one batch size alone"),
        (
            lambda x: torch.cdist(x.flatten(1), torch.ones(3, 12)),
            r"forward\(\) takes another path unless .*batch.*batch <= 25",
        ),
        (
            by_value,
            r"forward\(\) depends on the values of a tensor in "
            r"'return x \* 2 if x.sum\(\) > 0 else x' \(test_export_errors.py, line \d+\)",
        ),
        (lambda x: x.nothing, r"AttributeError: .*nothing"),
    ],
)
def test_the_cause_is_in_the_message(forward, words):
    with pytest.raises(InputError, match=rf"torch.export can't trace this model: {words}"):
        export_graph(Forward(forward), torch.randn(1, 3, 4))
