/* The largest value over up to three dimensions, or the smallest where `sign` is -1, for each
   element of up to three others. */

typedef struct {
    int32_t kept[3], kept_stride[3], summed[3], summed_stride[3], sign;
} reduce_max_layer;

static inline int8_t reduce_max_one(const reduce_max_layer *p, const int8_t *x)
{
    int8_t most = *x;
    for (int32_t i = 0; i < p->summed[0]; i++) {
        for (int32_t j = 0; j < p->summed[1]; j++) {
            const int8_t *row = x + i * p->summed_stride[0] + j * p->summed_stride[1];
            for (int32_t k = 0; k < p->summed[2]; k++) {
                const int8_t value = row[k * p->summed_stride[2]];
                most = (value - most) * p->sign > 0 ? value : most;
            }
        }
    }
    return most;
}

static void reduce_max(const reduce_max_layer *p, const int8_t *x, int8_t *y)
{
    for (int32_t i = 0; i < p->kept[0]; i++) {
        for (int32_t j = 0; j < p->kept[1]; j++) {
            const int8_t *row = x + i * p->kept_stride[0] + j * p->kept_stride[1];
            for (int32_t k = 0; k < p->kept[2]; k++) {
                *y++ = reduce_max_one(p, row + k * p->kept_stride[2]);
            }
        }
    }
}
