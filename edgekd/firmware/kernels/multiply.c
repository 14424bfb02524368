/* a * b, broadcast over up to four dimensions by strides of 0. The output is contiguous and may be
   either input. */

typedef struct {
    int32_t shape[4], a_stride[4], b_stride[4];
    int32_t a_offset, b_offset, multiplier, shift, output_offset, low, high;
} multiply_layer;

static void multiply(const multiply_layer *p, const int8_t *a, const int8_t *b, int8_t *y)
{
    for (int32_t i = 0; i < p->shape[0]; i++) {
        for (int32_t j = 0; j < p->shape[1]; j++) {
            for (int32_t k = 0; k < p->shape[2]; k++) {
                const int8_t *a_row
                    = a + i * p->a_stride[0] + j * p->a_stride[1] + k * p->a_stride[2];
                const int8_t *b_row
                    = b + i * p->b_stride[0] + j * p->b_stride[1] + k * p->b_stride[2];
                for (int32_t n = 0; n < p->shape[3]; n++) {
                    const int32_t product = (a_row[n * p->a_stride[3]] + p->a_offset)
                        * (b_row[n * p->b_stride[3]] + p->b_offset);
                    const int32_t value = rescale(product, p->multiplier, p->shift);
                    *y++ = clamp_int8(value + p->output_offset, p->low, p->high);
                }
            }
        }
    }
}
