import pytest

from edgekd.errors import first_line, summary_of


@pytest.mark.parametrize(
    ("error", "line", "summary"),
    [
        (ValueError("bad shape\nstack"), "bad shape", "ValueError: bad shape"),
        (RuntimeError("\n  late words \n"), "late words", "RuntimeError: late words"),
        (AssertionError(), "AssertionError", "AssertionError"),
    ],
)
def test_an_exception_is_summed_up_by_its_class_and_first_line(error, line, summary):
    assert first_line(error) == line
    assert summary_of(error) == summary
