"""The second run of an unchanged recipe against the first one, and `edgekd --help`.

python benchmarks/pipeline/second_run.py
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dated import write_result


def seconds(*arguments: str) -> float:
    """Wall time of one command; it may end with a broken budget, not with an error."""
    command = [str(Path(sys.executable).with_name("edgekd")), *arguments]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise SystemExit(done.stderr)
    return time.perf_counter() - started


def main() -> None:
    with tempfile.TemporaryDirectory() as out:
        run = ("compress", "--target", "x86", "--quick", "--out", out)
        first, second = seconds(*run), seconds(*run)
    helps = [seconds("--help") for _ in range(9)]
    write_result(
        __file__,
        {
            "what": "edgekd compress --target x86 --quick (the digits recipe), twice",
            "first_seconds": first,
            "second_seconds": second,
            "second_over_first": second / first,
            "goal": "at most 0.05",
            "help_seconds": statistics.median(helps),
            "help_goal": "at most 0.3",
        },
    )


if __name__ == "__main__":
    main()
