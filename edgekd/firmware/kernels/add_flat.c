/* a + sign * b of two tensors of one shape. Each input is shifted left, so that nothing is rounded
   away before the sum, multiplied, and shifted right by at least one; so is the sum. The output may
   be either input. */

typedef struct {
    int32_t count, sign, a_offset, a_left, a_multiplier, a_shift;
    int32_t b_offset, b_left, b_multiplier, b_shift, output_offset;
    int32_t output_multiplier, output_shift, low, high;
} add_flat_layer;

#if defined(HELIUM_VECTORS)

/* Four values of one input on the sum's scale. */
static inline int32x4_t add_flat_terms(const int8_t *x, mve_pred16_t first, int32_t offset,
                                       int32_t left, int32_t multiplier, int32_t shift)
{
    const int32x4_t value = vshlq_r_s32(vaddq_n_s32(vldrbq_z_s32(x, first), offset), left);
    const int32x4_t high = vqrdmulhq_n_s32(value, multiplier);
    return vrshlq_n_s32(vaddq_s32(high, vshrq_n_s32(high, 31)), -shift);
}

static void add_flat(const add_flat_layer *p, const int8_t *a, const int8_t *b, int8_t *y)
{
    const add_flat_layer q = *p;
    const int32_t rounding = (2 * q.output_offset + 1) * (1 << (q.output_shift - 1));
    for (int32_t left = q.count; left > 0; left -= 4, a += 4, b += 4, y += 4) {
        const mve_pred16_t first = vctp32q((uint32_t)left);
        const int32x4_t terms
            = add_flat_terms(b, first, q.b_offset, q.b_left, q.b_multiplier, q.b_shift);
        const int32x4_t sum = vmlaq_n_s32(
            add_flat_terms(a, first, q.a_offset, q.a_left, q.a_multiplier, q.a_shift), terms, q.sign);
        const int32x4_t high = vqrdmulhq_n_s32(sum, q.output_multiplier);
        const int32x4_t rounded
            = vaddq_n_s32(vaddq_s32(high, vshrq_n_s32(high, 31)), rounding);
        const int32x4_t value = vshlq_r_s32(rounded, -q.output_shift);
        const int32x4_t bounded
            = vminq_s32(vmaxq_s32(value, vdupq_n_s32(q.low)), vdupq_n_s32(q.high));
        vstrbq_p_s32(y, bounded, first);
    }
}

#else

/* One input on the sum's scale; `left` has one more bit, which the product drops. */
static inline int32_t add_flat_term(int32_t x, int32_t offset, int32_t left, int32_t multiplier,
                                    int32_t shift)
{
    const int32_t value = (x + offset) * (1 << left);
    const int32_t high = high_word_mac(value, multiplier, 1 << (shift - 1));
    return shift_right(high - (int32_t)((uint32_t)value >> 31), shift);
}

static void add_flat(const add_flat_layer *p, const int8_t *a, const int8_t *b, int8_t *y)
{
    const add_flat_layer q = *p;
    const fast_scale scale = fast_scale_of(q.output_multiplier, q.output_shift, q.output_offset);
    for (int32_t i = 0; i < q.count; i++) {
        const int32_t left
            = add_flat_term(a[i], q.a_offset, q.a_left + 1, q.a_multiplier, q.a_shift);
        const int32_t right
            = add_flat_term(b[i], q.b_offset, q.b_left + 1, q.b_multiplier, q.b_shift);
        y[i] = fast_requantize(left + q.sign * right, scale);
    }
    clamp_all(y, q.count, q.low, q.high);
}

#endif
