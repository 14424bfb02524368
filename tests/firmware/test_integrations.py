"""What can be checked of build systems that are not here: syntax, and the commands they call."""

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from edgekd_options import check, options_of

from edgekd.cli.firmware import CMAKE_FOLDER, YOCTO_FOLDER, ZEPHYR_FOLDER

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
SNIPPETS = Path(__file__).parents[2] / "examples" / "firmware" / "ci"


@pytest.fixture(scope="module")
def known():
    return {
        "compress": options_of("compress"),
        "verify": options_of("verify"),
        "firmware build": options_of("firmware", "build"),
    }


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


SCHEMAS = {"github-actions.yml": "vendor.github-workflows", "gitlab-ci.yml": "vendor.gitlab-ci"}


def against_schema(path, schema):
    """What `check-jsonschema` says of a file, by the schema that its package carries."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.skipif(find_spec("check_jsonschema") is None, reason="needs check-jsonschema")
@pytest.mark.parametrize("name", SCHEMAS)
def test_a_snippet_is_what_its_systems_published_schema_allows(name, tmp_path):
    done = against_schema(SNIPPETS / name, SCHEMAS[name])
    assert done.returncode == 0, done.stdout + done.stderr
    text = (SNIPPETS / name).read_text()
    worse = text.replace("timeout-minutes: 60", "timeout-minutes: [60]")
    worse = worse.replace("when: always", "when: sometimes")
    assert worse != text
    (tmp_path / name).write_text(worse)
    assert against_schema(tmp_path / name, SCHEMAS[name]).returncode == 1


def test_both_snippets_run_the_same_commands():
    first = yaml.safe_load((SNIPPETS / "github-actions.yml").read_text())
    second = yaml.safe_load((SNIPPETS / "gitlab-ci.yml").read_text())
    (job,) = first["jobs"].values()
    runs = [step["run"] for step in job["steps"] if step.get("run", "").startswith("edgekd")]
    assert [run.split() for run in runs] == [
        run.split() for run in second["model-budgets"]["script"]
    ]


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


@pytest.mark.parametrize("value", ["y", "n"])
def test_the_zephyr_option_is_one_that_kconfig_reads_and_sets(value, tmp_path, monkeypatch):
    """The tree as Zephyr makes it of a module: its Kconfig in a menu of its own, and a marker."""
    kconfiglib = pytest.importorskip("kconfiglib", reason="needs kconfiglib")
    monkeypatch.setenv("srctree", str(tmp_path))
    text = f"""mainmenu "Zephyr"
menu "edgekd ({ZEPHYR_FOLDER})"
osource "{ZEPHYR_FOLDER / "Kconfig"}"
config ZEPHYR_EDGEKD_MODULE
\tbool
\tdefault y
endmenu
"""
    (tmp_path / "Kconfig").write_text(text)
    (tmp_path / "prj.conf").write_text(f"CONFIG_EDGEKD={value}\n")
    found = kconfiglib.Kconfig("Kconfig", warn_to_stderr=False)
    assert found.syms["EDGEKD"].str_value == "n"
    found.load_config(str(tmp_path / "prj.conf"))
    assert found.syms["EDGEKD"].str_value == value
    assert found.warnings == []
    found.write_config(str(tmp_path / ".config"))
    told = "CONFIG_EDGEKD=y" if value == "y" else "# CONFIG_EDGEKD is not set"
    assert told in (tmp_path / ".config").read_text().splitlines()


@pytest.mark.parametrize(
    ("command", "folder"),
    [("cmake-dir", CMAKE_FOLDER), ("zephyr-dir", ZEPHYR_FOLDER), ("yocto-dir", YOCTO_FOLDER)],
)
def test_each_folder_is_printed_and_is_there(command, folder):
    done = subprocess.run(
        [sys.executable, "-m", "edgekd", "firmware", command], capture_output=True, text=True
    )
    assert done.stdout.strip() == str(folder)
    assert folder.is_dir()
