/* a * b */

typedef struct {
    pairs pairs;
    int32_t a_offset, b_offset, multiplier, shift, output_offset, low, high;
} multiply_layer;

static inline int8_t multiply_one(const void *layer, int32_t a, int32_t b)
{
    const multiply_layer *p = layer;
    const int32_t product = (a + p->a_offset) * (b + p->b_offset);
    return clamp_int8(rescale(product, p->multiplier, p->shift) + p->output_offset, p->low, p->high);
}

static void multiply(const multiply_layer *p, const int8_t *a, const int8_t *b, int8_t *y)
{
    for_each_pair(&p->pairs, a, b, y, multiply_one, p);
}
