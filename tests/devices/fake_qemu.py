"""An emulator that is none: it answers like QEMU's monitor, and runs the board's first process as
this process, on sockets in place of virtio-serial ports. Agents are real ones of this machine.

Run with the path of guest.py in EDGEKD_FAKE_GUEST; EDGEKD_FAKE says how it fails: "ends" at once,
or "mute", a guest that never answers.
"""

import importlib.util
import json
import os
import re
import select
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path


def listening(path):
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen(1)
    return server


def monitor(server, status):
    while True:
        stream = server.accept()[0].makefile("rwb")
        stream.write(b'{"QMP": {}}\n')
        stream.flush()
        for line in stream:
            request = json.loads(line)
            name, answer = request["execute"], {"return": {}}
            if name == "migrate":
                subprocess.run(request["arguments"]["uri"].removeprefix("exec:"), shell=True,
                               input=b"a saved machine", check=True)  # fmt: skip
            elif name == "query-migrate":
                answer = {"return": {"status": "completed"}}
            elif name == "query-status":
                answer = {"return": {"status": status}}
            elif name in ("stop", "cont"):
                status = "paused" if name == "stop" else "running"
            elif name not in ("qmp_capabilities", "quit"):
                answer = {"error": {"desc": f"no command {name}"}}
            stream.write(b'{"event": "NOISE"}\n' + json.dumps(answer).encode() + b"\n")
            stream.flush()
            if name == "quit":
                os._exit(0)


def serve(paths):
    spec = importlib.util.spec_from_file_location("guest", os.environ["EDGEKD_FAKE_GUEST"])
    guest = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(guest)
    guest.PAUSE_S = 0.02
    guest.ENVIRONMENT.pop("PYTHONPATH")

    class Port(guest.Port):
        def __init__(self, path, board):
            super().__init__(path, board)
            self.server = listening(path)

        def open(self):
            self.number, self.rest = -1, b""

        def close(self):
            if self.number >= 0:
                os.close(self.number)

        def connected(self):
            if self.number >= 0:
                return super().connected()
            if select.select([self.server], [], [], 0)[0]:
                self.number = self.server.accept()[0].detach()
            return self.number >= 0

    class Board(guest.Board):
        def __init__(self, paths, files):
            super().__init__([], files)
            self.ports = [Port(path, self) for path in paths]

        def power_off(self):
            os._exit(0)

    guest.ANSWERED["tidy"] = lambda port, request: {"bytes": 0}
    board = Board(paths, tempfile.mkdtemp(dir=Path(paths[0]).parent))
    if os.environ.get("EDGEKD_FAKE") == "mute":
        board.ports.clear()
    for port in board.ports:
        threading.Thread(target=guest.serve, args=(port,), daemon=True).start()


def main():
    line = " ".join(sys.argv)
    if "--version" in line:
        print("QEMU emulator version 7.2.22 (a fake)")
        return
    if os.environ.get("EDGEKD_FAKE") == "ends":
        sys.exit("could not open anything")
    if "-incoming" in line:
        subprocess.run(sys.argv[-1].removeprefix("exec:"), shell=True, check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
    paths = re.findall(r"path=([^,]+),", line)
    serve(paths)
    status = "paused" if "-incoming" in line else "running"
    monitor(listening(re.search(r"unix:([^,]+),", line)[1]), status)


main()
