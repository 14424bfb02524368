"""The page on environment variables names every one that the code reads or sets."""

import re

from pages import ROOT

PAGE = (ROOT / "docs/environment.md").read_text(encoding="utf-8")
SOURCES = [
    path
    for path in (ROOT / "edgekd").rglob("*")
    if path.suffix in (".py", ".cmake", ".bbclass", ".sh") or path.name == "CMakeLists.txt"
]


def named_in_the_code() -> set[str]:
    """EDGEKD_*, and whatever stands in quotes beside os.environ."""
    names = set()
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        names |= set(re.findall(r"\bEDGEKD_[A-Z_]+\b", text))
        names |= set(re.findall(r"environ(?:\.get|\.setdefault)?[\[(]\s*\"(\w+)\"", text))
    return names


def test_the_page_names_every_variable():
    missing = sorted(name for name in named_in_the_code() if f"`{name}`" not in PAGE)
    assert missing == []


def test_the_page_names_no_variable_that_the_code_does_not_know():
    sources = "".join(path.read_text(encoding="utf-8") for path in SOURCES)
    named = set(re.findall(r"`([A-Z][A-Z_]*_[A-Z_]+)`", PAGE)) - {"NO_COLOR"}  # Rich reads it
    assert [name for name in named if name not in sources] == []
