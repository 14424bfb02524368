"""Patch-by-patch inference gives the bytes of LiteRT and of the micro runtime, in less memory."""

import re
import shutil
from importlib.util import find_spec

import numpy as np
import pytest
from litert_reference import by_litert, by_micro
from operator_cases import inputs_for
from patch_networks import NETWORKS

from edgekd.errors import InputError
from edgekd.firmware import emulation, hosted
from edgekd.firmware.generate import generate
from edgekd.firmware.instructions import instructions_for
from edgekd.firmware.patches.plan import LAYER_BY_LAYER, Patching, check_patches

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
SANITIZED = ("-O1", *hosted.SANITIZERS)


@pytest.fixture
def made(tmp_path):
    """Called as made(content, patching, **options): the C, in the test's folder."""

    def make(content, patching, **options):
        (tmp_path / "net.tflite").write_bytes(content)
        return generate(tmp_path / "net.tflite", patching=patching, **options)

    return make


def limits(made, content, count, **options):
    """Limits of memory from that of layer by layer to the smallest."""
    largest = made(content, LAYER_BY_LAYER, **options).numbers["arena_bytes"]
    smallest = made(content, Patching("always"), **options).numbers["arena_bytes"]
    assert smallest < largest
    return [round(one) for one in np.linspace(smallest, largest - 1, count)]


def assert_same_bytes(generated, content, folder, flags=("-O0",)):
    _, source = generated.write(folder)
    x = inputs_for(content, 3)
    found = hosted.run(hosted.build(source, folder, flags), x)
    assert len(np.unique(found)) > 20
    assert np.array_equal(found, by_litert(content, x))
    if find_spec("tflite_micro"):
        assert np.array_equal(found, by_micro(content, x))


@needs_gcc
@pytest.mark.parametrize("instructions", ["dsp", "mve"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_smallest_arena_gives_the_bytes_of_the_reference_kernels(
    name, instructions, made, tmp_path
):
    content = NETWORKS[name]()
    generated = made(content, Patching("always"), instructions=instructions)
    assert generated.numbers["arena_bytes"] < generated.numbers["layered_arena_bytes"]
    assert_same_bytes(generated, content, tmp_path)


@needs_gcc
@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_limit_is_kept_and_no_patch_leaves_its_memory(name, made, tmp_path):
    content = NETWORKS[name]()
    for limit, instructions in zip(limits(made, content, 3), ("dsp", "mve", "dsp"), strict=True):
        generated = made(content, Patching("auto", limit), instructions=instructions)
        assert instructions == "mve" or generated.numbers["arena_bytes"] <= limit
        assert_same_bytes(generated, content, tmp_path, SANITIZED)


@pytest.mark.slow
@pytest.mark.skipif(bool(emulation.missing_tools()), reason="needs the cross compiler and qemu")
@pytest.mark.parametrize("cpu", ["cortex-m4", "cortex-m55"])
def test_patches_give_the_same_bytes_on_an_emulated_core(cpu, made, tmp_path):
    content = NETWORKS["inverted residuals"]()
    generated = made(content, Patching("always"), instructions=instructions_for(cpu))
    _, source = generated.write(tmp_path)
    x = inputs_for(content, 2)
    run = emulation.run(emulation.build(source, cpu, tmp_path), x)
    assert np.array_equal(run.outputs, by_litert(content, x))


@pytest.mark.parametrize(
    ("name", "kernels"),
    [
        ("padding before pools", ["pad_rectangle", "pad_rectangle"]),
        ("an image that is enlarged", ["nearest_rectangle"]),
    ],
)
def test_paddings_and_repeated_pixels_are_a_part_of_patches(name, kernels, made):
    source = made(NETWORKS[name](), Patching("always")).source
    assert re.findall(r"^ {12,}(\w+_rectangle)\(&layer", source, re.M) == kernels


def test_a_network_that_fits_is_computed_layer_by_layer(made):
    content = NETWORKS["inverted residuals"]()
    layered = made(content, LAYER_BY_LAYER)
    limit = layered.numbers["arena_bytes"]
    assert made(content, Patching("auto", limit)) == layered
    assert made(content, Patching("auto")) == layered
    assert layered.numbers["recomputed_macs"] == layered.numbers["patched_operators"] == 0


def test_a_tighter_limit_costs_more_multiplications(made):
    content = NETWORKS["inverted residuals"]()
    tight, *_, loose = [
        made(content, Patching("auto", limit)).numbers["recomputed_macs"]
        for limit in limits(made, content, 3)
    ]
    assert 0 <= loose < tight


def test_what_was_chosen_is_said(made):
    content = NETWORKS["inverted residuals"]()
    limit = limits(made, content, 3)[1]
    generated = made(content, Patching("auto", limit))
    whole, first, *_ = generated.notes
    numbers = generated.numbers
    arena, layered = numbers["arena_bytes"], numbers["layered_arena_bytes"]
    percent = 100 * numbers["recomputed_macs"] / (numbers["macs"] - numbers["recomputed_macs"])
    assert whole == (
        f"computed partly in patches to fit {limit:,} bytes: arena {arena:,} bytes instead of "
        f"{layered:,}, {percent:.1f} % more multiply-accumulates"
    )
    assert re.fullmatch(
        r"operators \d+ to \d+ \(1x\d+x\d+x\d+ -> 1x\d+x\d+x\d+\) in \d+x\d+ patches: "
        r"[\d.]+ % more multiply-accumulates in them",
        first,
    )


def test_a_limit_that_no_patches_keep_is_an_error_with_the_smallest_arena(made):
    content = NETWORKS["inverted residuals"]()
    patching = Patching("auto", 23 * 17 * 3)
    generated = made(content, patching)
    smallest = made(content, Patching("always")).numbers["arena_bytes"]
    assert generated.numbers["arena_bytes"] == smallest
    with pytest.raises(InputError, match=f"needs {smallest} bytes, more than {23 * 17 * 3}"):
        generated.check_arena(patching, "--arena-limit")
    forbidden = Patching("never", 23 * 17 * 3)
    with pytest.raises(InputError) as caught:
        made(content, forbidden).check_arena(forbidden, "--arena-limit")
    assert (
        caught.value.hint == 'patches = "auto" computes layers patch by patch for a smaller arena'
    )


def test_cmsis_nn_does_not_compute_patches(made):
    content = NETWORKS["inverted residuals"]()
    limit = made(content, Patching("always")).numbers["arena_bytes"]
    with pytest.raises(InputError, match="CMSIS-NN's kernels do not compute patches"):
        made(content, Patching("always"), cmsis_nn="dsp")
    assert made(content, Patching("auto", limit), cmsis_nn="dsp").numbers["patched_operators"] == 0


def test_a_mode_that_does_not_exist_is_refused():
    assert check_patches("auto") == "auto"
    with pytest.raises(InputError, match="unknown patches 'autos'") as caught:
        check_patches("autos")
    assert "auto, never, always" in str(caught.value)
