"""What can be checked of build systems that are not here: syntax, and the commands they call."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgekd.cli.firmware import CMAKE_FOLDER, YOCTO_FOLDER, ZEPHYR_FOLDER

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
SNIPPETS = Path(__file__).parents[2] / "examples" / "firmware" / "ci"
CLASS = YOCTO_FOLDER / "classes" / "edgekd-model.bbclass"


def options_of(*command):
    """Every option that a command of edgekd's has, read from its own help."""
    done = subprocess.run(
        [sys.executable, "-m", "edgekd.cli", *command, "--help"],
        capture_output=True,
        text=True,
        env={"COLUMNS": "200", "PATH": "/usr/bin"},
    )
    return set(re.findall(r"--[a-z][a-z-]*", done.stdout))


@pytest.fixture(scope="module")
def known():
    return {
        "compress": options_of("compress"),
        "verify": options_of("verify"),
        "firmware build": options_of("firmware", "build"),
    }


def check(line, known):
    words = shlex.split(line)
    assert words[0] == "edgekd"
    name = " ".join(words[1:3]) if words[1] == "firmware" else words[1]
    used = {word for word in words if word.startswith("--")}
    assert used <= known[name], used - known[name]


def test_the_github_workflow_is_sound_and_gates_on_budgets(known):
    table = yaml.safe_load((SNIPPETS / "github-actions.yml").read_text())
    (job,) = table["jobs"].values()
    assert True in table  # YAML reads the key `on` as true; GitHub reads it as `on`
    runs = [step["run"] for step in job["steps"] if "run" in step]
    commands = [run for run in runs if run.startswith("edgekd")]
    assert len(commands) == 2
    for command in commands:
        check(command, known)
    assert "--budget" in commands[0]
    assert not any("continue-on-error" in step for step in job["steps"])


def test_the_gitlab_job_is_sound_and_gates_on_budgets(known):
    table = yaml.safe_load((SNIPPETS / "gitlab-ci.yml").read_text())
    (job,) = table.values()
    for command in job["script"]:
        check(command, known)
    assert "--budget" in job["script"][0]
    assert "allow_failure" not in job


def test_both_snippets_run_the_same_commands():
    first = yaml.safe_load((SNIPPETS / "github-actions.yml").read_text())
    second = yaml.safe_load((SNIPPETS / "gitlab-ci.yml").read_text())
    (job,) = first["jobs"].values()
    runs = [step["run"] for step in job["steps"] if step.get("run", "").startswith("edgekd")]
    assert [run.split() for run in runs] == [
        run.split() for run in second["model-budgets"]["script"]
    ]


def shell_functions():
    return re.findall(r"^(\w+)\(\) \{\n(.*?)^\}", CLASS.read_text(), re.MULTILINE | re.DOTALL)


def expanded(text, values):
    """Bitbake's ${VAR} replaced, as it does before the shell sees it."""
    return re.sub(r"\$\{(\w+)\}", lambda found: values.get(found[1], ""), text)


