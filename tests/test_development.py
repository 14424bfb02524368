"""What developers and services run: commit subjects, hooks, the workflow, the release script."""

import subprocess
import sys
from pathlib import Path

import pytest

from edgekd.installed import has_module

ROOT = Path(__file__).parents[1]


def check_subject(folder: Path, message: str) -> subprocess.CompletedProcess[str]:
    file = folder / "COMMIT_EDITMSG"
    file.write_text(message)
    command = [str(ROOT / ".ci" / "subjects"), str(file)]
    return subprocess.run(command, text=True, capture_output=True)


def test_a_subject_of_72_characters_passes(tmp_path: Path):
    assert check_subject(tmp_path, "# a comment of git's\n" + "x" * 72 + "\n").returncode == 0


def test_a_longer_subject_is_refused_with_its_length(tmp_path: Path):
    done = check_subject(tmp_path, "x" * 73 + "\n\nA body may be " + "long " * 30)
    assert done.returncode == 1
    assert f"73: {'x' * 73}" in done.stderr
    assert "hint: git commit --amend" in done.stderr


def test_long_subjects_are_found_among_the_commits_since_the_rule(tmp_path: Path):
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True)

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "before the rule " + "x" * 80)
    (tmp_path / ".ci").mkdir()
    script = tmp_path / ".ci" / "subjects"
    script.write_text((ROOT / ".ci" / "subjects").read_text())
    script.chmod(0o755)
    git("add", ".")
    git("commit", "-q", "-m", "Hold subjects to a length")
    assert subprocess.run([script]).returncode == 0
    git("commit", "-q", "--allow-empty", "-m", "after the rule " + "x" * 80)
    done = subprocess.run([script], text=True, capture_output=True)
    assert done.returncode == 1
    assert "after the rule" in done.stderr
    assert "before the rule" not in done.stderr


@pytest.mark.skipif(not has_module("check_jsonschema"), reason="needs check-jsonschema")
def test_the_workflow_is_valid():
    file = ROOT / ".github" / "workflows" / "ci.yml"
    schema = ["--builtin-schema", "vendor.github-workflows"]
    command = [sys.executable, "-m", "check_jsonschema", *schema, str(file)]
    done = subprocess.run(command, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(not has_module("pre_commit"), reason="needs pre-commit")
def test_the_hooks_are_valid():
    command = [sys.executable, "-m", "pre_commit", "validate-config"]
    done = subprocess.run([*command, str(ROOT / ".pre-commit-config.yaml")])
    assert done.returncode == 0


@pytest.mark.parametrize("script", ["run", "release", "subjects"])
def test_each_script_is_valid_and_can_be_run(script: str):
    path = ROOT / ".ci" / script
    assert path.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(path)], check=True)


def test_a_release_refuses_uncommitted_changes(tmp_path: Path):
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", "--depth=1", f"file://{ROOT}", str(clone)], check=True)
    (clone / "new file").write_text("")
    script = clone / ".ci" / "release"
    script.parent.mkdir(exist_ok=True)
    script.write_text((ROOT / ".ci" / "release").read_text())
    done = subprocess.run(["bash", str(script)], text=True, capture_output=True)
    assert done.returncode == 2
    assert "uncommitted changes" in done.stderr


def test_no_two_test_files_share_a_name():
    """pytest imports them by name, and fails on the second in the same process."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
