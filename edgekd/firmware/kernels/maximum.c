/* The larger of a and b, or the smaller where `sign` is -1. */

typedef struct {
    pairs pairs;
    int32_t sign;
} maximum_layer;

static inline int8_t maximum_one(const void *layer, int32_t a, int32_t b)
{
    const maximum_layer *p = layer;
    return (int8_t)((a - b) * p->sign > 0 ? a : b);
}

static void maximum(const maximum_layer *p, const int8_t *a, const int8_t *b, int8_t *y)
{
    for_each_pair(&p->pairs, a, b, y, maximum_one, p);
}
