/* a + sign * b, broadcast over up to four dimensions by strides of 0. The output is contiguous and
   may be either input. */

typedef struct {
    int32_t shape[4], a_stride[4], b_stride[4];
    int32_t a_offset, a_multiplier, a_shift, b_offset, b_multiplier, b_shift, sign;
    int32_t output_offset, output_multiplier, output_shift, low, high;
} add_layer;

static inline int8_t add_one(const add_layer *p, int32_t a, int32_t b)
{
    /* 20 more bits, so that nothing is rounded away before the sum. */
    const int32_t left = (a + p->a_offset) * (INT32_C(1) << 20);
    const int32_t right = (b + p->b_offset) * (INT32_C(1) << 20);
    const int32_t sum = rescale(left, p->a_multiplier, p->a_shift)
        + p->sign * rescale(right, p->b_multiplier, p->b_shift);
    const int32_t value = rescale(sum, p->output_multiplier, p->output_shift);
    return clamp_int8(value + p->output_offset, p->low, p->high);
}

static void add(const add_layer *p, const int8_t *a, const int8_t *b, int8_t *y)
{
    for (int32_t i = 0; i < p->shape[0]; i++) {
        for (int32_t j = 0; j < p->shape[1]; j++) {
            for (int32_t k = 0; k < p->shape[2]; k++) {
                const int8_t *a_row
                    = a + i * p->a_stride[0] + j * p->a_stride[1] + k * p->a_stride[2];
                const int8_t *b_row
                    = b + i * p->b_stride[0] + j * p->b_stride[1] + k * p->b_stride[2];
                for (int32_t n = 0; n < p->shape[3]; n++) {
                    *y++ = add_one(p, a_row[n * p->a_stride[3]], b_row[n * p->b_stride[3]]);
                }
            }
        }
    }
}
