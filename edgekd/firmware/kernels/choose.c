/* a where the mask is true, else b, broadcast over up to four dimensions by strides of 0. The output
   is contiguous and may be an input of its size. */

typedef struct {
    int32_t shape[4], mask_stride[4], a_stride[4], b_stride[4];
} choose_layer;

static void choose(const choose_layer *p, const int8_t *mask, const int8_t *a, const int8_t *b,
                   int8_t *y)
{
    int32_t at[3] = {0, 0, 0};
    const int32_t rows = p->shape[0] * p->shape[1] * p->shape[2];
    for (int32_t row = 0; row < rows; row++) {
        int32_t m = 0;
        int32_t first = 0;
        int32_t second = 0;
        for (int32_t d = 0; d < 3; d++) {
            m += at[d] * p->mask_stride[d];
            first += at[d] * p->a_stride[d];
            second += at[d] * p->b_stride[d];
        }
        for (int32_t n = 0; n < p->shape[3]; n++) {
            *y++ = mask[m] != 0 ? a[first] : b[second];
            m += p->mask_stride[3];
            first += p->a_stride[3];
            second += p->b_stride[3];
        }
        for (int32_t d = 2; d >= 0 && ++at[d] == p->shape[d]; d--) {
            at[d] = 0;
        }
    }
}
