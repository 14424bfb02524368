"""What is installed: modules found without importing them, versions of packages."""

import sys

from edgekd.installed import has_module, tool_versions, versions_of
from edgekd.version import __version__


def test_a_module_is_found_and_not_imported(tmp_path, monkeypatch):
    (tmp_path / "some_runtime.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert has_module("some_runtime")
    assert "some_runtime" not in sys.modules


def test_a_module_of_a_package_that_is_not_there_is_none():
    assert not has_module("no_such_package")
    assert not has_module("no_such_package.module")


def test_a_folder_that_an_uninstall_left_behind_is_no_module(tmp_path, monkeypatch):
    (tmp_path / "some_runtime" / "__pycache__").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    __import__("some_runtime")  # Python takes it for a package
    assert not has_module("some_runtime")


def test_versions_are_of_what_is_there_and_edgekds_own_is_among_those_of_the_tools():
    assert set(versions_of(["numpy", "no-such-package"])) == {"numpy"}
    assert tool_versions()["edgekd"] == __version__
