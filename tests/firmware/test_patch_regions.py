"""What patches need of each tensor, worked out by hand, and how they are put into loops."""

import numpy as np
import pytest
from patch_networks import VALID, Builder

from edgekd.firmware.graph import read_network
from edgekd.firmware.instructions import with_instructions
from edgekd.firmware.kernels import lower
from edgekd.firmware.loop import ByPatch
from edgekd.firmware.patches.choice import choose, parts_of
from edgekd.firmware.patches.intervals import Read, axis_patch, can_be_patched, macs
from edgekd.firmware.patches.lowering import CanNotLoop, looped, product_of
from edgekd.firmware.patches.segments import cuts, grids, segment_between


@pytest.fixture
def read(tmp_path):
    def network(builder, output):
        (tmp_path / "net.tflite").write_bytes(builder.content(output))
        return read_network(tmp_path / "net.tflite")

    return network


@pytest.fixture
def two_layers(read):
    """3x3 with a stride of 2 on 9 rows, then 3x3 on 5 rows, both with SAME padding."""
    net = Builder(9, 9, 2)
    return read(net, net.conv(net.conv(0, 4, strides=(2, 2)), 3))


def test_a_patch_reads_its_halo_and_pads_at_the_true_edges_alone(two_layers):
    """Rows 0 and 1 of the output need rows 0 to 2 of the middle, and those rows 0 to 5 of the input
    with one row of padding above: 2 * 0 - 1 to 2 * 2 + 1."""
    source, middle, output = (
        one.index for one in (two_layers.inputs[0], *(n.output for n in two_layers.nodes))
    )
    first = axis_patch(two_layers.nodes, "Y", (0, 2))
    assert first.held == {output: (0, 2), middle: (0, 3), source: (0, 6)}
    assert first.reads == {(1, 0): Read((0, 3), 1, 0), (0, 0): Read((0, 6), 1, 0)}
    last = axis_patch(two_layers.nodes, "Y", (4, 5))
    assert last.held == {output: (4, 5), middle: (3, 5), source: (5, 9)}
    assert last.reads == {(1, 0): Read((3, 5), 0, 1), (0, 0): Read((5, 9), 0, 1)}


def test_multiplications_of_patches_count_the_halos(two_layers):
    """Patches of 3 and 2 rows of the whole width: the middle has 4 + 3 rows instead of 5. Per pixel
    the first layer has 4 * 9 * 2 = 72 multiplications and the second 3 * 9 * 4 = 108."""
    segment = segment_between(two_layers, cuts(two_layers)[0], 2)
    grid = next(one for one in grids(segment) if one.shape == (2, 1))
    assert [macs(node, 1) for node in segment.nodes] == [72, 108]
    assert segment.macs == 5 * 5 * (72 + 108)
    assert grid.macs == (4 + 3) * 5 * 72 + 5 * 5 * 108


def test_the_output_may_overwrite_what_no_later_patch_reads(two_layers):
    """After the first patch 3 * 5 * 3 bytes of the output are written; the second one reads the
    input from row 2 * 2 - 1 = 3 on, byte 3 * 9 * 2 = 54. So it may begin where the input does.
    With columns of patches, the first rows of the input are read until the last column is done."""
    segment = segment_between(two_layers, cuts(two_layers)[0], 2)
    by_shape = {one.shape: one for one in grids(segment)}
    assert by_shape[2, 1].ahead == 0
    assert by_shape[1, 2].ahead == (4 * 5 + 3) * 3 - 3 * 2


def test_only_operators_of_windows_and_elements_are_patched(read):
    net = Builder(8, 8, 4)
    x = net.conv(0, 4)
    constant = net.tensor((1, 8, 8, 4), (0.02, 0), net.chance.integers(-128, 128, (1, 8, 8, 4)))
    network = read(net, net.pair("MUL", net.pair("ADD", x, x), constant))
    assert [can_be_patched(node) for node in network.nodes] == [True, True, False]


def test_a_network_is_parted_where_one_tensor_is_alive(read):
    net = Builder(8, 8, 4)
    x = net.conv(0, 4)
    network = read(net, net.pair("ADD", net.conv(net.conv(x, 0), 4, (1, 1)), x))
    assert [place for place, _ in cuts(network)] == [0, 1, 4]


def test_a_patch_that_would_see_only_padding_is_none(read):
    net = Builder(3, 3, 1)
    network = read(net, net.conv(0, 2, (1, 1)))
    node = network.nodes[0]
    options = {**node.options, "Padding": VALID, "PadY": (2, 0), "PadX": (0, 0)}
    output = type(node.output)(9, (1, 5, 3, 2), "int8", (0.1,))
    padded = type(node)(node.kind, node.inputs, (output,), options)
    assert axis_patch([padded], "Y", (0, 2)) is None
    assert axis_patch([padded], "Y", (0, 3)).reads[0, 0] == Read((0, 1), 2, 0)


def test_a_loop_has_the_largest_sizes_and_the_numbers_of_each_patch(two_layers):
    segment = segment_between(two_layers, cuts(two_layers)[0], 2)
    grid = next(one for one in grids(segment) if one.shape == (2, 1))
    steps, loop = looped(grid, lambda node: with_instructions(lower(node), "dsp"), 7)
    assert (loop.begin, loop.end, loop.rows, loop.columns) == (7, 10, 2, 1)
    first, second, copy = steps
    assert [step.kernel for step in steps] == ["conv_2d_packed", "conv_2d_packed", "rectangle"]
    assert first.inputs[0].index == segment.source.index
    assert first.output.shape == (1, 4, 5, 4)
    assert first.parameters["pad_top"] == ByPatch((1, -3), (1,))
    assert second.parameters["pad_top"] == ByPatch((1, 0), (1,))
    assert copy.parameters["to_row"] == ByPatch((0, 3), (1,))
    assert copy.output.index == segment.output.index


def test_numbers_of_patches_are_products():
    assert product_of(np.array([[5, 5], [5, 5]])) == 5
    assert product_of(np.array([[1, 2], [1, 2]])) == ByPatch((1, 1), (1, 2))
    assert product_of(np.array([[0, 0], [-3, -3]])) == ByPatch((0, -3), (1, 1))
    areas = product_of(np.array([[12, 8], [6, 4]]))
    assert [[areas.at(i, j) for j in (0, 1)] for i in (0, 1)] == [[12, 8], [6, 4]]
    with pytest.raises(CanNotLoop):
        product_of(np.array([[1, 2], [3, 4]]))


def test_a_network_whose_tensors_only_shrink_can_be_parted(read):
    """16x16x2 -> 16x16x16 -> 8x8x4 -> 4x4x2: the second tensor is the only one that grows."""
    net = Builder(16, 16, 2)
    x = net.conv(net.conv(0, 16), 4, strides=(2, 2))
    network = read(net, net.conv(x, 2, strides=(2, 2)))
    parts = parts_of(network, lambda node: with_instructions(lower(node), "dsp"))
    assert [place for place, _ in parts.places] == [0, 2, 3]
    assert choose(parts, max(parts.by_layer)) == ()
    (grid,) = choose(parts, max(parts.by_layer) // 2)
    assert (grid.segment.begin, grid.segment.end) == (0, 2)
    assert choose(parts, 16 * 16 * 2) is None
