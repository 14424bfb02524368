/* Whether a is less than b, or equal to it, or not, both rescaled to whole numbers with 8 more bits
   as TFLite does. */

typedef struct {
    pairs pairs;
    int32_t a_offset, a_multiplier, a_shift, b_offset, b_multiplier, b_shift, equal, negated;
} compare_layer;

static inline int8_t compare_one(const void *layer, int32_t a, int32_t b)
{
    const compare_layer *p = layer;
    const int32_t left = rescale((a + p->a_offset) * 256, p->a_multiplier, p->a_shift);
    const int32_t right = rescale((b + p->b_offset) * 256, p->b_multiplier, p->b_shift);
    return (int8_t)((p->equal != 0 ? left == right : left < right) != p->negated);
}

static void compare(const compare_layer *p, const int8_t *a, const int8_t *b, int8_t *y)
{
    for_each_pair(&p->pairs, a, b, y, compare_one, p);
}
