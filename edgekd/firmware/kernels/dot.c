/* Adds (x + offset) . w to four sums, whose weights are `stride` apart. If fewer than four are left,
   the last of them is computed repeatedly, so that nothing beyond it is read. */

static inline void dot_4(const int8_t *x, int32_t offset, const int8_t *w, int32_t stride,
                         int32_t last, int32_t count, int32_t *sums)
{
    const int8_t *w1 = w + (last < 1 ? last : 1) * stride;
    const int8_t *w2 = w + (last < 2 ? last : 2) * stride;
    const int8_t *w3 = w + (last < 3 ? last : 3) * stride;
    int32_t s0 = sums[0];
    int32_t s1 = sums[1];
    int32_t s2 = sums[2];
    int32_t s3 = sums[3];
    for (int32_t i = 0; i < count; i++) {
        const int32_t value = x[i] + offset;
        s0 += value * w[i];
        s1 += value * w1[i];
        s2 += value * w2[i];
        s3 += value * w3[i];
    }
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
}
