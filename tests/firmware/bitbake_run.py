"""Bitbake's own parser and task executor for one recipe, with stand-ins of OpenEmbedded's classes.

`python bitbake_run.py FOLDER CLASSES RECIPE TASK...` prints a line of JSON: the variables after
parsing, why the recipe is skipped if it is, and each task's status. Bitbake's server and scheduler
are not part of it, nor is its hash server, which its package from PyPI leaves out.
"""

import json
import logging
import os
import sys
import types
from pathlib import Path

BITBAKE_CONF = """
PN = "${@bb.parse.vars_from_file(d.getVar('FILE', False), d)[0] or 'unknown'}"
PV = "${@bb.parse.vars_from_file(d.getVar('FILE', False), d)[1] or '1.0'}"
BPN = "${PN}"
WORKDIR = "${TOPDIR}/work/${PN}"
T = "${WORKDIR}/temp"
B = "${WORKDIR}/build"
D = "${WORKDIR}/image"
STAMP = "${TOPDIR}/stamps/${PN}"
STAMPCLEAN = "${STAMP}"
datadir = "/usr/share"
includedir = "/usr/include"
FILES:${PN} = "${datadir}/${BPN}"
export PATH
"""

# As OpenEmbedded's base.bbclass has it: functions of its own that other classes replace. Stamps are
# the scheduler's.
BASE_CLASS = """
addtask compile
do_compile[dirs] = "${B}"
do_compile[nostamp] = "1"
base_do_compile() {
    :
}
addtask install after do_compile
do_install[dirs] = "${B}"
do_install[cleandirs] = "${D}"
do_install[nostamp] = "1"
base_do_install() {
    :
}
EXPORT_FUNCTIONS do_compile do_install
"""


def without_hash_server() -> None:
    for name in ("hashserv", "hashserv.client"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["hashserv"].client = sys.modules["hashserv.client"]  # type: ignore[attr-defined]


def main(folder: Path, classes: str, recipe: str, tasks: list[str]) -> None:
    without_hash_server()
    import bb.build
    import bb.data
    import bb.parse
    import bb.siggen
    from bb.parse.parse_py import BBHandler

    for place, text in (("conf/bitbake.conf", BITBAKE_CONF), ("classes/base.bbclass", BASE_CLASS)):
        path = folder / "openembedded" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    logging.getLogger("BitBake").addHandler(logging.StreamHandler(sys.stderr))
    d = bb.data.init()
    bb.parse.siggen = bb.siggen.init(d)
    d.setVar("TOPDIR", str(folder))
    d.setVar("BBPATH", f"{folder / 'openembedded'}:{classes}")
    d.setVar("PATH", os.environ["PATH"])
    for pair in os.environ.get("SETTINGS", "").splitlines():
        d.setVar(*pair.split("=", 1))
    d = bb.parse.handle(str(folder / "openembedded" / "conf" / "bitbake.conf"), d, True)
    d.setVar("__bbclasstype", "global")
    BBHandler.inherit("base", "configuration", 0, d)
    d.setVar("__bbclasstype", "recipe")
    d = bb.parse.handle(recipe, d)[""]
    told = {
        "skipped": d.getVar("__SKIPPED"),
        "network": d.getVarFlag("do_compile", "network"),
        "tasks": {},
    }
    names = ("PN", "S", "B", "D", "DEPENDS", "EDGEKD_NAME", "EDGEKD_RECIPE", "FILES:hook-model")
    told["variables"] = {name: d.getVar(name) for name in names}
    for task in tasks:
        told["tasks"][task] = bb.build.exec_task(recipe, task, d)
    sys.stdout.write("\n" + json.dumps(told) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])
