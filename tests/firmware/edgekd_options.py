"""The options of edgekd's commands as its own help has them, for what calls it from elsewhere."""

import re
import shlex
import subprocess
import sys


def options_of(*command):
    """Every option that a command of edgekd's has, read from its own help."""
    done = subprocess.run(
        [sys.executable, "-m", "edgekd", *command, "--help"],
        capture_output=True,
        text=True,
        env={"COLUMNS": "200", "PATH": "/usr/bin"},
    )
    return set(re.findall(r"--[a-z][a-z-]*", done.stdout))


def check(line, known):
    """Fail for an option that the command does not have; `known` are options by command."""
    words = shlex.split(line)
    assert words[0] == "edgekd"
    name = " ".join(words[1:3]) if words[1] == "firmware" else words[1]
    used = {word for word in words if word.startswith("--")}
    assert used <= known[name], used - known[name]
