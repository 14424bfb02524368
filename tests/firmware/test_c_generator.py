"""What the generator reads, refuses and writes."""

import re
import shutil
import subprocess

import numpy as np
import pytest
from operator_cases import CASES, padded, padded_maximum
from tflite_files import O, T, integers, tflite

from edgekd.errors import InputError
from edgekd.firmware import hosted
from edgekd.firmware.facts import Facts, c_string, check_name, name_from
from edgekd.firmware.generate import check_arithmetic, generate
from edgekd.firmware.graph import read_network


@pytest.fixture
def made(tmp_path):
    """Called as made(tensors, ops, inputs, outputs) or made(content): C of that file."""

    def make(*parts, **options):
        content = parts[0] if isinstance(parts[0], bytes) else tflite(*parts)
        (tmp_path / "net.tflite").write_bytes(content)
        return generate(tmp_path / "net.tflite", **options)

    return make


X = T((1, 8), 0.05, 3)
MASK = T((1, 8), (), dtype="bool")
RELU = O("RELU", [0], [1])


@pytest.mark.parametrize(
    ("tensors", "ops", "inputs", "outputs", "message"),
    [
        ([X, T((1, 8), dtype="float32")], [RELU], [0], [1], r"operator 0: RELU computes in float"),
        ([X, X], [O("COS", [0], [1])], [0], [1], r"COS has no C kernel \(allowed: ABS, ADD,"),
        ([X, X, X], [O("RELU", [2], [1])], [0], [1], "RELU reads a tensor before it is computed"),
        ([X, X], [RELU, RELU], [0], [1], "operator 1: RELU overwrites a tensor"),
        ([X, X, X], [RELU], [0], [2], "no output, or one that no operator computes"),
        ([X, X], [RELU], [0, 0], [1], "it has no input, or lists one twice"),
        ([X, X], [RELU], [0], [1, 1], "it lists an output twice"),
        ([X, T((-1, 8))], [RELU], [0], [1], "an open dimension"),
        ([X, T((1, 0))], [RELU], [0], [1], r"a tensor of shape \(1, 0\)"),
        ([X, T((1 << 14, 1 << 14))], [RELU], [0], [1], "elements, none of them 0"),
        ([X, T((1,) * 7)], [RELU], [0], [1], "up to 6 dimensions"),
        ([X, MASK, X], [RELU, O("SELECT_V2", [1, 0, 0], [2])], [0], [2], "its output is bool, not"),
        ([X, MASK], [O("LESS", [0, 0], [1])], [0], [1], r"output 0: tensor 1 is bool .*int8, comp"),
        ([X, X], [O("SELECT_V2", [0, 0, 0], [1])], [0], [1], "input 0 is not bool"),
        ([T((1, 8), 1.5), MASK, X], [O("LESS", [0, 0], [1]), O("SELECT_V2", [1, 0, 0], [2])],
         [0], [2], "LESS: an input of scale 1.5, but only less than 1 is supported"),
        ([X, T((1, 9))], [RELU], [0], [1], r"RELU: \(1, 8\) -> \(1, 9\)"),
        ([X, T((1, 8), float("nan"))], [RELU], [0], [1], "a scale that is not positive and finite"),
        ([X, T((1, 8), 0.05, 128)], [RELU], [0], [1], "a zero point outside the range of int8"),
        ([X, T((1, 8), [0.1, 0.2])], [RELU], [0], [1], "2 scales for one tensor"),
        ([X, T((1, 8), ())], [RELU], [0], [1], "an int8 tensor without scale"),
        ([X, T((1, 8), 1e-9)], [RELU], [0], [1], "RELU: a rescaling by 5e\\+07"),
    ],
)  # fmt: skip
def test_what_can_not_become_c_is_refused_by_name(made, tensors, ops, inputs, outputs, message):
    with pytest.raises(InputError, match=message) as caught:
        made(tensors, ops, inputs, outputs)
    assert caught.value.exit_code == 2
    assert "net.tflite" in str(caught.value)


def dense(weights, bias):
    shape = np.asarray(weights).shape
    return (
        [T((1, shape[1]), 0.05, -128), T(shape, 0.01, 0, weights), integers(bias),
         T((1, shape[0]), 0.1)],
        [O("FULLY_CONNECTED", [0, 1, 2], [3], {}, "FullyConnectedOptions")], [0], [3],
    )  # fmt: skip


