import pytest

from edgekd.data.sets import SETS
from edgekd.errors import InputError
from edgekd.methods import KINDS
from edgekd.registry import BACKENDS, DEVICES, LOSSES, Registry


def test_every_name_is_a_file_and_registers_itself_under_it():
    for name in LOSSES.names():
        entry = LOSSES.get(name)
        assert entry.name == name
        assert entry.paper, f"{name} names no paper"
        assert entry.summary.endswith((".", ":")), f"{name} has no first line"


def test_an_unknown_name_is_refused_with_the_nearest_one():
    with pytest.raises(InputError, match="unknown loss 'atention'") as caught:
        LOSSES.get("atention", "stages.1.losses.1")
    assert caught.value.hint == "did you mean 'attention'?"
    assert caught.value.where == "stages.1.losses.1"
    assert "kl" in caught.value.allowed


@pytest.mark.parametrize("registry", [*KINDS.values(), BACKENDS, DEVICES, SETS])
def test_a_hint_names_the_command_only_where_it_lists_the_kind(registry):
    with pytest.raises(InputError) as caught:
        registry.get("qqqqqqqq")
    listed = f"'edgekd methods {registry.kind}' lists them" if registry.kind in KINDS else ""
    assert caught.value.hint == listed


def test_a_method_from_an_entry_point_is_listed_and_loaded(monkeypatch):
    class Point:
        name = "theirs"

        @staticmethod
        def load():
            def theirs() -> None:
                """Somebody else's."""

            return theirs

    monkeypatch.setattr("edgekd.registry.entry_points", lambda group: [Point])
    registry = Registry("loss", "edgekd.losses", "edgekd.training.losses")
    assert "theirs" in registry.names()
    assert registry.get("theirs").summary == "Somebody else's."
