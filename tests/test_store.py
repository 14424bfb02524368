import errno
import os
import subprocess

import pytest

from edgekd.errors import InputError, ToolError
from edgekd.store import (
    Store,
    check_writable,
    disk_errors,
    exclusive,
    file_beside,
    folder_beside,
    key_of,
    locked,
    read_errors,
    write_beside,
)


def stopped_half_way(path):
    path.write_text("half")
    raise KeyboardInterrupt


def test_the_same_values_give_the_same_key_and_others_another():
    assert key_of({"b": 1, "a": [2]}, "x") == key_of({"a": [2], "b": 1}, "x")
    assert key_of({"a": 1}) != key_of({"a": 2})


def test_a_step_is_found_only_once_it_is_whole(tmp_path):
    store = Store(tmp_path)

    with pytest.raises(KeyboardInterrupt):
        store.publish("distill", "k", lambda folder: stopped_half_way(folder / "half"))
    assert store.find("distill", "k") is None
    assert list((tmp_path / "unfinished").iterdir()) == []
    store.publish("distill", "k", lambda folder: (folder / "whole").write_text("whole"))
    assert (store.find("distill", "k") / "whole").read_text() == "whole"


def test_checkpoints_are_found_again_and_go_when_the_step_is_done(tmp_path):
    store = Store(tmp_path)
    (store.work("prune", "k") / "epoch").write_text("3")
    assert (store.work("prune", "k") / "epoch").read_text() == "3"
    store.publish("prune", "k", lambda folder: None)
    assert not (tmp_path / "unfinished" / "prune-k").exists()


def test_a_full_disk_is_one_clear_error(tmp_path):
    with pytest.raises(ToolError, match="the disk is full") as caught, disk_errors(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "x"))
    assert "to continue from there" in caught.value.hint
    assert caught.value.exit_code == 3


def test_an_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match="not writable") as caught:
        check_writable(tmp_path / "out")
    assert caught.value.hint == "choose another folder"
    assert (tmp_path / "out").read_text() == "a file"


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path):
    write_beside(tmp_path / "a.json", "old")
    write_beside(tmp_path / "a.json", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "new"


def test_a_file_that_a_tool_did_not_finish_leaves_the_old_one_as_it_was(tmp_path):
    write_beside(tmp_path / "model.tflite", "old")
    with pytest.raises(KeyboardInterrupt), file_beside(tmp_path / "model.tflite") as beside:
        stopped_half_way(beside)
    assert [path.name for path in tmp_path.iterdir()] == ["model.tflite"]
    assert (tmp_path / "model.tflite").read_text() == "old"


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    for content in ("old", "new"):
        with folder_beside(tmp_path / "board") as beside:
            (beside / content).write_text(content)
    with pytest.raises(KeyboardInterrupt), folder_beside(tmp_path / "board") as beside:
        stopped_half_way(beside / "half")
    assert [path.name for path in tmp_path.iterdir()] == ["board"]
    assert [path.name for path in (tmp_path / "board").iterdir()] == ["new"]


def test_what_a_killed_process_left_beside_is_swept_away(tmp_path):
    left = tmp_path / "unfinished" / "distill-k.99999999.writing"
    left.mkdir(parents=True)
    Store(tmp_path).publish("distill", "k", lambda folder: None)
    assert not left.exists()


def test_what_another_process_is_writing_is_left_alone(tmp_path):
    others = tmp_path / "unfinished" / f"distill-k.{os.getppid()}.writing"
    others.mkdir(parents=True)
    Store(tmp_path).publish("distill", "k", lambda folder: None)
    assert others.exists()


def test_a_step_that_another_process_finished_first_is_taken_as_it_is(tmp_path, monkeypatch):
    def faster(path, **options):
        if path == tmp_path / "distill-k":
            path.mkdir()
            (path / "theirs").touch()

    monkeypatch.setattr("edgekd.store.shutil.rmtree", faster)
    done = Store(tmp_path).publish("distill", "k", lambda folder: (folder / "mine").touch())
    assert [path.name for path in done.iterdir()] == ["theirs"]


def test_a_second_run_in_the_same_folder_is_refused_while_the_first_lasts(tmp_path):
    with exclusive(tmp_path), pytest.raises(InputError, match="another edgekd run is using"):
        exclusive(tmp_path).__enter__()
    with exclusive(tmp_path):
        pass


def test_without_resume_only_what_this_run_made_is_found(tmp_path):
    Store(tmp_path).publish("distill", "k", lambda folder: None)
    (Store(tmp_path).work("prune", "k") / "checkpoint").touch()
    anew = Store(tmp_path, resume=False)
    assert anew.find("distill", "k") is None
    assert list(anew.work("prune", "k").iterdir()) == []
    made = anew.publish("distill", "k", lambda folder: None)
    assert anew.find("distill", "k") == made


def test_a_lock_that_a_child_inherited_lasts_as_long_as_the_child(tmp_path):
    with locked(tmp_path / "lock") as opened:
        child = subprocess.Popen(["sleep", "60"], pass_fds=[opened])
    try:
        with pytest.raises(BlockingIOError):
            locked(tmp_path / "lock").__enter__()
    finally:
        child.kill()
        child.wait()
    with locked(tmp_path / "lock", wait=True):
        pass


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FileNotFoundError(errno.ENOENT, "gone"), "model.bin: no such file"),
        (
            IsADirectoryError(errno.EISDIR, "a folder"),
            "a folder, where a model is needed",
        ),
        (PermissionError(errno.EACCES, "Permission denied"), "not readable: Permission denied"),
    ],
)
def test_a_file_that_cannot_be_opened_is_one_clear_error(tmp_path, error, message):
    with (
        pytest.raises(InputError, match=message) as caught,
        read_errors(tmp_path / "model.bin", "a model", hint="give another"),
    ):
        raise error
    assert caught.value.hint == "give another"


def test_what_a_reader_says_of_the_content_goes_through(tmp_path):
    with pytest.raises(OSError, match="Failed to interpret file"), read_errors(tmp_path / "a.npy"):
        raise OSError("Failed to interpret file")


def test_what_a_killed_process_left_beside_a_finished_step_is_cleared(tmp_path):
    store = Store(tmp_path)
    store.publish("step", "k", lambda folder: None)
    left = tmp_path / "unfinished" / "step-k"
    left.mkdir()
    (left / "epoch.safetensors").write_text("")
    assert store.find("step", "k") is not None
    assert not left.exists()
