"""Generated C that calls CMSIS-NN: which calls, how much scratch, and the same bytes."""

import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from operator_cases import CASES, inputs_for

from edgekd.errors import InputError
from edgekd.firmware import emulation, hosted
from edgekd.firmware.cmsis_nn import check_variant, flags_of, sources_of, variant_of
from edgekd.firmware.generate import generate
from edgekd.values.target import load_target

SPEC = find_spec("bakenn")
LIBRARY = Path(SPEC.origin).parent / "backend/cmsis_nn/vendor/cmsis_nn" if SPEC else Path()
emulated = pytest.mark.skipif(
    SPEC is None or bool(emulation.missing_tools()),
    reason="needs bakenn, which has CMSIS-NN's sources, and the emulated Cortex-M's tools",
)
VARIANTS = {"cortex-m4": "dsp", "cortex-m55": "mve"}


def calling(name, folder, variant):
    (folder / "net.tflite").write_bytes(CASES[name]())
    return generate(folder / "net.tflite", cmsis_nn=variant)


@pytest.mark.parametrize(
    ("name", "variant", "call"),
    [
        # 3x3x3 = 27 columns, in whole eights, four of them at a byte or two at two bytes
        ("conv same", "dsp", r"conv_2d_cmsis\(&layer_0, .*, arena \+ \d+, 128\)"),
        ("conv same", "mve", r"conv_2d_cmsis\(&layer_0, .*, arena \+ \d+, 128\)"),
        ("conv grouped, no bias", "dsp", r"conv_2d\(&layer_0, arena \+ \d+, arena \+ \d+\)"),
        # 2 bytes for each of 5 channels and 9 taps
        ("depthwise", "dsp", r"depthwise_conv_2d_cmsis\(.*, arena \+ \d+, 90\)"),
        # 4 bytes for each of 124 channels and 9 taps
        ("depthwise", "mve", r"depthwise_conv_2d_cmsis\(.*, arena \+ \d+, 4464\)"),
        ("fully connected, one scale", "dsp", r"fully_connected_cmsis\(.*, NULL, 0\)"),
        ("softmax", "mve", r"softmax\(&layer_0, arena \+ \d+, arena \+ \d+\)"),
    ],
)  # fmt: skip
def test_what_the_library_has_is_called_with_the_scratch_that_it_wants(
    name, variant, call, tmp_path
):
    assert re.search(rf"    {call}", calling(name, tmp_path, variant).source)


def test_one_scale_for_all_outputs_becomes_one_for_each_with_shifts_of_32_bits(tmp_path):
    text = calling("fully connected, one scale", tmp_path, "dsp").source
    assert "typedef int32_t shift_type;" in text
    assert '#include "arm_nnfunctions.h"' in text
    assert ".step = 1," in text
    assert re.search(r"int32_t table_3\[9\] = \{\n    (-?\d+, ){8}-?\d+,\n", text)


def test_plain_c_includes_nothing_of_the_library(tmp_path):
    text = calling("conv same", tmp_path, "").source
    assert "arm_" not in text
    assert "typedef int8_t shift_type;" in text


@pytest.mark.parametrize(("target", "variant"), [("cortex-m4", "dsp"), ("cortex-m55", "mve")])
def test_the_target_says_which_instructions_there_are(target, variant):
    assert variant_of(load_target(target).hardware) == variant


def test_an_unknown_variant_is_refused_and_none_is_plain_c():
    assert check_variant("") == ""
    assert check_variant("mve") == "mve"
    with pytest.raises(InputError, match=r"unknown instruction set 'neon' \(allowed: dsp, mve\)"):
        check_variant("neon")


def test_a_core_without_either_is_refused():
    hardware = load_target("cortex-m4").hardware.model_copy(update={"isa": (), "cpu": "cortex-m0"})
    with pytest.raises(InputError, match="need DSP or MVE, which a cortex-m0 does not have"):
        variant_of(hardware)


def test_a_folder_that_is_not_the_librarys_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"it has no Include/arm_nnfunctions\.h"):
        flags_of(tmp_path)
    with pytest.raises(InputError, match=r"no Source/\*\.c"):
        sources_of(tmp_path)
    library = tmp_path / "cmsis-nn"
    (library / "Include").mkdir(parents=True)
    (library / "Include" / "arm_nnfunctions.h").touch()
    with pytest.raises(InputError, match=r"no cmsis_compiler\.h in it or beside it"):
        flags_of(library)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Called as library(cpu): the library's objects, compiled once."""
    made = {}

    def objects(cpu):
        if cpu not in made:
            folder = tmp_path_factory.mktemp(cpu)
            sources = [str(path) for path in sources_of(LIBRARY)]
            options = [*emulation.board_of(cpu).flags, "-mthumb", "-O2", *flags_of(LIBRARY)]
            emulation._run([emulation.COMPILER, *options, "-c", *sources], 300.0, folder)
            made[cpu] = sorted(folder.glob("*.o"))
        return made[cpu]

    return objects


LAYERS = (
    "conv same",
    "conv dilated, relu6",
    "conv one scale, two images, relu n1 to 1",
    "pad into conv",
    "depthwise, depth 3, stride 2",
    "pad into depthwise",
    "fully connected, one scale",
    "fully connected, rows, no bias",
)


@emulated
@pytest.mark.slow
@pytest.mark.parametrize("cpu", VARIANTS)
@pytest.mark.parametrize("name", LAYERS)
def test_the_library_gives_the_bytes_of_plain_c(name, cpu, library, tmp_path):
    x = inputs_for(CASES[name]())
    _, plain = calling(name, tmp_path, "").write(tmp_path / "plain")
    _, source = calling(name, tmp_path, VARIANTS[cpu]).write(tmp_path)
    flags = flags_of(LIBRARY)
    image = emulation.build(source, cpu, tmp_path, further=library(cpu), flags=flags)
    expected = hosted.run(hosted.build(plain, tmp_path / "plain"), x)
    assert np.array_equal(emulation.run(image, x).outputs, expected)
