"""Networks that were wrong once, found at random and made small."""

import pytest
from checks import Case
from programs import Program, Step
from run import CHECKS, outcome

FOUND = {
    "a batch norm over the steps behind a linear layer over features": (
        "export",
        (5, 16),
        Step("{layer}({0})", (0,), "nn.Linear({n}, 5)"),
        Step("{layer}({0})", (1,), "nn.BatchNorm1d({c})"),
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_a_found_network_is_right(name: str) -> None:
    check, shape, *steps = FOUND[name]
    assert outcome(CHECKS[check], Case(Program(shape, tuple(steps), 0))) == ("right", "")
