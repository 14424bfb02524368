"""What `edgekd verify` says of a run's files by its report; `builds/test_lockfile` has the lock."""

import numpy as np
import pytest

from edgekd.measure.parity import compare
from edgekd.report.values import ArtifactReport
from edgekd.run.verification import _allowed, _hash_faults, _hashed
from edgekd.values.artifact import sha256_of


@pytest.fixture
def artifact(tmp_path):
    folder = tmp_path / "artifacts" / "cortex-m4"
    folder.mkdir(parents=True)
    for name in ("model.c", "model.h"):
        (folder / name).write_text(name)
    unknown = ("accuracy", "accuracy_drop", "agreement_with_teacher", "parity")
    return ArtifactReport(
        path="artifacts/cortex-m4/model.c",
        format="c",
        runtime="c",
        precision="int8",
        sha256=sha256_of(folder / "model.c"),
        bytes=7,
        **dict.fromkeys(unknown),
        reasons=dict.fromkeys(unknown, "not run"),
        companions={"model.h": sha256_of(folder / "model.h")},
    )


def test_a_file_and_its_companion_that_nobody_touched_hold(artifact, tmp_path):
    assert _hash_faults(tmp_path, artifact) == []
    assert _hashed(artifact) == "hash, 1 companion hash"


@pytest.mark.parametrize("name", ["model.c", "model.h"])
def test_a_changed_and_a_missing_one_is_named(name, artifact, tmp_path):
    path = tmp_path / "artifacts" / "cortex-m4" / name
    path.write_text("changed")
    (fault,) = _hash_faults(tmp_path, artifact)
    assert (fault.where, fault.exit_code) == (str(tmp_path / "report.json"), 2)
    assert fault.message.startswith(f"the file 'artifacts/cortex-m4/{name}' has the hash ")
    path.unlink()
    (fault,) = _hash_faults(tmp_path, artifact)
    assert fault.message == f"the file 'artifacts/cortex-m4/{name}' is gone"


def test_what_the_run_accepted_as_rounding_is_no_fault_afterwards() -> None:
    reference, outputs = np.zeros((2, 2)), np.array([[0.0, 0.3], [0.0, 0.0]])
    parity = compare(reference, outputs, 0.1)
    assert (parity.verdict, _allowed(parity)) == ("fail", 2.0)
    accepted = parity.model_copy(update={"verdict": "pass"})
    assert compare(reference, outputs, 0.1, _allowed(accepted)).verdict == "pass"
    assert compare(reference, outputs + 0.1, 0.1, _allowed(accepted)).verdict == "fail"
