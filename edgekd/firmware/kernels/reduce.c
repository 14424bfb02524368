/* The rescaled sum over the middle of (outer, count, inner): the multiplier of a
   mean includes 1 / count. */

typedef struct {
    int32_t outer, count, inner, zero_sum, multiplier, shift, output_offset;
} reduce_layer;

static void reduce(const reduce_layer *p, const int8_t *x, int8_t *y)
{
    for (int32_t outer = 0; outer < p->outer; outer++) {
        for (int32_t inner = 0; inner < p->inner; inner++) {
            int32_t sum = 0;
            for (int32_t i = 0; i < p->count; i++) {
                sum += x[i * p->inner + inner];
            }
            const int32_t value = rescale(sum - p->zero_sum, p->multiplier, p->shift);
            *y++ = clamp_int8(value + p->output_offset, -128, 127);
        }
        x += p->count * p->inner;
    }
}
