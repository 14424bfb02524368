/* The larger of a and b, or the smaller where `sign` is -1, broadcast over up to four dimensions by
   strides of 0. The output is contiguous and may be either input. */

typedef struct {
    int32_t shape[4], a_stride[4], b_stride[4];
    int32_t sign;
} maximum_layer;

static void maximum(const maximum_layer *p, const int8_t *a, const int8_t *b, int8_t *y)
{
    for (int32_t i = 0; i < p->shape[0]; i++) {
        for (int32_t j = 0; j < p->shape[1]; j++) {
            for (int32_t k = 0; k < p->shape[2]; k++) {
                const int8_t *a_row
                    = a + i * p->a_stride[0] + j * p->a_stride[1] + k * p->a_stride[2];
                const int8_t *b_row
                    = b + i * p->b_stride[0] + j * p->b_stride[1] + k * p->b_stride[2];
                for (int32_t n = 0; n < p->shape[3]; n++) {
                    const int8_t one = a_row[n * p->a_stride[3]];
                    const int8_t other = b_row[n * p->b_stride[3]];
                    *y++ = (one - other) * p->sign > 0 ? one : other;
                }
            }
        }
    }
}
