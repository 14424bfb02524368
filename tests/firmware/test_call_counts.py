"""Costs by operator of a TFLite file: instructions on an emulated Cortex-M, times in LiteRT."""

from pathlib import Path

import numpy as np
import pytest
from operator_cases import CASES
from patch_networks import NETWORKS

from edgekd.benchmark.files import Wanted, bench_files
from edgekd.devices.cortex_m import open_cortex_m
from edgekd.devices.host import open_host
from edgekd.firmware import emulation
from edgekd.firmware.call_counts import count_calls
from edgekd.firmware.generate import generate
from edgekd.firmware.graph import read_network
from edgekd.firmware.patches.plan import Patching

needs_emulator = pytest.mark.skipif(bool(emulation.missing_tools()), reason="no emulator")
WANTED = Wanted(per_layer=True)
TARGETS = Path(__file__).parents[2] / "targets"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "net.tflite"
    path.write_bytes(CASES["pad that a pool reads too"]())
    return path


def test_litert_times_the_operators_inside_its_delegate(file):
    device = open_host()
    try:
        (result,) = bench_files([file], None, device, quick=True, wanted=WANTED)
    finally:
        device.close()
    assert result.layers.kind == "measured"
    assert len(result.layers.rows) >= 2


@needs_emulator
@pytest.mark.slow
def test_bench_counts_each_kernel_call_on_an_emulated_processor(file):
    device = open_cortex_m("cortex-m4")
    try:
        (result,) = bench_files([file], None, device, quick=True, wanted=WANTED)
    finally:
        device.close()
    times = result.layers
    assert (times.kind, times.unit) == ("simulated", "instructions")
    assert all(row.value > 0 for row in times.rows)


@needs_emulator
@pytest.mark.slow
def test_the_calls_add_up_to_the_instructions_of_an_inference(file, tmp_path):
    counted = count_calls(file, "cortex-m4")
    _, source = generate(file, "plain").write(tmp_path)
    image = emulation.build(source, "cortex-m4", tmp_path)
    inputs = np.zeros((1, sum(array.bytes for array in read_network(file).inputs)), np.int8)
    whole = emulation.run(image, inputs).instructions[0]
    parts = sum(call.instructions[0] for call in counted.calls)
    assert parts == pytest.approx(
        whole, abs=counted.resolution * (4 + 4 * len(counted.calls)) + 200
    )


@pytest.fixture
def large(tmp_path):
    path = tmp_path / "large.tflite"
    path.write_bytes(NETWORKS["inverted residuals"]())
    return path


@needs_emulator
@pytest.mark.slow
def test_the_calls_of_all_patches_add_up_to_the_instructions_of_an_inference(large, tmp_path):
    patching = Patching("always")
    counted = count_calls(large, "cortex-m4", patching=patching)
    _, source = generate(large, "plain", patching=patching).write(tmp_path)
    image = emulation.build(source, "cortex-m4", tmp_path)
    inputs = np.zeros((1, sum(array.bytes for array in read_network(large).inputs)), np.int8)
    whole = emulation.run(image, inputs).instructions[0]
    assert sum(call.instructions[0] for call in counted.calls) == pytest.approx(whole, rel=0.02)
    assert all(call.place >= 0 for call in counted.calls)
    assert "CONV_2D 1x12x9x8 -> 1x3x6x16, in 12x2 patches" in [call.about for call in counted.calls]


@needs_emulator
@pytest.mark.slow
def test_bench_counts_what_a_target_of_little_memory_is_given(large, tmp_path):
    arena = generate(large, patching=Patching("always")).numbers["arena_bytes"]
    text = (TARGETS / "cortex-m4.toml").read_text()
    small = tmp_path / "small.toml"
    small.write_text(
        text.replace('name = "cortex-m4"', 'name = "small"').replace("655_360", str(arena))
    )
    for place, in_patches in (("cortex-m4", False), (str(small), True)):
        device = open_cortex_m(place)
        try:
            (result,) = bench_files([large], None, device, quick=True, wanted=WANTED)
        finally:
            device.close()
        notes = [note for note in result.layers.notes if "patches" in note]
        assert bool(notes) is in_patches
        assert any(", in " in row.operator for row in result.layers.rows) is in_patches
    assert notes == [f"computed partly in patches, as for {arena:,} bytes of memory"]
