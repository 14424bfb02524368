/* a + sign * b */

typedef struct {
    pairs pairs;
    int32_t a_offset, a_multiplier, a_shift, b_offset, b_multiplier, b_shift, sign;
    int32_t output_offset, output_multiplier, output_shift, low, high;
} add_layer;

static inline int8_t add_one(const void *layer, int32_t a, int32_t b)
{
    const add_layer *p = layer;
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
    for_each_pair(&p->pairs, a, b, y, add_one, p);
}
