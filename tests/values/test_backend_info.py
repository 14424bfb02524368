"""What backends say about themselves, and how the rest of edgekd finds it."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from edgekd.errors import InputError, ToolError
from edgekd.registry import BACKENDS
from edgekd.values.backend import BackendInfo, FileKind
from edgekd.values.backend_lookup import (
    backend_info,
    backend_of,
    known_backends,
    plot_mark,
    recognized_file,
    suffixes,
)


def test_no_format_belongs_to_two_backends() -> None:
    formats = Counter(kind.format for info in known_backends().values() for kind in info.files)
    assert set(formats.values()) == {1}
    assert {backend_of(format) for format in formats} == set(known_backends())


def test_a_follower_follows_a_backend_that_starts_from_the_model() -> None:
    infos = known_backends()
    followed = {name: info.follows for name, info in infos.items() if info.follows}
    assert followed == {
        "c": "tflite", "edgetpu": "tflite", "vela": "tflite", "huffman": "onnx", "tensorrt": "onnx",
    }  # fmt: skip
    assert not any(infos[name].follows for name in followed.values())


def test_forms_come_from_precisions() -> None:
    assert backend_info("tvm").forms == {"float", "fp16", "int8"}
    assert backend_info("tflite").forms == {"float", "fp16", "int8"}
    assert backend_info("onnx").forms == {"float", "fp16", "int8", "weights"}
    assert backend_info("vela").int8_only
    assert not backend_info("tensorrt").int8_only


def test_descriptions_are_read_without_torch() -> None:
    code = (
        "import sys\n"
        "from edgekd.values.backend_lookup import known_backends\n"
        "assert len(known_backends()) == 8\n"
        "print(*{'torch', 'onnx', 'tvm', 'onnxruntime', 'jax'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_help_imports_no_backend() -> None:
    code = (
        "import sys\n"
        "sys.argv = ['edgekd', '--help']\n"
        "from edgekd.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(*[name for name in sys.modules if name.startswith('edgekd.backends')],"
        " file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (0, "")


def test_a_marked_kind_is_recognized_before_the_kind_that_shares_its_suffix(tmp_path: Path) -> None:
    plain, compiled = tmp_path / "plain.tflite", tmp_path / "compiled.TFLITE"
    plain.write_bytes(b"TFL3")
    compiled.write_bytes(b"TFL3 edgetpu-custom-op")
    found = [recognized_file(path) for path in (plain, compiled)]
    assert [each and each[0] for each in found] == ["tflite", "edgetpu"]
    assert recognized_file(tmp_path / "model.h5") is None
    assert {".onnx", ".tflite", ".so", ".engine", ".plan"} <= set(suffixes())


def test_a_foreign_format_has_the_default_mark() -> None:
    assert (plot_mark("onnx"), plot_mark("foreign")) == ("o", "D")
    assert backend_of("foreign") == ""


def test_an_unknown_backend_and_one_without_a_description_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(InputError, match="unknown backend 'tvn'") as caught:
        backend_info("tvn", "here")
    assert caught.value.hint == "did you mean 'tvm'?"

    class Point:
        name = "silent"
        value = "package:Silent"

        @staticmethod
        def load() -> type:
            return object

    monkeypatch.setattr("edgekd.registry.entry_points", lambda group: [Point])
    try:
        with pytest.raises(ToolError, match="the backend 'silent' does not describe itself"):
            backend_info("silent")
    finally:
        BACKENDS._entries.pop("silent", None)


def test_a_description_refuses_a_key_that_it_does_not_have() -> None:
    kind = FileKind(format="f", runtime="r")
    with pytest.raises(ValueError, match="sufixes"):
        FileKind(format="f", runtime="r", sufixes=(".f",))  # type: ignore[call-arg]
    assert BackendInfo(title="T", files=(kind,), precisions=("fp32",)).kind_of("f") == kind
