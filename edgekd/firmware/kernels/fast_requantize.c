/* The requantization of requantize.c without branches, for right shifts of at least one and sums
   below 2^30. */

typedef struct {
    int32_t multiplier, shift, rounding;
} fast_scale;

/* The output's zero point is added before the shift, together with the half that rounds. */
static inline fast_scale fast_scale_of(int32_t multiplier, int32_t shift, int32_t output_offset)
{
    const fast_scale scale = {multiplier, shift, (2 * output_offset + 1) * (1 << (shift - 1))};
    return scale;
}

/* x / 2 * multiplier / 2^(31 + shift) + output_offset; twice rounded, halves away from zero. Where x
   is negative, so is what the rounding is added to, or it is 0 and one less makes no difference. */
static inline int8_t requantize_doubled(int32_t x, fast_scale scale)
{
    const int32_t high = high_word_mac(x, scale.multiplier, scale.rounding);
    return saturate_int8(shift_right(high - (int32_t)((uint32_t)x >> 31), scale.shift));
}

/* The same of x. */
static inline int8_t fast_requantize(int32_t x, fast_scale scale)
{
    return requantize_doubled(2 * x, scale);
}

/* A fused activation that ends elsewhere than int8 does. */
static inline void clamp_all(int8_t *y, int32_t count, int32_t low, int32_t high)
{
    if (low > -128 || high < 127) {
        for (int32_t i = 0; i < count; i++) {
            y[i] = (int8_t)(y[i] < low ? low : (y[i] > high ? high : y[i]));
        }
    }
}
