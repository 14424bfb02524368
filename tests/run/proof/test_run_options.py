"""Which options a file runs with, and which budgets apply to one that is not run."""

from pathlib import Path

import pytest

from edgekd.report.only_size import only_size_counts
from edgekd.report.values import ArtifactReport
from edgekd.run.proof.place import options_for
from edgekd.values.artifact import Artifact
from edgekd.values.target import load_target


def artifact(format: str, runtime: str) -> Artifact:
    return Artifact(
        path=Path("model"), format=format, runtime=runtime, precision="int8", target="t",
        sha256="", bytes=1, inputs=(), outputs=(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("format", "runtime", "backend"),
    [
        ("onnx", "onnxruntime", "onnx"),
        ("tensorrt", "tensorrt", "tensorrt"),
        ("tvm-so", "tvm", "tvm"),
    ],
)
def test_a_file_runs_with_the_options_of_the_backend_that_made_it(
    format: str, runtime: str, backend: str
) -> None:
    target = load_target("jetson-orin")
    tables = {**target.backends, "tensorrt": {"cudart": "libcudart.so.12"}}
    target = target.model_copy(update={"backends": tables})
    assert options_for(target, artifact(format, runtime)) == tables[backend]


def test_the_cuda_runtime_that_a_target_names_reaches_a_run_of_compress() -> None:
    target = load_target("jetson-orin")
    tables = {**target.backends, "tensorrt": {"cudart": "libcudart.so.12"}}
    target = target.model_copy(update={"backends": tables})
    options = options_for(target, artifact("tensorrt", "tensorrt"))
    assert options["cudart"] == "libcudart.so.12"


def test_a_format_that_no_backend_makes_has_no_options() -> None:
    assert options_for(load_target("x86"), artifact("foreign", "foreign")) == {}


def report(format: str, runtime: str) -> ArtifactReport:
    missing = ("accuracy", "accuracy_drop", "agreement_with_teacher", "parity")
    return ArtifactReport(
        path=format, format=format, runtime=runtime, precision="int8", sha256="", bytes=1,
        accuracy=None, accuracy_drop=None, agreement_with_teacher=None, parity=None,
        reasons=dict.fromkeys(missing, "not run"),
    )  # fmt: skip


def test_a_stored_file_is_judged_by_its_size_alone() -> None:
    coded, plain = report("onnx-huffman", "huffman"), report("onnx", "onnxruntime")
    assert only_size_counts(coded, [plain, coded])
    assert not only_size_counts(plain, [plain, coded])


def test_the_source_of_an_engine_is_judged_by_its_size_alone_once_the_engine_is_there() -> None:
    source, engine = report("tensorrt-onnx", "tensorrt"), report("tensorrt", "tensorrt")
    assert not only_size_counts(source, [source]), "nothing else says whether it is fast enough"
    assert only_size_counts(source, [source, engine])
