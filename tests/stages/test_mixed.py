"""Mixed precision chooses layers and their type by what a device measures, else by MACs."""

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from edgekd.data.samples import Data
from edgekd.errors import InputError
from edgekd.stages import Context
from edgekd.stages._mixed import keep_wide
from edgekd.stages._widths import mixed_kinds
from edgekd.stages.quantize import Quantize
from edgekd.values.candidate import Candidate
from edgekd.values.layer_timer import Timed
from edgekd.values.target import load_target


class Scripted:
    """A trial whose layers lose so many percentage points each when they are narrow."""

    def __init__(self, losses: dict[str, float]) -> None:
        self.graph = nn.Linear(64, 10)
        self.losses, self.layers = losses, list(losses)
        self.narrowed: tuple[str, ...] = ()

    def narrow(self, names: Any) -> None:
        self.narrowed = tuple(names)


@pytest.fixture
def context(data: Data, tmp_path: Path) -> Context:
    return Context(load_target("x86"), data, [], tmp_path, calibration=data.train.x[:8])


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, context: Context, data: Data):
    """Chooses among layers a, b and c, of which a is said to lose 1 point, b and c none."""

    def choose(times: dict[str, dict[str, float]] | None, kinds: tuple[Any, ...]) -> Any:
        trials = {kind: Scripted({"a": 1.0, "b": 0.6, "c": 0.0}) for kind in kinds}
        monkeypatch.setattr(
            "edgekd.stages._mixed.sensitivities", lambda *_: {"a": 0.3, "b": 0.2, "c": 0.1}
        )

        def score(graph: nn.Module, samples: Any) -> float:
            found = [each for each in trials.values() if each.graph is graph]
            lost = sum(found[0].losses[name] for name in found[0].narrowed) if found else 0.0
            return 0.9 - lost / 100

        monkeypatch.setattr("edgekd.stages._mixed.evaluate", score)
        timer = lambda candidate: times and Timed(times[candidate.form], "us", "litert on host")  # noqa: E731
        placed = Context(**{**vars(context), "time_layers": timer})
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        candidate = Candidate(network, data.example)
        variants = {
            name: lambda name=name: Candidate(candidate.module, data.example, name)
            for name in ("int8", "int16", "float")
        }
        mixed = Quantize(mixed={"accuracy_drop": 0.7}).mixed
        assert mixed is not None
        return keep_wide(mixed, trials, candidate, placed, variants)  # type: ignore[arg-type]

    return choose


NARROW = {"a": 1.0, "b": 1.0, "c": 1.0}


def test_the_type_that_takes_less_time_is_chosen(kept):
    slow, fast = {"a": 9.0, "b": 9.0, "c": 9.0}, {"a": 3.0, "b": 3.0, "c": 3.0}
    found = kept({"int8": NARROW, "float": slow, "int16": fast}, ("float", "int16"))
    assert (found.kind, found.layers) == ("int16", ("a",))
    assert found.note.endswith(
        "chosen by time, measured in litert on host: 8 us for 1 in float or 2 us for 1 in int16 "
        "more than in int8"
    )
    found = kept({"int8": NARROW, "float": fast, "int16": slow}, ("float", "int16"))
    assert found.kind == "float"


def test_two_cheap_layers_are_taken_where_one_is_dear():
    """Either a alone or b and c together hold the drop: b and c take less time."""
    from edgekd.quant.mixed import Mixed, widened

    trial = Scripted({"a": 1.0, "b": 0.5, "c": 0.5})
    errors = {"a": 0.5, "b": 0.2, "c": 0.2}

    def score(_: nn.Module) -> float:
        return 0.9 - sum(trial.losses[name] for name in trial.narrowed) / 100

    mixed = Mixed(accuracy_drop=1.0)
    dear = {"a": 10.0, "b": 1.0, "c": 2.0}
    assert widened(trial, errors, mixed, score, 0.9, dear) == ("b", "c")  # type: ignore[arg-type]
    cheap = {"a": 1.0, "b": 5.0, "c": 5.0}
    assert widened(trial, errors, mixed, score, 0.9, cheap) == ("a",)  # type: ignore[arg-type]


def test_without_a_device_the_macs_decide_and_the_note_says_so(kept):
    found = kept(None, ("float", "int16"))
    assert found.kind == "float"
    assert found.note.endswith(
        "chosen by multiply-accumulates, as nothing measured the layers' time"
    )


def test_without_a_device_the_first_type_that_can_hold_the_drop_is_taken(kept, monkeypatch):
    found = kept(None, ("int16", "float"))
    assert (found.kind, found.layers) == ("int16", ("a",))

    def check(trial: Any, wide: Any, mixed: Any, score: Any, before: float, kind: str) -> None:
        if kind not in able:
            raise InputError(f"{kind} loses too much")

    monkeypatch.setattr("edgekd.stages._mixed.check_reached", check)
    able = {"float"}
    assert kept(None, ("int16", "float")).kind == "float"
    able = set()
    with pytest.raises(InputError, match="int16 loses too much"):
        kept(None, ("int16", "float"))


def test_int16_is_tried_only_where_every_backend_has_it(context, data):
    stage = Quantize(mixed={"accuracy_drop": 0.5})
    assert stage.mixed is not None
    assert mixed_kinds(stage, stage.mixed, "float", context) == ("float",)  # TVM has none
    backends = {"tflite": context.target.backends.get("tflite", {})}
    target = context.target.model_copy(update={"backends": backends})
    able = Context(target, data, [], context.work)
    assert mixed_kinds(stage, stage.mixed, "float", able) == ("int16", "float")
    both = target.model_copy(update={"backends": {**backends, "onnx": {}}})
    computed_in_float = Context(both, data, [], context.work)
    assert mixed_kinds(stage, stage.mixed, "float", computed_in_float) == ("float", "int16")
    named = Quantize(mixed={"accuracy_drop": 0.5, "wide": "float"})
    assert named.mixed is not None
    assert mixed_kinds(named, named.mixed, "float", able) == ("float",)
