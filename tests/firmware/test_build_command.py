"""What `edgekd firmware build` refuses before anything is trained; `test_cmake` builds with it."""

import pytest
from typer.testing import CliRunner

from edgekd.cli import app
from edgekd.errors import EdgekdError, InputError
from edgekd.values.recipe import default_recipe


def build(*options, target="cortex-m4", name="hook", out="out"):
    arguments = ["firmware", "build", str(default_recipe()), "--target", target, "--name", name]
    return CliRunner().invoke(app, [*arguments, "--out", str(out), *options])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "my-model"}, "'my-model' can't be a prefix of C function names"),
        ({"name": "int"}, "'int' can't be a prefix of C function names"),
        ({"target": "cortex-m5"}, "unknown target 'cortex-m5'"),
    ],
)
def test_a_wrong_name_or_target_is_refused(options, words, tmp_path):
    result = build(out=tmp_path / "out", **options)
    assert isinstance(result.exception, InputError)
    assert words in str(result.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--output", "rust"), "unknown output 'rust' (allowed: c, tflm)"),
        (("--budget", "size_kb"), "'size_kb' is not a budget"),
        (("--accept", "guessed"), "'guessed' can't be accepted"),
        (("--set", "nothing"), "'nothing' is not KEY=VALUE"),
        (("--budget", "memory_mib=2"), "allows more than the 655,360 bytes that cortex-m4 has"),
    ],
)
def test_wrong_options_are_refused(options, words, tmp_path):
    result = build(*options, out=tmp_path / "out")
    assert isinstance(result.exception, EdgekdError)
    assert words in str(result.exception)


def test_a_target_without_tflite_is_refused(tmp_path, monkeypatch):
    text = """
name = "no-tflite"
title = "t"
summary = "s"
[hardware]
architecture = "x86_64"
cpu = "c"
cores = 1
memory_bytes = 1
[quantization]
activations = "uint8-affine"
[backends.onnx]
"""
    (tmp_path / "no-tflite.toml").write_text(text)
    result = build(target=str(tmp_path / "no-tflite.toml"), out=tmp_path / "out")
    assert "no-tflite has no TFLite backend" in str(result.exception)


def test_a_folder_whose_name_make_cannot_write_is_refused(tmp_path):
    result = build("--depfile", "d", out=tmp_path / "a:b")
    assert isinstance(result.exception, InputError)
    assert "make can't represent a colon in a file name" in str(result.exception)


def test_only_the_backends_that_the_sources_are_made_with_are_built():
    from edgekd.run.firmware import narrowed
    from edgekd.run.request import make_request

    request = make_request(None, {"target": ["raspberry-pi-5", "ethos-u55"], "out": "runs/x"})
    assert not narrowed(request, "c").baseline
    for output, names in (
        ("c", [["tflite"], ["tflite"]]),
        ("tflm", [["tflite"], ["tflite", "vela"]]),
    ):
        targets = narrowed(request, output).targets
        assert [list(target.backends) for target in targets] == names


@pytest.mark.parametrize(
    ("target", "output", "product"),
    [
        ("cortex-m4", "c", "c"),  # the arena of the micro runtime is not in that firmware
        ("cortex-m4", "tflm", ""),
        ("ethos-u55", "tflm", "vela"),
        (
            "raspberry-pi-5",
            "c",
            "",
        ),  # its profile has no [backends.c]: the TFLite file stands for it
    ],
)
def test_flash_and_memory_are_held_against_what_is_deployed(target, output, product):
    from edgekd.run.firmware import narrowed
    from edgekd.run.request import make_request

    request = make_request(None, {"target": target, "out": "runs/x"})
    assert request.product == ""
    assert narrowed(request, output).product == product