def test_sums_that_32_bits_do_not_hold_are_refused_and_the_largest_that_they_hold_are_not(made):
    """127 * 255 * 4 = 129540 is the most that four weights of 127 give from the zero point -128."""
    limit = 2**31 - 1 - 127 * 255 * 4
    assert made(*dense([[127] * 4], [limit])).source
    with pytest.raises(InputError, match="its sums do not fit into 32 bits"):
        made(*dense([[127] * 4], [limit + 1]))
    with pytest.raises(InputError, match="its sums do not fit into 32 bits"):
        made(*dense([[-127] * 4], [-limit - 1]))


def test_a_constant_shorter_than_its_shape_is_refused(made):
    tensors, *rest = dense([[1, 2, 3, 4]], [0])
    tensors[1].values = np.asarray([1, 2, 3], np.int8)
    with pytest.raises(InputError, match="has 3 of its 4 bytes"):
        made(tensors, *rest)


def test_a_pad_before_a_convolution_costs_no_memory_and_no_call(made):
    """6x6x4 in, 3x3x4 out; the padded 8x8x4 is never there, and the output overwrites what has been
    read."""
    generated = made(padded("CONV_2D"))
    assert generated.numbers["kernel_calls"] == 1
    assert generated.numbers["arena_bytes"] == 6 * 6 * 4
    kept = made(padded("CONV_2D", True))
    assert kept.numbers["kernel_calls"] == 4


def test_a_pad_of_the_least_value_before_a_maximum_costs_no_call(made):
    assert made(padded_maximum(-128)).numbers["kernel_calls"] == 1
    assert made(padded_maximum(-127)).numbers["kernel_calls"] == 2


def test_an_operator_that_works_element_by_element_takes_its_inputs_memory(made):
    chain = [O("RELU", [0], [1]), O("ADD", [1, 1], [2], {}, "AddOptions"), O("RELU", [2], [3])]
    generated = made([X, X, X, X], chain, [0], [3])
    assert generated.numbers["arena_bytes"] == 8


def test_memory_that_is_read_again_is_not_taken(made):
    ops = [O("RELU", [0], [1]), O("ADD", [0, 1], [2], {}, "AddOptions")]
    assert made([X, X, X], ops, [0], [2]).numbers["arena_bytes"] == 16


def test_an_output_that_is_read_too_keeps_its_memory(made):
    ops = [O("RELU", [0], [1]), O("RELU", [1], [2])]
    generated = made([X, X, X], ops, [0], [1, 2])
    offsets = re.findall(r"OUTPUT_T\d_OFFSET (\d+)", generated.header)
    assert len(set(offsets)) == 2


def test_the_header_says_what_firmware_needs(made):
    facts = Facts(
        name='Kitchen "v2"??/', version="1.4", recipe_hash="ab12", licence="Apache-2.0\n*/",
        accuracy_percent=98.25, labels=("on", "öff"),
    )  # fmt: skip
    generated = made([X, T((1, 8), 0.1, -5)], [RELU], [0], [1], name="kws", facts=facts)
    for line in (
        '#define KWS_NAME "Kitchen \\042v2\\042\\077\\077/"',
        '#define KWS_VERSION "1.4"',
        '#define KWS_RECIPE_HASH "ab12"',
        '#define KWS_LICENSE "Apache-2.0\\012*/"',
        "#define KWS_ACCURACY_PERCENT 98.2500",
        '#define KWS_LABELS {"on", "\\303\\266ff"}',
        "#define KWS_ARENA_BYTES 8",
        "#define KWS_INPUT_SHAPE {1, 8}",
        "#define KWS_INPUT_SCALE 0.0500000007f",
        "#define KWS_OUTPUT_ZERO_POINT (-5)",
        "void kws_invoke(int8_t *arena);",
    ):
        assert line in generated.header.splitlines()
    assert '#include "kws.h"' in generated.source


def test_the_header_has_the_steps_that_an_image_goes_through(made):
    steps = {"resize": [40, 48], "crop": 32, "mean": [0.5, 0.25, 0.125], "std": [0.2, 0.2, 0.3]}
    facts = Facts(preprocess=steps)
    lines = made([X, X], [RELU], [0], [1], name="kws", facts=facts).header.splitlines()
    assert "#define KWS_RESIZE {40, 48}" in lines
    assert "#define KWS_CROP {32}" in lines
    assert "#define KWS_MEAN {0.5f, 0.25f, 0.125f}" in lines
    assert "#define KWS_STD {0.2f, 0.2f, 0.3f}" in lines
    (text,) = (line for line in lines if line.startswith("#define KWS_PREPROCESS "))
    assert "{\\042crop\\042:32,\\042mean\\042:[0.5," in text


