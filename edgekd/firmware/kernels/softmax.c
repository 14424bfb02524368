/* Softmax over the last dimension. A table has the exponentials of the 256 differences from the
   largest value (Q0.31, 0 for values that TFLite omits); one reciprocal per row is computed by
   Newton-Raphson division as in gemmlowp. */

typedef struct {
    const int32_t *exponentials;
    int32_t rows, depth;
} softmax_layer;

static inline int32_t saturating_high_multiply(int32_t a, int32_t b)
{
    const int64_t product = ((int64_t)a * b + (INT64_C(1) << 30)) >> 31;
    return product > INT32_MAX ? INT32_MAX : (int32_t)product;
}

/* 2^(31 - *over) / (sum / 2^19) in Q0.31, where *over counts the integer bits of the sum. */
static int32_t softmax_reciprocal(int32_t sum, int32_t *over)
{
    uint32_t bits = (uint32_t)sum;
    int32_t leading = 0;
    while ((bits & UINT32_C(0x80000000)) == 0U) {
        bits <<= 1;
        leading++;
    }
    *over = 12 - leading;
    /* half = (1 + f) / 2 in Q0.31, where 1 + f is the sum scaled into [1, 2). */
    const int32_t fraction = (int32_t)(bits - UINT32_C(0x80000000));
    const int32_t half = (int32_t)(((int64_t)fraction + INT32_MAX + 1) / 2);
    /* 48/17 - 32/17 * half in Q2.29, then three steps. */
    int32_t x = 1515870810 + saturating_high_multiply(half, -1010580540);
    for (int32_t i = 0; i < 3; i++) {
        const int32_t rest = (INT32_C(1) << 29) - saturating_high_multiply(half, x);
        const int64_t step = (int64_t)saturating_high_multiply(x, rest) * 4;
        const int64_t limited = step > INT32_MAX ? INT32_MAX : (step < INT32_MIN ? INT32_MIN : step);
        x += (int32_t)limited;
    }
    const int64_t doubled = (int64_t)x * 2;
    return doubled > INT32_MAX ? INT32_MAX : (int32_t)doubled;
}

static void softmax(const softmax_layer *p, const int8_t *x, int8_t *y)
{
    for (int32_t row = 0; row < p->rows; row++) {
        int32_t most = -128;
        int32_t sum = 0;
        int32_t over = 0;
        for (int32_t i = 0; i < p->depth; i++) {
            most = x[i] > most ? x[i] : most;
        }
        for (int32_t i = 0; i < p->depth; i++) {
            sum += rounding_shift(p->exponentials[most - x[i]], 12);
        }
        const int32_t scale = softmax_reciprocal(sum, &over);
        for (int32_t i = 0; i < p->depth; i++) {
            const int32_t value = saturating_high_multiply(scale, p->exponentials[most - x[i]]);
            /* Of 512 and more equal values each is below half a step. */
            const int32_t scaled = over > 8 ? 0 : rounding_shift(value, over + 23);
            y[i] = clamp_int8(scaled - 128, -128, 127);
        }
        x += p->depth;
        y += p->depth;
    }
}
