"""Creating and keeping emulated boards, with an emulator that is a process here."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from waiting import until

from edgekd.devices.emulated.archive import Entry, entries_of, write_archive
from edgekd.devices.emulated.catalog import (
    Board,
    create_board,
    find_board,
    is_outdated,
    list_boards,
    machine_for,
    remove_board,
    running_board,
    start_board,
    stop_board,
)
from edgekd.devices.emulated.machine import Machine, command_of
from edgekd.devices.emulated.monitor import Monitor
from edgekd.devices.opening import open_device
from edgekd.errors import Faults, InputError, ToolError


def processes(*words: str) -> list[int]:
    """Those on whose command line all of that stands."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if all(word.encode() in line for word in words):
            found.append(int(folder.name))
    return found


def emulators() -> list[int]:
    """Processes of the fake."""
    return processes("fake_qemu", "icount")


def guards(folder: Path) -> list[int]:
    """Those that watch over a machine."""
    return processes("guard.py", str(folder))


@pytest.fixture
def board(fake_emulator: Path) -> Board:
    return create_board("raspberry-pi-5")[0]


def test_a_board_is_created_once_for_the_same_content(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (board.folder / "state").read_bytes() == b"a saved machine"
    assert not (board.folder / "archive").exists()
    assert (board.processor, board.emulator) == ("cortex-a76", "7.2.22")
    assert board.kernel == os.uname().release, "the guest itself says its kernel"
    assert create_board("raspberry-pi-5") == (board, False)
    monkeypatch.setattr("edgekd.devices.emulated.image.versions", lambda: {"numpy": "2.1"})
    assert is_outdated(board)
    newer, made = create_board("raspberry-pi-5")
    assert made
    assert newer.packages == {"numpy": "2.1"}
    assert [each.name for each in list_boards()] == ["raspberry-pi-5"]
    assert emulators() == []


def test_what_a_killed_creation_left_is_removed_by_the_next(board: Board) -> None:
    half = board.folder.with_name(".raspberry-pi-5.4194304.writing")
    half.mkdir()
    (half / "archive").write_bytes(b"half")
    assert create_board("raspberry-pi-5") == (board, False)
    assert not half.exists()


def test_one_core_counts_instructions_and_there_is_no_network(tmp_path: Path) -> None:
    state = tmp_path / "a 'saved' machine"
    command = command_of(Machine("cortex-a53", state=state), tmp_path)
    line = " ".join(command)
    assert "-smp 1 " in line
    assert "-icount shift=0,sleep=off" in line
    assert "-nic none" in line
    assert "tcp" not in line
    assert "hostfwd" not in line
    said = subprocess.run(["sh", "-c", f"echo {command[-1].removeprefix('exec:cat ')}"],
                          capture_output=True, text=True)  # fmt: skip
    assert said.stdout == f"{state}\n", "the shell takes the path as it is"


def test_a_board_that_was_not_created_names_the_command_that_creates_it(
    fake_emulator: Path,
) -> None:
    with pytest.raises(InputError, match="no board 'raspberry-pi-4' has been created") as caught:
        open_device("emulated://raspberry-pi-4")
    assert caught.value.hint == "edgekd board create raspberry-pi-4"
    with pytest.raises(InputError, match="can't be emulated") as caught:
        open_device("emulated://x86")
    assert "cortex-a76" in caught.value.allowed
    with pytest.raises(InputError, match=r"there is no board named '\.\./x'"):
        open_device("emulated://../x")


def test_a_name_near_that_of_a_board_is_asked_about_and_another_targets_is_not(
    board: Board,
) -> None:
    with pytest.raises(InputError, match="has been created") as caught:
        find_board("raspbery-pi-5")
    assert caught.value.hint == "did you mean 'raspberry-pi-5'?"
    with pytest.raises(InputError, match=r"has been created .*allowed: raspberry-pi-5") as caught:
        find_board("raspberry-pi-4")
    assert caught.value.hint == "edgekd board create raspberry-pi-4"


def test_missing_tools_are_named_before_anything_is_made(
    fake_emulator: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda tool: None)
    with pytest.raises(Faults) as caught:
        create_board("raspberry-pi-5")
    hints = [fault.hint for fault in caught.value.faults]
    assert hints == ["apt install qemu-system-arm", "apt install mmdebstrap"]


def test_a_board_of_another_emulators_version_is_refused(board: Board) -> None:
    record = board.folder / "board.json"
    record.write_text(record.read_text().replace("7.2.22", "6.0.1"))
    with pytest.raises(
        InputError, match=r"created with QEMU 6\.0\.1, but 7\.2\.22 is installed"
    ) as caught:
        start_board(find_board("raspberry-pi-5"))
    assert caught.value.hint == "edgekd board create raspberry-pi-5"


def test_an_emulator_that_exits_at_once_is_reported_with_its_last_output(
    fake_emulator: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEKD_FAKE", "ends")
    with pytest.raises(ToolError, match=r"ended at once \(exit code 1\)") as caught:
        create_board("raspberry-pi-5")
    assert "could not open anything" in caught.value.hint
    assert list_boards() == []
    assert not list((fake_emulator.parent / "cache/boards/created").glob(".rasp*"))


def test_a_board_that_never_answers_is_ended(
    fake_emulator: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEKD_FAKE", "mute")
    monkeypatch.setattr("edgekd.devices.emulated.image.START_SECONDS", 0.5)
    with pytest.raises(ToolError, match=r"the board is not running|no reply to 'hello'"):
        create_board("raspberry-pi-5")
    assert emulators() == []


def test_a_started_board_runs_until_it_is_stopped_for_one_session_at_a_time(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekd.devices.emulated.catalog.BUSY_SECONDS", 0.3)
    assert running_board(board) is None
    running, started = start_board(board)
    assert started
    try:
        assert start_board(board) == (running, False)
        with (
            machine_for(board) as first,
            pytest.raises(ToolError, match="another process has been using this board"),
            machine_for(board),
        ):
            pass
        assert first == running
        assert running.alive(), "a session leaves it as it was"
    finally:
        assert stop_board(board)
    assert not running.folder.exists()
    assert not stop_board(board)
    assert emulators() == []


def test_a_session_waits_for_a_board_that_another_is_using(board: Board) -> None:
    running, _ = start_board(board)
    began = threading.Event()

    def first() -> None:
        with machine_for(board):
            began.set()
            time.sleep(0.6)

    thread = threading.Thread(target=first)
    try:
        thread.start()
        began.wait(60)
        start = time.monotonic()
        with machine_for(board) as second:
            assert time.monotonic() - start > 0.3
            assert second == running
    finally:
        thread.join()
        assert stop_board(board)


def test_removing_a_board_stops_it_first(board: Board) -> None:
    start_board(board)
    remove_board("raspberry-pi-5")
    assert list_boards() == []
    assert emulators() == []
    with pytest.raises(InputError, match="has been created"):
        remove_board("raspberry-pi-5")


CLIENT = """
from edgekd.devices.opening import open_device
board = open_device("emulated://raspberry-pi-5")
there = board._transport.scratch("left.bin")
board._transport.write(there, b"left")
board.hello()
print(board._transport._running.folder, there, flush=True)
import time
time.sleep(100)
"""


def killed_client() -> tuple[Path, Path]:
    """The folders of the machine and of the file on the board that a client used until it was
    killed, with an agent that still runs there."""
    with subprocess.Popen(
        [sys.executable, "-c", CLIENT], stdout=subprocess.PIPE, text=True
    ) as client:
        assert client.stdout is not None
        folder, there = client.stdout.readline().split()
        assert len(emulators()) == 1
        assert Path(there).read_bytes() == b"left"
        client.kill()
    return Path(folder), Path(there)


def test_a_board_ends_with_its_folder_when_its_client_is_killed(board: Board) -> None:
    folder, _ = killed_client()
    until(lambda: not emulators(), "the emulator ends")
    until(lambda: not folder.exists(), "its sockets are removed")
    until(lambda: not guards(folder), "the guard ends, which removes them")
    assert (emulators(), folder.exists()) == ([], False)


def test_a_kept_board_is_paused_when_its_client_is_killed_and_the_next_one_tidies_up(
    board: Board,
) -> None:
    def status() -> str:
        with Monitor(running.monitor_path) as monitor:
            return str(monitor.ask("query-status")["status"])

    running, _ = start_board(board)
    try:
        assert guards(running.folder) == [], "what is kept has no guard"
        folder, there = killed_client()
        assert folder == running.folder
        until(lambda: status() == "paused", "it is paused: it takes no core")
        until(lambda: not guards(folder), "the guard ends")
        assert there.exists()
        device = open_device("emulated://raspberry-pi-5", limit_s=60.0)
        assert device.execute(["echo", "hello"], 10)[1] == "hello\n"
        assert not there.parent.exists()
        assert device.hello().machine == os.uname().machine
        device.close()
        assert status() == "paused"
    finally:
        stop_board(board)
    assert not folder.exists()


def test_a_machine_ends_when_who_starts_it_is_killed_meanwhile(board: Board) -> None:
    code = (
        "from edgekd.devices.emulated import machine\n"
        "from edgekd.devices.emulated.catalog import find_board\n"
        "def wait(process, running):\n"
        "    print(running.folder, flush=True)\n"
        "    import time; time.sleep(100)\n"
        "machine._wait_for_sockets = wait\n"
        "machine.start(find_board('raspberry-pi-5').machine)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as client:
        assert client.stdout is not None
        folder = Path(client.stdout.readline().strip())
        client.kill()
    until(lambda: not emulators() and not folder.exists(), "nothing is left of it")


def test_the_commands_list_and_remove(board: Board) -> None:
    def edgekd(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "edgekd", "board", *words]
        return subprocess.run(command, capture_output=True, text=True)

    (table,) = json.loads(edgekd("list", "--json").stdout)
    assert (table["name"], table["running"]) == ("raspberry-pi-5", False)
    assert table["bytes"] > 0
    assert "raspberry-pi-5: cortex-a76" in edgekd("list").stdout
    assert edgekd("remove", "raspberry-pi-5").stdout == "removed raspberry-pi-5\n"
    gone = edgekd("stop", "raspberry-pi-5")
    assert gone.returncode == 2
    assert "hint: edgekd board create raspberry-pi-5" in gone.stderr


def test_an_archive_is_what_a_kernel_unpacks(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin/sh").write_bytes(b"abc")
    (root / "bin/sh").chmod(0o755)
    (root / "link").symlink_to("bin/sh")
    (root / "docs").mkdir()
    (root / "docs/readme").write_text("left out")
    console = Entry("dev/console", 0o20600, device=(5, 1))
    write_archive([*entries_of(root, ("docs/",)), console], tmp_path / "archive")
    found = unpacked((tmp_path / "archive").read_bytes())
    assert found == {
        "bin": (0o40755, b"", (0, 0)),
        "bin/sh": (0o100755, b"abc", (0, 0)),
        "docs": (0o40755, b"", (0, 0)),
        "link": (0o120777, b"bin/sh", (0, 0)),
        "dev/console": (0o20600, b"", (5, 1)),
    }


def unpacked(content: bytes) -> dict[str, tuple[int, bytes, tuple[int, int]]]:
    """By cpio(5): thirteen numbers of eight hexadecimal digits, a name and content, each padded."""
    found, at = {}, 0
    while True:
        assert content[at : at + 6] == b"070701"
        fields = [int(content[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name = content[at + 110 : at + 110 + fields[11] - 1].decode()
        begin = (at + 110 + fields[11] + 3) // 4 * 4
        if name == "TRAILER!!!":
            return found
        body = content[begin : begin + fields[6]]
        found[name] = (fields[1], body, (fields[9], fields[10]))
        at = (begin + fields[6] + 3) // 4 * 4
