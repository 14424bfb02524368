import subprocess
import sys

import pytest

from edgekd.devices.emulated.root import RUNTIMES, make_base
from edgekd.errors import InputError

SCRIPT = """
import socket, threading
from edgekd.errors import InputError
from edgekd.run.offline import forbid_network
server = socket.create_server(("127.0.0.1", 0))
forbid_network()
client = socket.create_connection(server.getsockname())
client.close()
for call in ("connect", "connect_ex"):
    try:
        getattr(socket.socket(), call)(("192.0.2.1", 80))
    except InputError as error:
        print(error, "|", error.hint)
"""


def test_only_this_machine_can_be_reached():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert "--offline forbids a connection to 192.0.2.1" in lines[0]
    assert "edgekd data fetch" in lines[0]


def test_an_emulators_files_are_not_fetched(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEKD_OFFLINE", "1")
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path))
    monkeypatch.setattr(
        "edgekd.devices.emulated.root.versions", lambda: dict.fromkeys(RUNTIMES, "1")
    )
    with pytest.raises(InputError) as caught:
        make_base()
    assert "--offline forbids downloads" in str(caught.value)
    assert caught.value.hint == "create them first: edgekd board create NAME"
