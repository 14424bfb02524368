/* One row of inputs times weights, four outputs at once. For each four inputs there are four words
   of weights, as in conv_2d_packed.c: outputs 0 and 1 with inputs 0 and 2, outputs 2 and 3 with
   the same inputs, and both again with inputs 1 and 3. */

typedef struct {
    const int32_t *weights;
    const int32_t *bias;
    const int32_t *multiplier;
    const shift_type *shift;
    int32_t inputs, outputs, output_offset, low, high;
} fully_connected_packed_layer;

/* Output 0's sum, 256 times output 1's and output 0's, and the same of outputs 2 and 3. */
typedef struct {
    int32_t a, both_ab, c, both_cd;
} fully_connected_packed_sums;

static inline void fully_connected_packed_word(fully_connected_packed_sums *s, int32_t x,
                                               const int32_t *w)
{
    s->a = dual_mac(x, even_bytes(w[0]), s->a);
    s->both_ab = dual_mac(x, w[0], s->both_ab);
    s->c = dual_mac(x, even_bytes(w[1]), s->c);
    s->both_cd = dual_mac(x, w[1], s->both_cd);
}

/* Adds four inputs at a time, `fours` times, at least once; returns the end of their weights. In one
   piece of assembly, for which 13 registers are enough; LDM wants its own in order. */
#if defined(DSP_INSTRUCTIONS) && defined(__OPTIMIZE__)

#define FULLY_CONNECTED_PACKED_FOUR               \
    "ldr %[odd], [%[x]], #4\n\t"                  \
    "ldmia %[w]!, {%[w0], %[w1], %[w2], %[w3]}\n\t" \
    "sxtb16 %[even], %[odd]\n\t"                  \
    "sxtb16 %[odd], %[odd], ror #8\n\t"           \
    "smlad %[ab], %[even], %[w0], %[ab]\n\t"      \
    "smlad %[cd], %[even], %[w1], %[cd]\n\t"      \
    "sxtb16 %[w0], %[w0]\n\t"                     \
    "sxtb16 %[w1], %[w1]\n\t"                     \
    "smlad %[a], %[even], %[w0], %[a]\n\t"        \
    "smlad %[c], %[even], %[w1], %[c]\n\t"        \
    "smlad %[ab], %[odd], %[w2], %[ab]\n\t"       \
    "smlad %[cd], %[odd], %[w3], %[cd]\n\t"       \
    "sxtb16 %[w2], %[w2]\n\t"                     \
    "sxtb16 %[w3], %[w3]\n\t"                     \
    "smlad %[a], %[odd], %[w2], %[a]\n\t"         \
    "smlad %[c], %[odd], %[w3], %[c]\n\t"

static IN_LOOP const int32_t *fully_connected_packed_fours(fully_connected_packed_sums *s,
                                                           const int8_t *x, const int32_t *w,
                                                           int32_t fours)
{
    register int32_t w0 __asm__("r2");
    register int32_t w1 __asm__("r3");
    register int32_t w2 __asm__("r4");
    register int32_t w3 __asm__("r5");
    const int8_t *const end = x + 4 * fours;
    int32_t even = fours;
    int32_t odd;
    __asm__ volatile("tst %[even], #1\n\t"
                     "beq 2f\n"
                     "1:\n\t" FULLY_CONNECTED_PACKED_FOUR
                     "cmp %[x], %[end]\n\t"
                     "beq 3f\n"
                     "2:\n\t" FULLY_CONNECTED_PACKED_FOUR
                     "b 1b\n"
                     "3:"
                     : [a] "+r"(s->a), [ab] "+r"(s->both_ab), [c] "+r"(s->c),
                       [cd] "+r"(s->both_cd), [x] "+r"(x), [w] "+r"(w), [even] "+r"(even),
                       [odd] "=&r"(odd), [w0] "=&r"(w0), [w1] "=&r"(w1), [w2] "=&r"(w2),
                       [w3] "=&r"(w3)
                     : [end] "r"(end)
                     : "memory", "cc");
    return w;
}

#else

static IN_LOOP const int32_t *fully_connected_packed_fours(fully_connected_packed_sums *s,
                                                           const int8_t *x, const int32_t *w,
                                                           int32_t fours)
{
    for (; fours > 0; fours--, x += 4, w += 4) {
        const int32_t word = load_word(x);
        fully_connected_packed_word(s, even_bytes(word), w);
        fully_connected_packed_word(s, odd_bytes(word), w + 2);
    }
    return w;
}

#endif

/* The sums of four outputs. */
static OWN_FUNCTION void fully_connected_packed_dot(const int8_t *x, const int32_t *w,
                                                    int32_t inputs, int32_t *sums)
{
    while (inputs > 0) {
        const int32_t count = inputs < 512 ? inputs : 512;
        fully_connected_packed_sums part = {0, 0, 0, 0};
        if (count >= 4) {
            w = fully_connected_packed_fours(&part, x, w, count / 4);
            x += count / 4 * 4;
        }
        if (count % 4 != 0) {
            int8_t last[4] = {0, 0, 0, 0};
            memcpy(last, x, (size_t)(count % 4));
            fully_connected_packed_word(&part, even_bytes(load_word(last)), w);
            fully_connected_packed_word(&part, odd_bytes(load_word(last)), w + 2);
        }
        sums[0] += part.a;
        sums[1] += second_sum(part.both_ab, part.a);
        sums[2] += part.c;
        sums[3] += second_sum(part.both_cd, part.c);
        inputs -= count;
    }
}

static void fully_connected_packed(const fully_connected_packed_layer *p, const int8_t *x,
                                   int8_t *y)
{
    const int32_t *w = p->weights;
    for (int32_t output = 0; output < p->outputs; output += 4) {
        int32_t sums[4] = {0, 0, 0, 0};
        fully_connected_packed_dot(x, w, p->inputs, sums);
        for (int32_t i = 0; i < 4 && output + i < p->outputs; i++) {
            const int32_t c = output + i;
            const fast_scale scale = fast_scale_of(p->multiplier[c], p->shift[c], p->output_offset);
            y[c] = fast_requantize(sums[i] + p->bias[c], scale);
        }
        w += (p->inputs + 3) / 4 * 4;
    }
    clamp_all(y, p->outputs, p->low, p->high);
}
