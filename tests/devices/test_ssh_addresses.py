"""Addresses of boards, and names that would be commands if anything were pasted into a shell."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from ssh_server import Server

from edgekd.devices.opening import open_device
from edgekd.devices.session import AgentDevice
from edgekd.devices.ssh import parse_address
from edgekd.devices.ssh.faults import Address
from edgekd.devices.ssh.scripts import command_line
from edgekd.errors import InputError, MissingPackage
from edgekd.values.artifact import Artifact

HOSTILE = [
    "a b",
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned",
    "new\nline; touch pwned",
    "-rf",
    "quote'\"; touch pwned; '",
    "&& touch pwned #",
    "back\\slash",
]


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("board", Address("board")),
        ("ada@board", Address("board", "ada")),
        ("ada@10.0.0.7:2222", Address("10.0.0.7", "ada", 2222)),
        ("[fe80::1%eth0]:22", Address("fe80::1%eth0", "", 22)),
        ("board/", Address("board")),
        ("board?python=/opt/v%20env/bin/python", Address("board", python="/opt/v env/bin/python")),
        ("board:22?cache=/mnt/x&python=/p", Address("board", "", 22, "/p", "/mnt/x")),
    ],
)
def test_an_address_has_a_user_a_host_a_port_and_options(location: str, expected: Address) -> None:
    assert parse_address(location) == expected


def test_an_address_is_shown_as_it_was_given() -> None:
    assert parse_address("ada@board:22?cache=/x").url == "ssh://ada@board:22"
    assert parse_address("[::1]:22").url == "ssh://[::1]:22"
    assert parse_address("ada@board:22").ssh == "-p 22 ada@board"


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("", "is not a valid address"),
        ("board/folder", "is not a valid address"),
        ("-oProxyCommand=x", "is not a valid host name"),
        ("a b", "is not a valid host name"),
        ("$(x)", "is not a valid host name"),
        ("x`id`", "is not a valid host name"),
        ("-l@board", "'-l' is not a valid user name"),
        ("a;b@board", "'a;b' is not a valid user name"),
        ("@board", "'' is not a valid user name"),
        ("board:ssh", "'ssh' is not a valid port"),
        ("board:0", "'0' is not a valid port"),
        ("board:70000", "'70000' is not a valid port"),
        ("board:", "'' is not a valid port"),
        ("board?cache=relative", "cache: 'relative' is not an absolute path"),
        ("board?python=/a%00b", "is not an absolute path"),
        ("board?cache=/a%0ab", "is not an absolute path"),
    ],
)
def test_an_invalid_address_is_refused(location: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        open_device(f"ssh://{location}")
    assert message in caught.value.message
    assert caught.value.allowed == "ssh://[user@]board[:port][?python=/path&cache=/path]"


@pytest.mark.parametrize("location", ["ada:s3cret@board", "ada:s3cret@bo ard", "ada:s3@cret@b"])
def test_a_password_in_an_address_is_refused_and_not_repeated(location: str) -> None:
    with pytest.raises(InputError) as caught:
        open_device(f"ssh://{location}")
    told = f"{caught.value} {caught.value.hint}"
    assert "s3" not in told


def test_an_unknown_option_has_its_nearest_name() -> None:
    with pytest.raises(InputError, match="unknown option 'pyhton'") as caught:
        open_device("ssh://board?pyhton=/x")
    assert caught.value.hint == "did you mean 'python'?"


def test_without_asyncssh_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekd.installed.find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match="asyncssh is not installed") as caught:
        open_device("ssh://board")
    assert caught.value.hint == "pip install 'edgekd[ssh]'"


@pytest.mark.parametrize("shell", ["sh", "bash", "dash"])
@pytest.mark.parametrize("name", HOSTILE)
def test_parameters_reach_a_script_as_they_are(tmp_path: Path, shell: str, name: str) -> None:
    """Through the login shell and the script's own, as sshd runs them."""
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    line = command_line('printf %s "$1"; printf %s "$2"', "token", name, "end")
    done = subprocess.run([shell, "-c", line], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == f"token\n{name}end"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", HOSTILE)
def test_a_models_name_is_no_command(
    board: Server, artifact: Artifact, inputs: np.ndarray, tmp_path: Path, name: str,
    make_artifact: Callable[..., Artifact], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path = tmp_path / f"{name}.onnx"
    shutil.copyfile(artifact.path, path)
    device = open_device(board.url, limit_s=60.0)
    assert isinstance(device, AgentDevice)
    there = Path(device._transport.put(path))
    assert there.read_bytes() == artifact.path.read_bytes()
    assert there.parent.name == artifact.sha256
    device.close()
    assert not [one for one in board.folder.rglob("*") if one.name.startswith("pwned")]
    assert not (Path.home() / "pwned").exists()


def test_a_folder_and_an_interpreter_are_no_commands(
    board: Server, artifact: Artifact, inputs: np.ndarray
) -> None:
    strange = board.cache / "a $(touch pwned) 'b' ;c"
    strange.mkdir(parents=True)
    python = strange / "py thon"
    python.symlink_to(sys.executable)
    wrapper = strange / "$(touch pwned);py"
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    url = f"ssh://board?cache={quote(str(strange))}&python={quote(str(wrapper))}"
    device = open_device(url, limit_s=60.0)
    assert device.infer(artifact, [inputs], {})[0].shape == (5, 4, 8, 8)
    device.close()
    assert not [one for one in board.folder.rglob("*") if one.name == "pwned"]
