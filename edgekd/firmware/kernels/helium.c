/* Vectors of 128 bits (Helium: Cortex-M52, M55, M85), and the same in plain C for other cores. */

#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1)
#include <arm_mve.h>
#define HELIUM_VECTORS

static inline void copy_bytes(int8_t *to, const int8_t *from, int32_t count)
{
    for (; count > 0; count -= 16, to += 16, from += 16) {
        const mve_pred16_t first = vctp8q((uint32_t)count);
        vstrbq_p_s8(to, vldrbq_z_s8(from, first), first);
    }
}

static inline void fill_bytes(int8_t *to, int32_t value, int32_t count)
{
    for (; count > 0; count -= 16, to += 16) {
        vstrbq_p_s8(to, vdupq_n_s8((int8_t)value), vctp8q((uint32_t)count));
    }
}

/* The products of `one` row with four others; sums are `step` apart. */
static inline void dot_by_4(const int8_t *one, const int8_t *const *four, int32_t count,
                            int32_t *sums, int32_t step)
{
    const int8_t *a = four[0];
    const int8_t *b = four[1];
    const int8_t *c = four[2];
    const int8_t *d = four[3];
    int32_t sum_a = 0;
    int32_t sum_b = 0;
    int32_t sum_c = 0;
    int32_t sum_d = 0;
    for (int32_t i = count >> 4; i > 0; i--) {
        const int8x16_t x = vldrbq_s8(one);
        sum_a = vmladavaq_s8(sum_a, x, vldrbq_s8(a));
        sum_b = vmladavaq_s8(sum_b, x, vldrbq_s8(b));
        sum_c = vmladavaq_s8(sum_c, x, vldrbq_s8(c));
        sum_d = vmladavaq_s8(sum_d, x, vldrbq_s8(d));
        one += 16;
        a += 16;
        b += 16;
        c += 16;
        d += 16;
    }
    if ((count & 15) != 0) {
        const mve_pred16_t first = vctp8q((uint32_t)(count & 15));
        const int8x16_t x = vldrbq_z_s8(one, first);
        sum_a = vmladavaq_s8(sum_a, x, vldrbq_z_s8(a, first));
        sum_b = vmladavaq_s8(sum_b, x, vldrbq_z_s8(b, first));
        sum_c = vmladavaq_s8(sum_c, x, vldrbq_z_s8(c, first));
        sum_d = vmladavaq_s8(sum_d, x, vldrbq_z_s8(d, first));
    }
    sums[0] = sum_a;
    sums[step] = sum_b;
    sums[2 * step] = sum_c;
    sums[3 * step] = sum_d;
}

/* The same for rows of at most 16 values, with as many rows as `ones` says. */
static inline void short_dots_by_4(const int8_t *one, int32_t ones, const int8_t *const *four,
                                   int32_t count, int32_t *sums)
{
    const mve_pred16_t first = vctp8q((uint32_t)count);
    const int8x16_t a = vldrbq_z_s8(four[0], first);
    const int8x16_t b = vldrbq_z_s8(four[1], first);
    const int8x16_t c = vldrbq_z_s8(four[2], first);
    const int8x16_t d = vldrbq_z_s8(four[3], first);
    for (int32_t i = 0; i < ones; i++, one += count) {
        const int8x16_t x = vldrbq_z_s8(one, first);
        sums[i] = vmladavq_s8(x, a);
        sums[i + 4] = vmladavq_s8(x, b);
        sums[i + 8] = vmladavq_s8(x, c);
        sums[i + 12] = vmladavq_s8(x, d);
    }
}

/* The sums of 16 channels over pairs of taps, whose inputs are at x[i] + offset. Two products fit
   into 16 bits, as no weight is -128. */
static inline void sum_taps_16(const int8_t *const *x, int32_t offset, const int8_t *w,
                               int32_t stride, int32_t taps, int32_t *sums)
{
    int32x4_t sum_0 = vdupq_n_s32(0); /* channels 0, 4, 8, 12 */
    int32x4_t sum_1 = sum_0;
    int32x4_t sum_2 = sum_0;
    int32x4_t sum_3 = sum_0;
    for (int32_t left = taps; left > 0; left -= 2) {
        int8x16_t value = vldrbq_s8(x[0] + offset);
        int8x16_t weight = vldrbq_s8(w);
        int16x8_t even = vmullbq_int_s8(value, weight);
        int16x8_t odd = vmulltq_int_s8(value, weight);
        if (left > 1) {
            value = vldrbq_s8(x[1] + offset);
            weight = vldrbq_s8(w + stride);
            even = vaddq_s16(even, vmullbq_int_s8(value, weight));
            odd = vaddq_s16(odd, vmulltq_int_s8(value, weight));
        }
        sum_0 = vaddq_s32(sum_0, vmovlbq_s16(even));
        sum_1 = vaddq_s32(sum_1, vmovlbq_s16(odd));
        sum_2 = vaddq_s32(sum_2, vmovltq_s16(even));
        sum_3 = vaddq_s32(sum_3, vmovltq_s16(odd));
        x += 2;
        w += 2 * stride;
    }
    const int32x4x4_t all = {{sum_0, sum_1, sum_2, sum_3}};
    vst4q_s32(sums, all);
}

