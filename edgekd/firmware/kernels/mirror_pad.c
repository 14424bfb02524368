/* Padding with what is inside, mirrored at the border: from the border on (`edge` is 1) or without
   it (0). Up to four dimensions, the outermost first. */

typedef struct {
    int32_t shape[4], source[4], before[4], stride[4];
    int32_t edge;
} mirror_pad_layer;

static inline int32_t mirrored(const mirror_pad_layer *p, int32_t dimension, int32_t i)
{
    const int32_t place = i - p->before[dimension];
    const int32_t size = p->source[dimension];
    if (place < 0) {
        return -place - p->edge;
    }
    return place < size ? place : 2 * (size - 1) - place + p->edge;
}

static void mirror_pad(const mirror_pad_layer *p, const int8_t *x, int8_t *y)
{
    for (int32_t i = 0; i < p->shape[0]; i++) {
        const int8_t *first = x + mirrored(p, 0, i) * p->stride[0];
        for (int32_t j = 0; j < p->shape[1]; j++) {
            const int8_t *second = first + mirrored(p, 1, j) * p->stride[1];
            for (int32_t k = 0; k < p->shape[2]; k++) {
                const int8_t *third = second + mirrored(p, 2, k) * p->stride[2];
                for (int32_t n = 0; n < p->shape[3]; n++) {
                    *y++ = third[mirrored(p, 3, n) * p->stride[3]];
                }
            }
        }
    }
}