def test_the_yocto_class_is_sound_shell_and_calls_what_there_is(known):
    functions = dict(shell_functions())
    assert set(functions) == {"edgekd_model_do_compile", "edgekd_model_do_install"}
    for body in functions.values():
        done = subprocess.run(
            ["sh", "-n"], input=expanded(body, {}), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    joined = functions["edgekd_model_do_compile"].replace("\\\n", " ")
    lines = [line.strip() for line in joined.splitlines() if line.strip().startswith("edgekd ")]
    assert len(lines) == 2
    for line in lines:
        check(line.replace("$options", ""), known)


def test_the_yocto_class_packs_what_the_run_made_and_stops_at_a_failure(tmp_path):
    values = {
        "EDGEKD_RECIPE": "r.toml", "EDGEKD_TARGET": "cortex-a53", "EDGEKD_NAME": "hook",
        "EDGEKD_BUDGETS": "size_kib=4 accuracy_drop=1", "EDGEKD_ACCEPT": "simulated",
        "EDGEKD_SOURCES": "c", "B": str(tmp_path / "b"), "D": str(tmp_path / "d"),
        "datadir": "/usr/share", "includedir": "/usr/include",
    }  # fmt: skip
    tool = tmp_path / "edgekd"
    tool.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n'
        f"mkdir -p {tmp_path}/b/run/artifacts/cortex-a53 {tmp_path}/b/sources\n"
        f"touch {tmp_path}/b/run/artifacts/cortex-a53/model.tflite {tmp_path}/b/run/edgekd.lock\n"
        f"touch {tmp_path}/b/sources/hook.h {tmp_path}/b/sources/hook.c\n"
        f"[ ! -e {tmp_path}/fail ] || exit 1\n"
    )
    tool.chmod(0o755)
    script = "set -e\n" + "".join(
        f"{name}() {{\n{expanded(body, values)}}}\n" for name, body in shell_functions()
    )
    script += "edgekd_model_do_compile\nedgekd_model_do_install\n"
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    first, second = (tmp_path / "calls").read_text().splitlines()
    assert first.endswith(
        "--offline --no-progress --budget size_kib=4 --budget accuracy_drop=1 --accept simulated"
    )
    assert second.startswith("firmware build r.toml --target cortex-a53 --name hook")
    made = sorted(path.name for path in (tmp_path / "d").rglob("*") if path.is_file())
    assert made == ["edgekd.lock", "hook.c", "hook.h", "model.tflite"]
    (tmp_path / "fail").write_text("")
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 1


ZEPHYR = """
cmake_minimum_required(VERSION 3.20)
project(zephyr_application C)
add_library(zephyr_interface INTERFACE)
target_compile_definitions(zephyr_interface INTERFACE FROM_ZEPHYR=1)
add_library(app STATIC app.c)
set(CONFIG_EDGEKD {enabled})
add_subdirectory({module} edgekd_module)
if(CONFIG_EDGEKD)
  zephyr_edgekd_model(NAME hook RECIPE recipe.toml TARGET cortex-m4 BUDGET size_kib=64)
endif()
"""
TOOL = """#!/bin/sh
while [ $# -gt 0 ]; do
  case "$1" in --out) out=$2;; --depfile) deps=$2;; esac
  shift
done
mkdir -p "$out"
echo 'int hook(void);' > "$out/hook.h"
{
  printf '#ifndef FROM_ZEPHYR\\n#error no flags of Zephyr\\n#endif\\n'
  echo 'int hook(void);'
} > "$out/hook.c"
echo "$out/hook.h:" > "$deps"
"""


@pytest.mark.parametrize("enabled", ["y", "n"])
def test_the_zephyr_module_links_the_model_with_zephyrs_flags(enabled, tmp_path):
    if not shutil.which("cmake"):
        pytest.skip("no cmake here")
    module = yaml.safe_load((ZEPHYR_FOLDER / "zephyr" / "module.yml").read_text())
    assert module["name"] == "edgekd"
    for kind in ("cmake", "kconfig"):
        assert (ZEPHYR_FOLDER / module["build"][kind]).exists()
    assert (ZEPHYR_FOLDER / "Kconfig").read_text().startswith("config EDGEKD\n\tbool ")
    (tmp_path / "edgekd").write_text(TOOL)
    (tmp_path / "edgekd").chmod(0o755)
    (tmp_path / "recipe.toml").write_text("")
    header = '#include "hook.h"\n' if enabled == "y" else ""
    (tmp_path / "app.c").write_text(f"{header}int app(void);\n")
    (tmp_path / "CMakeLists.txt").write_text(ZEPHYR.format(enabled=enabled, module=ZEPHYR_FOLDER))
    configure = ["cmake", "-B", "build", f"-DEDGEKD_EXECUTABLE={tmp_path}/edgekd"]
    for command in (configure, ["cmake", "--build", "build"]):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "build" / "libhook.a").exists() == (enabled == "y")


@pytest.mark.parametrize(
    ("command", "folder"),
    [("cmake-dir", CMAKE_FOLDER), ("zephyr-dir", ZEPHYR_FOLDER), ("yocto-dir", YOCTO_FOLDER)],
)
def test_each_folder_is_printed_and_is_there(command, folder):
    done = subprocess.run(
        [sys.executable, "-m", "edgekd.cli", "firmware", command], capture_output=True, text=True
    )
    assert done.stdout.strip() == str(folder)
    assert folder.is_dir()
