import json

import pytest

from edgekd.errors import InputError
from edgekd.run.lock.inputs import recipe_key
from edgekd.run.lock.lock_check import check_lock
from edgekd.run.lock.lockfile import NAME, Lock, lock_sources, read_lock, target_key
from edgekd.values.artifact import sha256_of
from edgekd.values.recipe import load_recipe
from edgekd.values.target import load_target

RECIPE = """
[model]
factory = "edgekd.models.resnet:resnet8"
[data]
source = "d.npz"
"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "model.c").write_text("int x;")
    (tmp_path / "artifacts" / "model.h").write_text("extern int x;")
    (tmp_path / "d.npz").write_text("data")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    recipe = load_recipe(tmp_path / "recipe.toml")
    lock = Lock(
        recipe=recipe_key(recipe),
        seed=0,
        data="0",
        targets={"cortex-m4": target_key(load_target("cortex-m4"))},
        inputs={"data.source": sha256_of(tmp_path / "d.npz")},
        code="0",
        tools={"edgekd-no-such-tool": "1"},
        machine="x86_64",
        outputs={
            f"artifacts/{name}": sha256_of(tmp_path / "artifacts" / name)
            for name in ("model.c", "model.h")
        },
    )
    (tmp_path / NAME).write_text(lock.model_dump_json(by_alias=True))
    return tmp_path


def checked(run, sources=None):
    lock = read_lock(run)
    assert lock is not None
    faults, lines = check_lock(run, lock, load_recipe(run / "recipe.toml"), sources)
    return [fault.message for fault in faults], lines


def test_an_untouched_run_verifies_and_other_tool_versions_are_reported(run):
    faults, lines = checked(run)
    assert faults == []
    assert lines == [
        "edgekd.lock: outputs (2), inputs (1) and targets (1) verified",
        "edgekd.lock: the run used edgekd-no-such-tool 1; installed here: none",
    ]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("artifacts/model.c", "the output 'artifacts/model.c' has the hash"),
        ("artifacts/model.h", "the output 'artifacts/model.h' has the hash"),
        ("d.npz", "the input 'data.source' has the hash"),
    ],
)
def test_what_was_changed_is_named(run, name, words):
    (run / name).write_text("other")
    faults, _ = checked(run)
    assert any(fault.startswith(words) for fault in faults)


@pytest.mark.parametrize("name", ["artifacts/model.c", "artifacts/model.h"])
def test_what_is_gone_is_named(name, run):
    (run / name).unlink()
    faults, lines = checked(run)
    assert faults == [f"the output '{name}' is gone"]
    assert not any(line.endswith("hold") for line in lines)


def test_a_missing_input_is_a_fault_with_a_hint(run):
    (run / "d.npz").unlink()
    faults, _ = check_lock(run, read_lock(run), load_recipe(run / "recipe.toml"))
    assert [(fault.message, fault.hint) for fault in faults] == [
        (
            "the input 'data.source' is gone",
            "recipe.toml names inputs where the run was made: verify it there, or move them too",
        )
    ]


def test_what_has_come_among_the_artifacts_is_named(run):
    (run / "artifacts" / "other-target").mkdir()
    (run / "artifacts" / "other-target" / "model.bin").write_text("of an earlier run")
    (run / "artifacts" / "elsewhere").symlink_to(run.parent)
    (run / "notes.txt").write_text("not among the artifacts")
    faults, _ = checked(run)
    assert faults == [
        "the lock doesn't list 'artifacts/elsewhere'",
        "the lock doesn't list 'artifacts/other-target/model.bin'",
    ]


@pytest.fixture
def sources(run):
    folder = run / "generated"
    folder.mkdir()
    paths = [folder / "hook.h", folder / "hook.c"]
    for path in paths:
        path.write_text(path.name)
    lock_sources(run, paths)
    return folder


def test_sources_that_were_built_are_locked_and_checked_where_they_lie(run, sources):
    faults, lines = checked(run)
    assert faults == []
    assert "edgekd.lock: 2 sources not checked: name their folder with --sources DIR" in lines
    faults, lines = checked(run, sources)
    assert faults == []
    assert "edgekd.lock: sources (2) verified" in lines
    (sources / "hook.c").write_text("changed")
    (sources / "hook.h").unlink()
    faults, _ = checked(run, sources)
    assert [fault[:28] for fault in faults] == [
        "the source 'hook.c' has the ",
        "the source 'hook.h' is gone",
    ]


def test_sources_of_a_run_that_made_none_can_not_be_checked(run):
    faults, _ = checked(run, run)
    assert faults == ["the lock lists no sources"]


def test_sources_are_never_read_outside_of_their_folder(run, sources):
    table = json.loads((run / NAME).read_text())
    table["sources"] = {"../d.npz": sha256_of(run / "d.npz")}
    (run / NAME).write_text(json.dumps(table))
    faults, _ = checked(run, sources)
    assert faults == ["the source '../d.npz' is gone"]


def test_a_source_is_known_by_a_plain_name_only(run, sources):
    (sources / "deeper").mkdir()
    (sources / "deeper" / "hook.c").write_text("hook.c")
    table = json.loads((run / NAME).read_text())
    table["sources"] = {"deeper/hook.c": sha256_of(sources / "deeper" / "hook.c")}
    (run / NAME).write_text(json.dumps(table))
    faults, _ = checked(run, sources)
    assert faults == ["the source 'deeper/hook.c' is gone"]


def test_a_run_without_a_lock_can_not_lock_sources(tmp_path):
    with pytest.raises(InputError, match="the run has no lock"):
        lock_sources(tmp_path, [])


def test_another_recipe_beside_the_lock_is_noticed(run):
    (run / "recipe.toml").write_text(RECIPE + "limit = 5\n")
    faults, _ = checked(run)
    assert any(fault.startswith("the recipe 'recipe.toml' has the hash") for fault in faults)


def test_an_output_outside_of_the_folder_is_never_read(run):
    table = json.loads((run / NAME).read_text())
    table["outputs"]["../../etc/passwd"] = "0"
    (run / NAME).write_text(json.dumps(table))
    faults, _ = checked(run)
    assert faults == ["the output '../../etc/passwd' is gone"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not a readable lock"),
        ("[]", "not an edgekd lock file"),
        ('{"schema": 2}', "schema"),
        ('{"sceed": 1}', "unknown key 'sceed'"),
    ],
)
def test_a_damaged_lock_is_one_clear_error(run, content, words):
    (run / NAME).write_text(content)
    with pytest.raises(InputError, match=words):
        read_lock(run)


def test_a_run_without_a_lock_has_none(tmp_path):
    assert read_lock(tmp_path) is None