/* The same of up to 8 channels. */
static inline void sum_taps_8(const int8_t *const *x, int32_t offset, const int8_t *w,
                              int32_t stride, int32_t taps, int32_t count, int32_t *sums)
{
    const mve_pred16_t first = vctp16q((uint32_t)count);
    int32x4_t even = vdupq_n_s32(0);
    int32x4_t odd = even;
    for (int32_t i = 0; i < taps; i++, w += stride) {
        const int16x8_t value = vldrbq_z_s16(x[i] + offset, first);
        const int16x8_t product = vmulq_s16(value, vldrbq_z_s16(w, first));
        even = vaddq_s32(even, vmovlbq_s16(product));
        odd = vaddq_s32(odd, vmovltq_s16(product));
    }
    const int32x4x2_t both = {{even, odd}};
    vst2q_s32(sums, both);
}

static inline void sum_taps(const int8_t *const *x, int32_t offset, const int8_t *w, int32_t stride,
                            int32_t taps, int32_t count, int32_t *sums)
{
    if (count >= 16) {
        sum_taps_16(x, offset, w, stride, taps, sums);
    } else {
        sum_taps_8(x, offset, w, stride, taps, count, sums);
        if (count > 8) {
            sum_taps_8(x, offset + 8, w + 8, stride, taps, count - 8, sums + 8);
        }
    }
}

/* How the sums of four adjacent channels become int8; the tables end with whole fours. */
typedef struct {
    int32x4_t bias, multiplier, rounding, shift;
} scales_4;

static inline scales_4 scales_4_at(const int32_t *bias, const int32_t *multiplier,
                                   const shift_type *shift, int32_t output_offset)
{
    const int32x4_t right = vldrbq_s32(shift);
    scales_4 found;
    found.bias = vldrwq_s32(bias);
    found.multiplier = vldrwq_s32(multiplier);
    found.rounding = vshlq_s32(vdupq_n_s32(2 * output_offset + 1), vsubq_n_s32(right, 1));
    found.shift = vnegq_s32(right);
    return found;
}

static inline int32x4_t requantized_4(const scales_4 *scales, const int32_t *sums)
{
    const int32x4_t sum = vaddq_s32(vldrwq_s32(sums), scales->bias);
    const int32x4_t high = vqrdmulhq_s32(sum, scales->multiplier);
    const int32x4_t rounded = vaddq_s32(vaddq_s32(high, vshrq_n_s32(high, 31)), scales->rounding);
    const int32x4_t value = vshlq_s32(rounded, scales->shift);
    return vminq_s32(vmaxq_s32(value, vdupq_n_s32(-128)), vdupq_n_s32(127));
}

/* `count` channels, at most four. */
static inline void requantize_4(const scales_4 *scales, const int32_t *sums, int32_t count,
                                int8_t *y)
{
    const int32x4_t values = requantized_4(scales, sums);
    if (count >= 4) {
        vstrbq_s32(y, values);
    } else {
        vstrbq_p_s32(y, values, vctp32q((uint32_t)count));
    }
}

#else

static inline void copy_bytes(int8_t *to, const int8_t *from, int32_t count)
{
    memcpy(to, from, (size_t)count);
}

static inline void fill_bytes(int8_t *to, int32_t value, int32_t count)
{
    memset(to, value, (size_t)count);
}

static inline void dot_by_4(const int8_t *one, const int8_t *const *four, int32_t count,
                            int32_t *sums, int32_t step)
{
    for (int32_t i = 0; i < 4; i++) {
        int32_t sum = 0;
        for (int32_t k = 0; k < count; k++) {
            sum += one[k] * four[i][k];
        }
        sums[i * step] = sum;
    }
}

static inline void short_dots_by_4(const int8_t *one, int32_t ones, const int8_t *const *four,
                                   int32_t count, int32_t *sums)
{
    for (int32_t i = 0; i < ones; i++, one += count) {
        dot_by_4(one, four, count, sums + i, 4);
    }
}

static inline void sum_taps(const int8_t *const *x, int32_t offset, const int8_t *w, int32_t stride,
                            int32_t taps, int32_t count, int32_t *sums)
{
    for (int32_t c = 0; c < 16 && c < count; c++) {
        sums[c] = 0;
        for (int32_t i = 0; i < taps; i++) {
            sums[c] += x[i][offset + c] * w[i * stride + c];
        }
    }
}

typedef struct {
    const int32_t *bias;
    const int32_t *multiplier;
    const shift_type *shift;
    int32_t output_offset;
} scales_4;

static inline scales_4 scales_4_at(const int32_t *bias, const int32_t *multiplier,
                                   const shift_type *shift, int32_t output_offset)
{
    const scales_4 found = {bias, multiplier, shift, output_offset};
    return found;
}

static inline void requantize_4(const scales_4 *scales, const int32_t *sums, int32_t count,
                                int8_t *y)
{
    for (int32_t i = 0; i < 4 && i < count; i++) {
        const fast_scale scale
            = fast_scale_of(scales->multiplier[i], scales->shift[i], scales->output_offset);
        y[i] = fast_requantize(sums[i] + scales->bias[i], scale);
    }
}

#endif
