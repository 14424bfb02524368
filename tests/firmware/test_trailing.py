"""How far ahead an output has to begin: against every read and write of a convolution."""

import pytest

from edgekd.firmware.trailing import ahead_of

SIDES = ("height", "width")


def image(size, window, stride, pad, channels, valid=False):
    shape = [(n + stride - 1) // stride if not valid else (n - window) // stride + 1 for n in size]
    return {
        "batches": 1, "input_channels": channels, "dilation_y": 1,
        **{f"input_{side}": n for side, n in zip(SIDES, size, strict=True)},
        **{f"output_{side}": n for side, n in zip(SIDES, shape, strict=True)},
        "filter_height": window, "filter_width": window, "stride_y": stride, "stride_x": stride,
        "pad_top": pad, "pad_left": pad,
    }  # fmt: skip


def reads(values, place):
    """The bytes that one position reads."""
    oy, ox = divmod(place, values["output_width"])
    found = set()
    for ky in range(values["filter_height"]):
        for kx in range(values["filter_width"]):
            iy = oy * values["stride_y"] - values["pad_top"] + ky
            ix = ox * values["stride_x"] - values["pad_left"] + kx
            if 0 <= iy < values["input_height"] and 0 <= ix < values["input_width"]:
                start = (iy * values["input_width"] + ix) * values["input_channels"]
                found.update(range(start, start + values["input_channels"]))
    return found


def is_safe(values, channels, group, copied, ahead):
    """Whether nothing is read after it has been overwritten."""
    positions = values["output_height"] * values["output_width"]
    written = set()
    for begin in range(0, positions, group):
        places = range(begin, min(begin + group, positions))
        outputs = {byte - ahead for at in places
                   for byte in range(at * channels, (at + 1) * channels)}  # fmt: skip
        if not copied:
            written |= outputs
        if any(reads(values, at) & written for at in places):
            return False
        written |= outputs
    return True


@pytest.mark.parametrize("copied", [True, False])
@pytest.mark.parametrize("group", [1, 3, 4])
@pytest.mark.parametrize("channels", [2, 4, 7])
@pytest.mark.parametrize(
    "values",
    [image((5, 6), 3, 1, 1, 4), image((7, 5), 3, 2, 1, 4), image((4, 5), 1, 1, 0, 4),
     image((6, 6), 3, 1, 0, 4, valid=True), image((5, 5), 1, 2, 0, 4)],
    ids=["same", "stride 2", "one tap", "valid", "one tap, stride 2"],
)  # fmt: skip
def test_an_output_that_far_ahead_overwrites_nothing_that_is_still_read(
    values, channels, group, copied
):
    ahead = ahead_of(values, channels, group, copied=copied)
    assert is_safe(values, channels, group, copied, ahead)


def test_a_window_of_one_tap_with_as_many_outputs_needs_no_distance():
    values = image((4, 5), 1, 1, 0, 4)
    assert ahead_of(values, 4, 3, copied=True) == 0
    assert ahead_of(values, 4, 3, copied=False) == 12  # all of a group but nothing before it


def test_a_window_of_three_rows_needs_the_row_above_and_a_position():
    """After (1, 1), the next position reads from (0, 1) on: of 6 + 2 positions of 4 channels that
    are written, all but the first are in its way."""
    values = image((5, 6), 3, 1, 1, 4)
    assert ahead_of(values, 4, 1, copied=True) == 6 * 4 + 4
    assert not is_safe(values, 4, 1, True, 6 * 4 + 3)


def test_several_images_never_overwrite_their_input():
    assert ahead_of({**image((4, 5), 1, 1, 0, 4), "batches": 2}, 4, 3, copied=True) is None
