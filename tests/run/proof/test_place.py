"""Where a target's files run, and what results depend on there."""

from types import SimpleNamespace
from typing import Any

from edgekd.run.proof.place import Place


def board(**other: Any) -> Place:
    told = {"platform": "Linux 6.6", "cpu": "Cortex-A76", "runtimes": {"litert": "2.3"}, **other}
    hello = SimpleNamespace(**told)
    device: Any = SimpleNamespace(name="ssh://b", kind="measured", hello=lambda: hello)
    return Place(device)


def test_what_was_proved_elsewhere_or_on_another_device_is_not_taken_over() -> None:
    host: Any = SimpleNamespace(name="host", kind="measured")
    places = [
        Place(host), Place(host, "no emulator installed"), board(), board(cpu="Cortex-A72"),
        board(platform="Linux 6.7"), board(runtimes={"litert": "2.4"}),
    ]  # fmt: skip
    assert [place.facts[:3] for place in places[:3]] == [
        ("host", "measured", ""),
        ("host", "simulated", "no emulator installed"),
        ("ssh://b", "measured", ""),
    ]
    assert len({repr(place.facts) for place in places}) == len(places)
    assert board().facts == board().facts


def test_a_proof_is_of_its_processor(monkeypatch: Any) -> None:
    host: Any = SimpleNamespace(name="host", kind="measured")
    here = Place(host).facts
    monkeypatch.setattr("edgekd.run.proof.place._processor", lambda: "another one")
    assert Place(host).facts != here
