"""Judges hostile files in a process of its own, so that a crash or a hang ends that process alone.

`python hostile_worker.py FOLDER EACH START` goes on at file number START. FOLDER/progress has the
number under judgement, FOLDER/verdicts a line of JSON for each file that was judged, and
FOLDER/accepted those whose C is not that of the sound file.
"""

import json
import resource
import signal
import sys
from pathlib import Path

from hostile_files import hostile_files

from edgekd.errors import EdgekdError
from edgekd.firmware.generate import generate
from edgekd.firmware.stored_facts import facts_in
from edgekd.firmware.tflm import micro_sources
from edgekd.values.measurement import Measurement

SECONDS = 20
MEMORY = 8 << 30
NO_ARENA = Measurement(
    metric="memory_bytes", value=None, kind="unavailable", device="none", reason="not measured"
)


def generated(path: Path) -> str | EdgekdError:
    """The C of a file, or the error that refuses it. Anything else that is raised is a fault."""
    try:
        return generate(path, "m", facts_in(path)).source
    except EdgekdError as error:
        return error


def judged(path: Path, told: str | EdgekdError) -> str:
    """`refused`, `same`, `other`, or what is wrong with how it was taken."""
    try:
        found = generated(path)
        try:
            micro_sources(path, NO_ARENA, "m", facts_in(path))
        except EdgekdError as error:
            if error.exit_code != 2:
                return f"wrong: exit code {error.exit_code}: {error}"
    except Exception as error:
        return f"wrong: {type(error).__name__}: {error}"
    if isinstance(found, str):
        return "same" if found == told else "other"
    if found.exit_code != 2 or str(path) not in str(found):
        return f"wrong: exit code {found.exit_code}, or no place: {found}"
    return "refused"


def main(folder: Path, each: int, start: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    path, accepted = folder / "m.tflite", folder / "accepted"
    accepted.mkdir(exist_ok=True)
    last, told = b"", generated(path)
    with (folder / "verdicts").open("a") as verdicts:
        for number, (name, sound, content) in enumerate(hostile_files(each)):
            if number < start:
                continue
            if sound is not last:
                path.write_bytes(sound)
                last, told = sound, generated(path)
            (folder / "progress").write_text(str(number))
            path.write_bytes(content)
            signal.alarm(SECONDS)  # a hang ends this process
            verdict = judged(path, told)
            signal.alarm(0)
            if verdict == "other":
                (accepted / f"{number}.tflite").write_bytes(content)
            verdicts.write(json.dumps([number, name, verdict]) + "\n")
            verdicts.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