def test_nothing_that_the_file_says_in_words_gets_into_the_c(made):
    content = tflite([X, X], [RELU], [0], [1]).replace(b"t0", b"*/").replace(b"t1", b"Q9")
    generated = made(content)
    assert "Q9" not in generated.source + generated.header


def test_two_folders_give_the_same_bytes_without_time_or_place(tmp_path):
    texts = []
    for place in ("here", "there/deeper"):
        folder = tmp_path / place
        folder.mkdir(parents=True)
        (folder / "net.tflite").write_bytes(CASES["pad that a pool reads too"]())
        paths = generate(folder / "net.tflite").write(folder / "out")
        texts.append([path.read_bytes() for path in paths])
    assert texts[0] == texts[1]
    assert str(tmp_path).encode() not in b"".join(texts[0])


@pytest.mark.parametrize(
    ("stem", "name"),
    [("resnet8", "resnet8"), ("My Model-v2", "my_model_v2"), ("8bit", "model_8bit"),
     ("int", "model_int"), ("***", "model"), ("ünder", "nder")],
)  # fmt: skip
def test_a_files_name_becomes_one_that_c_takes(stem, name):
    assert name_from(stem) == name
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["int", "2nd", "a-b", "_x", "", "é", "x" * 41, "a;b", "x\n"])
def test_a_name_that_c_does_not_take_is_refused(name):
    with pytest.raises(InputError, match="can't be a prefix of C function names"):
        check_name(name)


def test_strings_keep_what_follows_an_escape():
    assert c_string("ä1") == '"\\303\\2441"'


def test_an_unknown_arithmetic_is_refused():
    with pytest.raises(
        InputError, match=r"unknown arithmetic 'litert2' \(allowed: micro, litert\)"
    ):
        check_arithmetic("litert2")


def test_a_sound_file_reads_as_a_typed_network(tmp_path):
    (tmp_path / "m.tflite").write_bytes(CASES["conv same"]())
    network = read_network(tmp_path / "m.tflite")
    (node,) = network.nodes
    assert node.kind == "CONV_2D"
    assert [one.shape for one in network.inputs] == [(1, 5, 6, 3)]
    assert node.inputs[1].values.shape == (7, 3, 3, 3)
    assert len(node.inputs[1].scales) == 7


GCC = ["gcc", "-std=c11", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror", "-c"]


def every_operator(folder):
    """One C file for each operator, in one folder; two where instructions make a difference."""
    sources = []
    for number, make in enumerate(CASES.values()):
        (folder / "m.tflite").write_bytes(make())
        plain = generate(folder / "m.tflite", f"net{number}")
        vectors = generate(folder / "m.tflite", f"net{number}v", instructions="mve")
        kept = (plain, vectors) if "_helium" in vectors.source else (plain,)
        sources += [generated.write(folder)[1] for generated in kept]
    return sources


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_a_static_analyser_finds_nothing_in_any_operator(tmp_path):
    for source in every_operator(tmp_path):
        command = [*GCC, "-O1", "-fanalyzer", source.name, "-o", "out.o"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cppcheck") is None, reason="needs cppcheck (apt)")
def test_cppcheck_finds_nothing_in_any_operator(tmp_path):
    sources = [source.name for source in every_operator(tmp_path)]
    checks = ["--enable=warning,portability,performance", "--inconclusive", "--error-exitcode=9"]
    command = ["cppcheck", "--std=c11", *checks, "--quiet", *sources]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_the_header_is_c_plus_plus_too(tmp_path):
    (tmp_path / "m.tflite").write_bytes(CASES["conv same"]())
    header, _ = generate(tmp_path / "m.tflite").write(tmp_path)
    command = ["g++", "-x", "c++", "-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only"]
    assert subprocess.run([*command, str(header)]).returncode == 0


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_a_division_by_the_zero_point_gives_an_end_of_the_range(made, tmp_path):
    """The divisor is 5 - 5; the dividends are below and above their zero point 6."""
    tensors = [T((1, 2), 0.05, 6), T((1,), 0.01, 5, [5]), T((1, 2), 0.015, -2)]
    generated = made(tensors, [O("DIV", [0, 1], [2], {}, "DivOptions")], [0], [2])
    _, source = generated.write(tmp_path)
    program = hosted.build(source, tmp_path, ("-O1", *hosted.SANITIZERS))
    assert hosted.run(program, np.array([[5, 7]], np.int8)).tolist() == [[-128, 127]]
