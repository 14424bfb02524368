"""Networks of every kind that other people write compute what they did, whatever is done to them.

Each is held against the float module: the exported graph, the calibrated one within what its bits
allow, the ONNX file, the network without a third of its channels, and the one factorized at full
rank. What is not supported is refused.
"""

import re
from collections.abc import Iterable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from checks import Case
from foreign import Foreign, relu
from foreign_in_place import IN_PLACE, REFUSED
from foreign_moves import MOVED
from foreign_operands import OPERANDS
from foreign_weights import WEIGHTS
from run import CHECKS, outcome
from torch import nn

from edgekd.errors import InputError

NETWORKS: dict[str, Foreign] = {
    f"{kind}: {name}": network
    for kind, networks in {
        "weight": WEIGHTS,
        "operand": OPERANDS,
        "in place": IN_PLACE,
        "moved": MOVED,
    }.items()
    for name, network in networks.items()
}


def marked(names: Iterable[str]) -> list[Any]:
    """One in three is tried in CI: together they take some minutes."""
    return [
        pytest.param(name, marks=pytest.mark.long if number % 3 else pytest.mark.slow)
        for number, name in enumerate(names)
    ]


SHOWN = [*NETWORKS][:96:8]
"""Networks that are also made TFLite files and files in half precision, which takes seconds."""

MASKED = {**WEIGHTS, **MOVED}

NOT_EXPORTED = {"in place: the diagonal": "the ONNX exporter failed"}
"""Networks that the plan refuses, with its words."""

COUNTING = {
    "layer norm over channels", "group norm", "local response", "standardized",
    "standardized and folded",
}  # fmt: skip
"""Networks in which a channel of zeros still counts for its neighbours."""


@pytest.mark.parametrize("name", marked(NETWORKS))
def test_a_foreign_network_computes_what_it_did(name: str) -> None:
    case = Case(NETWORKS[name])
    for check in ("export", "ptq", "onnx"):
        kind, words = outcome(CHECKS[check], case)
        if check == "onnx" and name in NOT_EXPORTED:
            assert NOT_EXPORTED[name] in words
        else:
            assert kind in ("right", "rounding"), f"{check}: {words}"


@pytest.mark.parametrize("name", marked(MASKED))
def test_pruning_and_full_rank_change_nothing_else(name: str) -> None:
    case = Case(MASKED[name])
    for check in ("low rank",) if name in COUNTING else ("silenced", "low rank"):
        kind, words = outcome(CHECKS[check], case)
        assert kind == "right", f"{check}: {words}"


@pytest.mark.slow
@pytest.mark.parametrize("name", SHOWN)
def test_a_foreign_network_computes_the_same_in_tflite(name: str) -> None:
    kind, words = outcome(CHECKS["tflite"], Case(NETWORKS[name]))
    assert kind in ("right", "rounding"), words


@pytest.mark.slow
@pytest.mark.parametrize("name", SHOWN)
def test_a_foreign_network_computes_the_same_in_half_precision(name: str) -> None:
    kind, words = outcome(CHECKS["half"], Case(NETWORKS[name]))
    assert kind == "right", words


IN_HALF = {
    "a state that begins with zeros": Foreign(
        lambda n, x: n.o(torch.tanh(torch.zeros(x.shape[0], 8) + n.a(x)) * torch.ones(8)),
        lambda: {"a": nn.Linear(8, 8), "o": nn.Linear(8, 3)},
        (8,),
    ),
    "a mask of -1e9": Foreign(
        lambda n, x: n.o(n.a(x).masked_fill(n.no, -1e9).softmax(1) + (n.a(x) + n.far).softmax(1)),
        lambda: {
            "a": nn.Linear(8, 6), "o": nn.Linear(6, 3), "no": torch.arange(6) > 3,
            "far": torch.where(torch.arange(6) > 4, -1e9, 0.0),
        },
        (8,),
    ),
    "unit length of nothing": Foreign(
        lambda n, x: n.o(F.normalize(relu(n.a(x) - 10), dim=1) + F.normalize(n.a(x), dim=1)),
        lambda: {"a": nn.Linear(8, 6), "o": nn.Linear(6, 3)},
        (8,),
    ),
}  # fmt: skip
"""Networks with numbers that half precision can't hold, or that they make by themselves."""


@pytest.mark.parametrize("name", IN_HALF)
def test_numbers_beyond_half_precision_are_brought_into_its_reach(name: str) -> None:
    assert outcome(CHECKS["half"], Case(IN_HALF[name])) == ("right", "")


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_exported_is_refused_with_the_reason(name: str) -> None:
    network, reason = REFUSED[name]
    with pytest.raises(InputError, match=re.escape(reason)):
        CHECKS["ptq"](Case(network))
