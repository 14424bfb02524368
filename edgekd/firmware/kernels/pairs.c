/* Two tensors element by element, broadcast over up to four dimensions by strides of 0. */

typedef struct {
    int32_t shape[4], a_stride[4], b_stride[4];
} pairs;

/* What an operator makes of one element of each. */
typedef int8_t pair_function(const void *layer, int32_t a, int32_t b);

/* The output is contiguous and may be an input of its size. */
static IN_LOOP void for_each_pair(const pairs *p, const int8_t *a, const int8_t *b, int8_t *y,
                                  pair_function *function, const void *layer)
{
    for (int32_t i = 0; i < p->shape[0]; i++) {
        for (int32_t j = 0; j < p->shape[1]; j++) {
            for (int32_t k = 0; k < p->shape[2]; k++) {
                const int8_t *a_row
                    = a + i * p->a_stride[0] + j * p->a_stride[1] + k * p->a_stride[2];
                const int8_t *b_row
                    = b + i * p->b_stride[0] + j * p->b_stride[1] + k * p->b_stride[2];
                for (int32_t n = 0; n < p->shape[3]; n++) {
                    *y++ = function(layer, a_row[n * p->a_stride[3]], b_row[n * p->b_stride[3]]);
                }
            }
        }
    }
}
