/* The rescaled sum over up to three dimensions, for each element of up to three others: the
   multiplier of a mean includes 1 / count. */

typedef struct {
    int32_t kept[3], kept_stride[3], summed[3], summed_stride[3];
    int32_t zero_sum, multiplier, shift, output_offset;
} reduce_layer;

static inline int32_t reduce_sum(const reduce_layer *p, const int8_t *x)
{
    int32_t sum = 0;
    for (int32_t i = 0; i < p->summed[0]; i++) {
        for (int32_t j = 0; j < p->summed[1]; j++) {
            const int8_t *row = x + i * p->summed_stride[0] + j * p->summed_stride[1];
            for (int32_t k = 0; k < p->summed[2]; k++) {
                sum += row[k * p->summed_stride[2]];
            }
        }
    }
    return sum;
}

static void reduce(const reduce_layer *p, const int8_t *x, int8_t *y)
{
    for (int32_t i = 0; i < p->kept[0]; i++) {
        for (int32_t j = 0; j < p->kept[1]; j++) {
            const int8_t *row = x + i * p->kept_stride[0] + j * p->kept_stride[1];
            for (int32_t k = 0; k < p->kept[2]; k++) {
                const int32_t sum = reduce_sum(p, row + k * p->kept_stride[2]) - p->zero_sum;
                const int32_t value = rescale(sum, p->multiplier, p->shift);
                *y++ = clamp_int8(value + p->output_offset, -128, 127);
            }
        }
    }
}
