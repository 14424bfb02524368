"""The generator's integer arithmetic against numbers worked out by hand."""

import math

import pytest

from edgekd.firmware.kernels.divide import reciprocal
from edgekd.firmware.kernels.reduce import divided
from edgekd.firmware.kernels.softmax import exp_of_negative, exponentials
from edgekd.firmware.quantization import (
    activation_range,
    high_multiply,
    quantize_multiplier,
    rescale,
    round_away,
    rounding_shift,
)


@pytest.mark.parametrize(
    ("real", "expected"),
    [
        (1.0, (2**30, 1)),
        (0.5, (2**30, 0)),
        (0.75, (3 * 2**29, 0)),
        (6.0, (3 * 2**29, 3)),
        (2.0**-40, (0, 0)),
        (1 - 2.0**-40, (2**30, 1)),  # rounds up to a whole
    ],
)
def test_a_multiplier_is_a_fraction_and_a_power_of_two(real, expected):
    assert quantize_multiplier(real) == expected


@pytest.mark.parametrize("real", [0.0, -1.0, math.inf, math.nan, 70000.0])
def test_a_rescaling_that_no_model_has_is_refused(real):
    with pytest.raises(ValueError, match="a rescaling by"):
        quantize_multiplier(real)


@pytest.mark.parametrize(
    ("x", "exponent", "expected"),
    [(5, 1, 3), (-5, 1, -3), (4, 3, 1), (-4, 3, -1), (3, 3, 0), (-3, 3, 0), (7, 0, 7)],
)
def test_shifts_round_halves_away_from_zero(x, exponent, expected):
    assert rounding_shift(x, exponent) == expected


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (2**30, 2**30, 2**29),
        (3, 2**30, 2),
        (-3, 2**30, -1),
        (1, 2**29, 0),
        (-(2**31),) * 2 + (2**31 - 1,),
    ],
)
def test_the_high_multiplication_doubles_rounds_and_saturates(a, b, expected):
    assert high_multiply(a, b) == expected


def test_rescaling_rounds_twice_as_the_reference_does():
    """3 * 0.375 is 1.125 and rounds to 1; the two roundings of 5 * 0.3 * 2^-1 make 1 of 0.75."""
    assert rescale(3, *quantize_multiplier(0.375)) == 1
    assert rescale(5, *quantize_multiplier(0.15)) == 1
    assert rescale(100, *quantize_multiplier(2.5)) == 250


@pytest.mark.parametrize(
    ("activation", "expected"),
    [("none", (-128, 127)), ("relu", (-10, 127)), ("relu6", (-10, 50)), ("relu_n1_to_1", (-20, 0))],
)
def test_activations_are_limits_on_the_grid(activation, expected):
    assert activation_range(activation, 0.1, -10) == expected


def test_halves_round_away_from_zero():
    assert [round_away(x) for x in (0.5, -0.5, 1.5, 2.4, -2.6)] == [1, -1, 2, 2, -3]


def test_a_mean_has_its_count_in_the_multiplier():
    """1/3 of 3/4: shifted up by one bit, divided, rounded down."""
    multiplier, shift = divided(3 * 2**29, 0, 3)
    assert (multiplier, shift) == (2**30, -1)


@pytest.mark.parametrize("x", [0.0, 0.1, 0.25, 1.0, 3.3, 9.0])
def test_fixed_point_exponentials_are_those_of_the_real_numbers(x):
    assert exp_of_negative(-round(x * 2**26)) / 2**31 == pytest.approx(math.exp(-x), abs=3e-7)


def test_the_table_of_exponentials_ends_where_the_reference_stops_looking():
    table = exponentials(1.0)
    assert table[0] == 2**31 - 1
    assert table[1] / 2**31 == pytest.approx(math.exp(-1), abs=3e-7)
    assert all(one > 0 for one in table[:16])
    assert set(table[32:]) == {0}


@pytest.mark.parametrize("x", [1, 2, 3, 5, 77, 128, 255])
def test_a_reciprocal_is_within_a_few_units_of_its_last_place(x):
    inverse, bits = reciprocal(x)
    assert 2**30 <= inverse < 2**31
    assert abs(inverse - 2 ** (31 + bits) / x) < 8
