"""Samples become a TFLite file's inputs: channels last, on the file's grid."""

import numpy as np
import pytest

from edgekd.formats.tflite_inputs import as_tflite_input


def details(shape, dtype=np.float32, grid=(0.0, 0)):
    return {"shape": np.array(shape), "dtype": dtype, "quantization": grid}


@pytest.mark.parametrize("sizes", [(3, 4, 5), (4, 4, 4)])
def test_images_have_their_channels_last_also_where_every_size_is_the_same(sizes):
    x = np.arange(np.prod(sizes), dtype=np.float32).reshape(1, *sizes)
    channels, height, width = sizes
    taken = as_tflite_input(x, details((1, height, width, channels)))
    assert np.array_equal(taken, x.transpose(0, 2, 3, 1))


def test_images_that_have_their_channels_last_already_stay_as_they_are():
    x = np.zeros((1, 4, 5, 3), np.uint8)
    assert as_tflite_input(x, details(x.shape, np.uint8)).shape == x.shape


def test_floats_are_rounded_onto_the_grid_and_clipped():
    x = np.array([[-9.0, 0.26, 0.74, 9.0]], np.float32)
    taken = as_tflite_input(x, details((1, 4), np.int8, (0.5, -3)))
    assert taken.tolist() == [[-21, -2, -2, 15]]
    assert as_tflite_input(100 * x, details((1, 4), np.int8, (0.5, -3))).tolist()[0][::3] == [
        -128,
        127,
    ]


def test_samples_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"takes \(1, 5\), the samples give \(1, 4\)"):
        as_tflite_input(np.zeros((1, 4), np.float32), details((1, 5)))
