"""Costs by operator of a TFLite file: instructions on an emulated Cortex-M, times in LiteRT."""

import numpy as np
import pytest
from operator_cases import CASES

from edgekd.benchmark.files import Wanted, bench_files
from edgekd.devices.cortex_m import open_cortex_m
from edgekd.devices.host import open_host
from edgekd.firmware import emulation
from edgekd.firmware.call_counts import count_calls
from edgekd.firmware.generate import generate
from edgekd.firmware.graph import read_network

needs_emulator = pytest.mark.skipif(bool(emulation.missing_tools()), reason="no emulator")
WANTED = Wanted(per_layer=True)


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
