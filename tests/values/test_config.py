import pytest

from edgekd.errors import Faults, InputError
from edgekd.registry import Entry
from edgekd.values.tables import Value, build, parse, read_toml


class Inner(Value):
    size: int = 1


class Outer(Value):
    name: str
    inner: Inner = Inner()
    parts: tuple[Inner, ...] = ()


def test_every_fault_of_a_table_comes_out_at_once():
    with pytest.raises(Faults) as caught:
        parse(Outer, {"inner": {"sise": 2}, "parts": [{"size": "many"}]}, "r.toml")
    assert sorted(str(fault) for fault in caught.value.faults) == [
        "r.toml: inner.sise: unknown key 'sise' (allowed: size)",
        "r.toml: name: required, but missing",
        "r.toml: parts.0.size: Input should be a valid integer, unable to parse string as an "
        "integer, found 'many'",
    ]
    assert "did you mean 'size'?" in [fault.hint for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), (b"a = ", "not valid TOML"), (b"\xff\xfe", "not valid TOML")],
)
def test_a_file_that_is_no_toml_is_one_clear_error(tmp_path, content, message):
    path = tmp_path / "r.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_toml(path)
    assert caught.value.where == str(path)


def test_a_method_is_made_from_a_table_by_its_signature():
    def make(temperature: float = 4.0) -> float:
        if temperature <= 0:
            raise ValueError("temperature must be above 0")
        return temperature

    entry = Entry("kl", make, "Hinton 2015")
    assert build(entry, {"temperature": 2}, "stages.1") == 2.0
    with pytest.raises(InputError, match=r"stages\.1: temperature must be above 0"):
        build(entry, {"temperature": -1.0}, "stages.1")
    with pytest.raises(InputError, match="unknown key 'temprature'") as caught:
        build(entry, {"temprature": 1.0}, "stages.1")
    assert caught.value.hint == "did you mean 'temperature'?"
