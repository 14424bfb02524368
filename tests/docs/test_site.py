"""The documentation's site: it builds without a warning, and every page leads to the next."""

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec

import pytest
import yaml
from pages import PAGES, ROOT

CONFIG = ROOT / "mkdocs.yml"


def in_order() -> list[str]:
    """The pages' files in the order of the navigation."""
    return re.findall(r"^ +- .*: (\S+\.md)$", CONFIG.read_text(encoding="utf-8"), re.MULTILINE)


def test_every_page_is_in_the_navigation_once():
    assert sorted(["index.md", *in_order()[1:]]) == sorted(page.name for page in PAGES)
    assert in_order()[0] == "index.md"


@pytest.mark.parametrize("name", in_order()[1:])
def test_a_page_ends_with_links_to_its_neighbours(name):
    names = in_order()
    place = names.index(name)
    last = (ROOT / "docs" / name).read_text(encoding="utf-8").rstrip().splitlines()[-1]
    assert f"]({names[place - 1]})" in last
    if place + 1 < len(names):
        assert f"]({names[place + 1]})" in last


def test_the_first_page_leads_to_every_other():
    first = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    missing = [name for name in in_order()[1:] if f"]({name}" not in first]
    assert missing == []


def test_no_page_loads_anything_from_another_server():
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    assert config["theme"]["font"] is False
    for page in PAGES:
        assert not re.search(r"!\[[^]]*\]\(http|<script|<img", page.read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("zensical"), reason="zensical is not installed: edgekd[docs]")
def test_the_site_builds_without_a_warning(tmp_path):
    for name in ("docs", "edgekd"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("mkdocs.yml", "CONTRIBUTING.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "--clean"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search("warning|griffe", done.stdout + done.stderr, re.IGNORECASE)
    for page in PAGES:
        folder = "" if page.stem == "index" else page.stem
        assert (tmp_path / "build/site" / folder / "index.html").is_file()
    reference = (tmp_path / "build/site/reference/index.html").read_text(encoding="utf-8")
    assert 'id="edgekd.errors.InputError"' in reference
