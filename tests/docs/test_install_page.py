"""The page on installing has every extra of pyproject.toml and no other."""

import re
import tomllib

from pages import ROOT

PAGE = (ROOT / "docs/install.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_every_extra_is_on_the_page():
    rows = re.findall(r"^\| `([\w-]+)` \|", PAGE.split("Some tools are not")[0], re.MULTILINE)
    assert sorted(rows) == sorted(PROJECT["optional-dependencies"])


def test_the_page_says_which_pythons():
    versions = re.findall(r"3\.(\d+)", PAGE.split("\n\n")[1])
    least, below = re.findall(r"3\.(\d+)", PROJECT["requires-python"])
    assert versions == [str(minor) for minor in range(int(least), int(below))]
