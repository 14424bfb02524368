/* The largest value over the middle of (outer, count, inner), or the least where `sign` is -1. */

typedef struct {
    int32_t outer, count, inner, sign;
} reduce_max_layer;

static void reduce_max(const reduce_max_layer *p, const int8_t *x, int8_t *y)
{
    for (int32_t outer = 0; outer < p->outer; outer++) {
        for (int32_t inner = 0; inner < p->inner; inner++) {
            int8_t best = x[inner];
            for (int32_t i = 1; i < p->count; i++) {
                const int8_t value = x[i * p->inner + inner];
                if ((value - best) * p->sign > 0) {
                    best = value;
                }
            }
            *y++ = best;
        }
        x += p->count * p->inner;
    }
}
