/* a / b by reciprocals, of which there is a table for the 256 values of b: each is a multiplier, and
   how far its quotient is shifted right. Where b is 0, the result is an end of the range. */

typedef struct {
    pairs pairs;
    const int32_t *inverse;
    const int8_t *bits;
    int32_t a_offset, b_offset, multiplier, shift, output_offset, low, high;
} divide_layer;

/* The most bits by which a value of up to nine bits and a sign can be shifted left. */
static inline int32_t divide_headroom(int32_t x)
{
    int32_t bits = 22;
    while (bits < 31 && x < (INT32_C(1) << (30 - bits)) && x >= -(INT32_C(1) << (30 - bits))) {
        bits++;
    }
    return bits;
}

static inline int8_t divide_one(const void *layer, int32_t a, int32_t b)
{
    const divide_layer *p = layer;
    const int32_t divisor = b + p->b_offset;
    const int32_t dividend = divisor < 0 ? -(a + p->a_offset) : a + p->a_offset;
    if (divisor == 0) {
        return (int8_t)(dividend < 0 ? p->low : p->high);
    }
    const int32_t headroom = divide_headroom(dividend);
    const int32_t left = (int32_t)((uint32_t)dividend << headroom);
    const int32_t quotient = high_multiply(left, p->inverse[b + 128]);
    const int32_t right = p->bits[b + 128] + headroom - p->shift;
    const int32_t value
        = rounding_shift(high_multiply(quotient, p->multiplier), right < 31 ? right : 31);
    return clamp_int8(value + p->output_offset, p->low, p->high);
}

static void divide(const divide_layer *p, const int8_t *a, const int8_t *b, int8_t *y)
{
    for_each_pair(&p->pairs, a, b, y, divide_one, p);
}
