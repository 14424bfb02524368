"""Jobs in processes that were ready before them: their streams, ends, limits and surroundings."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgekd.errors import ToolError
from edgekd.processes import forked
from edgekd.processes.forked import prepare, run_module

JOB = """
import os, sys, time
from pathlib import Path

PRELOADED = ("json",)
IMPORTED_BY = os.getpid()

def main(what, *more):
    print("out", what, *more)
    print("aside", file=sys.stderr)
    if what == "fail":
        raise ValueError("the reason")
    if what == "exit":
        sys.exit(7)
    if what == "crash":
        os.kill(os.getpid(), 11)
    if what == "sleep":
        os.system(f"(sleep 1; touch {more[0]}) & sleep 60")
    if what == "where":
        print(os.getcwd(), os.environ.get("EDGEKD_TRIED"), IMPORTED_BY, os.getpid())

if __name__ == "__main__":
    main(*sys.argv[1:])
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs the module above under a name of its own."""
    name = f"job_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(JOB)
    paths = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))

    def run(*arguments: str, limit_s: float = 20.0, **options):
        return run_module(name, arguments, limit_s, "the tool", "model.onnx", **options)

    run.module = name
    yield run
    if name in forked._servers:
        forked._servers.pop(name)[1].end()


def test_a_job_gives_both_streams_and_its_status(job):
    done = job("well", "and good")
    assert (done.stdout, done.stderr, done.status) == (b"out well and good\n", b"aside\n", 0)


def test_a_failure_is_reported_by_its_exception(job):
    done = job("fail")
    assert done.status == 1
    assert done.cause == "ValueError: the reason"
    assert job("exit").status == 7


def test_a_crash_ends_its_own_job_alone(job):
    assert job("crash").status == -signal.SIGSEGV
    assert job("well").status == 0


def test_a_module_is_imported_once_for_all_of_its_jobs(job):
    first, second = (job("where").stdout.split() for _ in range(2))
    assert first[-2] == second[-2]
    assert first[-1] != second[-1]


def test_a_job_has_the_folder_and_environment_of_its_own_time(job, tmp_path, monkeypatch):
    assert job("where").stdout.split()[-3] == b"None"
    monkeypatch.setenv("EDGEKD_TRIED", "now")
    monkeypatch.chdir(tmp_path)
    done = job("where")
    assert done.stdout.splitlines()[1].startswith(f"{tmp_path} now ".encode())


def test_a_job_that_does_not_end_is_ended_with_its_children(job, tmp_path):
    job("well")
    with pytest.raises(ToolError, match=r"the tool did not end within 0\.3 s") as caught:
        job("sleep", str(tmp_path / "late"), limit_s=0.3, hint="raise the limit")
    assert caught.value.hint == "raise the limit"
    time.sleep(1.2)
    assert not (tmp_path / "late").exists()
    assert job("well").status == 0


def test_a_server_that_was_killed_is_replaced(job):
    job("well")
    server = forked._servers[job.module][1]
    server.process.kill()
    server.process.wait()
    assert job("well").status == 0


def test_a_module_that_can_not_be_imported_fails_as_a_program_would(job, tmp_path):
    (tmp_path / f"{job.module}.py").write_text("import no_such_package\nPRELOADED = ()\n")
    done = job("well")
    assert done.cause == "ModuleNotFoundError: No module named 'no_such_package'"


def test_without_forks_the_module_is_a_program(job, monkeypatch):
    monkeypatch.delattr(os, "pidfd_open")
    prepare(job.module)
    assert job("well", "here").stdout == b"out well here\n"
    assert forked._servers.get(job.module) is None


def test_a_server_ends_with_a_killed_parent(job, tmp_path):
    script = f"""
import os, time
from edgekd.processes import forked
forked.prepare("{job.module}")
print(forked._servers["{job.module}"][1].process.pid, flush=True)
forked.run_module("{job.module}", ["sleep", "{tmp_path}/late"], 60, "", "")
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        server = int(parent.stdout.readline())
        time.sleep(0.5)
        parent.kill()
    for _ in range(100):
        if not Path(f"/proc/{server}").exists():
            break
        time.sleep(0.1)
    assert not Path(f"/proc/{server}").exists()
    time.sleep(1.0)
    assert not (tmp_path / "late").exists()
