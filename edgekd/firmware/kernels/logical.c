/* Masks combined: a and b (0), a or b (1), not a (2). */

typedef struct {
    pairs pairs;
    int32_t kind;
} logical_layer;

static inline int8_t logical_one(const void *layer, int32_t a, int32_t b)
{
    const logical_layer *p = layer;
    return (int8_t)(p->kind == 0 ? a & b : (p->kind == 1 ? a | b : 1 - a));
}

static void logical(const logical_layer *p, const int8_t *a, const int8_t *b, int8_t *y)
{
    for_each_pair(&p->pairs, a, b, y, logical_one, p);
}
