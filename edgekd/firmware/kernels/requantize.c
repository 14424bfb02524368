/* TFLite's requantization with double rounding. Right shifts of negative numbers are arithmetic. */

_Static_assert((~INT32_C(1) >> 1) == -1, "needs arithmetic right shifts");

/* a * b / 2^31, rounded; b is a multiplier in [0, 2^31). */
static inline int32_t high_multiply(int32_t a, int32_t b)
{
    return (int32_t)(((int64_t)a * b + (INT64_C(1) << 30)) >> 31);
}

/* x / 2^exponent, halves away from zero; exponent in [0, 31]. */
static inline int32_t rounding_shift(int32_t x, int32_t exponent)
{
    const int32_t mask = (int32_t)((UINT32_C(1) << exponent) - 1U);
    const int32_t threshold = (mask >> 1) + (x < 0 ? 1 : 0);
    return (x >> exponent) + ((x & mask) > threshold ? 1 : 0);
}

/* x * multiplier * 2^(shift - 31); shift in [-31, 16]. */
static inline int32_t rescale(int32_t x, int32_t multiplier, int32_t shift)
{
    if (shift > 0) {
        return high_multiply((int32_t)((uint32_t)x << shift), multiplier);
    }
    return rounding_shift(high_multiply(x, multiplier), -shift);
}

static inline int8_t clamp_int8(int32_t x, int32_t low, int32_t high)
{
    return (int8_t)(x < low ? low : (x > high ? high : x));
}
