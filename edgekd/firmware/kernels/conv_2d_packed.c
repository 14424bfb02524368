/* Convolution of any window: three output positions times two filters at once.

   The inputs of three positions are widened to 16 bits, as three interleaved columns of pairs of
   values. A word of the weights has two values of two filters: each half is 256 * second + first.
   The products with whole halves give 256 * B + A, and those with their low bytes A, for the price
   of one widening; sums of 512 products keep 256 * B within 32 bits. In each group of four values
   the order is 0 2 1 3, as the bytes of a word are widened.

   The weights of two filters stand between their other numbers: the first one's bias, all words, the
   second one's bias twice, multiplier and rounding of the first and of the second one, and both
   shifts in the two lowest bytes. A bias includes what the input's zero point adds. */

typedef struct {
    const int32_t *weights;
    int32_t batches, input_height, input_width, input_channels, filter_height, filter_width;
    int32_t output_height, output_width, output_channels;
    int32_t stride_y, stride_x, dilation_y, pad_top, pad_left;
    int32_t column_words, input_zero, low, high;
} conv_2d_packed_layer;

/* Filter A's sums at three positions, and 256 * B + A. */
typedef struct {
    int32_t a0, a1, a2, both0, both1, both2;
} conv_2d_packed_sums;

/* Adds `words` words of weights at three positions, a multiple of four; returns the end of the
   weights. In one piece of assembly, since compilers run out of registers otherwise. It has 13, and
   LDM wants its own in order. */
#if defined(DSP_INSTRUCTIONS) && defined(__OPTIMIZE__)

#define CONV_2D_PACKED_WORD(w)                   \
    "ldmia %[x]!, {%[x0], %[x1], %[x2]}\n\t"     \
    "smlad %[both0], %[x0], " w ", %[both0]\n\t" \
    "smlad %[both1], %[x1], " w ", %[both1]\n\t" \
    "smlad %[both2], %[x2], " w ", %[both2]\n\t" \
    "sxtb16 " w ", " w "\n\t"                    \
    "smlad %[a0], %[x0], " w ", %[a0]\n\t"       \
    "smlad %[a1], %[x1], " w ", %[a1]\n\t"       \
    "smlad %[a2], %[x2], " w ", %[a2]\n\t"
#define CONV_2D_PACKED_TWO_WORDS            \
    "ldrd %[w0], %[w1], [%[w]], #8\n\t"     \
    CONV_2D_PACKED_WORD("%[w0]") CONV_2D_PACKED_WORD("%[w1]")
#define CONV_2D_PACKED_FOUR_WORDS CONV_2D_PACKED_TWO_WORDS CONV_2D_PACKED_TWO_WORDS

static IN_LOOP const int32_t *conv_2d_packed_words(conv_2d_packed_sums *s, const int32_t *x,
                                                   const int32_t *w, int32_t words)
{
    const int32_t *const end = w + words;
    register int32_t x0 __asm__("r3");
    register int32_t x1 __asm__("r4");
    register int32_t x2 __asm__("r5");
    int32_t w0 = words;
    int32_t w1;
    __asm__ volatile("tst %[w0], #4\n\t"
                     "beq 2f\n"
                     "1:\n\t" CONV_2D_PACKED_FOUR_WORDS
                     "ldr %[w0], %[end]\n\t"
                     "cmp %[w], %[w0]\n\t"
                     "beq 3f\n"
                     "2:\n\t" CONV_2D_PACKED_FOUR_WORDS
                     "b 1b\n"
                     "3:"
                     : [both0] "+r"(s->both0), [both1] "+r"(s->both1), [both2] "+r"(s->both2),
                       [a0] "+r"(s->a0), [a1] "+r"(s->a1), [a2] "+r"(s->a2), [x] "+r"(x),
                       [w] "+r"(w), [w0] "+r"(w0), [w1] "=&r"(w1), [x0] "=&r"(x0), [x1] "=&r"(x1),
                       [x2] "=&r"(x2)
                     : [end] "m"(end)
                     : "memory", "cc");
    return w;
}

#else

static IN_LOOP const int32_t *conv_2d_packed_words(conv_2d_packed_sums *s, const int32_t *x,
                                                   const int32_t *w, int32_t words)
{
    for (; words > 0; words--, x += 3, w++) {
        const int32_t first = even_bytes(w[0]);
        s->both0 = dual_mac(x[0], w[0], s->both0);
        s->both1 = dual_mac(x[1], w[0], s->both1);
        s->both2 = dual_mac(x[2], w[0], s->both2);
        s->a0 = dual_mac(x[0], first, s->a0);
        s->a1 = dual_mac(x[1], first, s->a1);
        s->a2 = dual_mac(x[2], first, s->a2);
    }
    return w;
}

#endif

/* Adds the sums of a column longer than 256 words, part by part: A's in sums[0] to [2], 2 * B's
   behind. */
static OWN_FUNCTION const int32_t *conv_2d_packed_long(const int32_t *x, const int32_t *w,
                                                       int32_t words, int32_t *sums)
{
    while (words > 0) {
        const int32_t part = words < 256 ? words : 256;
        conv_2d_packed_sums s = {0, 0, 0, 0, 0, 0};
        w = conv_2d_packed_words(&s, x, w, part);
        sums[0] += s.a0;
        sums[1] += s.a1;
        sums[2] += s.a2;
        sums[3] += twice_second_sum(s.both0, s.a0);
        sums[4] += twice_second_sum(s.both1, s.a1);
        sums[5] += twice_second_sum(s.both2, s.a2);
        x += 3 * part;
        words -= part;
    }
    return w;
}

/* Three outputs, from sums that are doubled. */
static IN_LOOP void conv_2d_packed_three(fast_scale scale, int32_t sum0, int32_t sum1, int32_t sum2,
                                         int8_t *y0, int8_t *y1, int8_t *y2)
{
    *y0 = requantize_doubled(sum0, scale);
    *y1 = requantize_doubled(sum1, scale);
    *y2 = requantize_doubled(sum2, scale);
}

/* Every channel of three positions, whose places in the output are at `y`. */
static OWN_FUNCTION void conv_2d_packed_columns(const int32_t *w, int32_t words, int32_t channels,
                                                const int32_t *columns, int8_t *const *y)
{
    for (int32_t c = 0; c < channels; c += 2) {
        const int32_t a = *w++;
        conv_2d_packed_sums s = {a, a, a, a, a, a};
        w = conv_2d_packed_words(&s, columns, w, words);
        int8_t *const y0 = y[0] + c;
        int8_t *const y1 = y[1] + c;
        int8_t *const y2 = y[2] + c;
        const int32_t twice0 = twice_second_sum(s.both0, s.a0);
        const int32_t twice1 = twice_second_sum(s.both1, s.a1);
        const int32_t twice2 = twice_second_sum(s.both2, s.a2);
        const fast_scale first = {w[1], w[5], w[2]};
        conv_2d_packed_three(first, 2 * s.a0, 2 * s.a1, 2 * s.a2, y0, y1, y2);
        if (c + 1 < channels) {
            const int32_t b = w[0];
            const fast_scale second = {w[3], w[5] >> 8, w[4]};
            conv_2d_packed_three(second, twice0 + b, twice1 + b, twice2 + b, y0 + 1, y1 + 1, y2 + 1);
        }
        w += 6;
    }
}

/* The same for columns longer than 256 words. */
static OWN_FUNCTION void conv_2d_packed_long_columns(const int32_t *w, int32_t words,
                                                     int32_t channels, const int32_t *columns,
                                                     int8_t *const *y)
{
    for (int32_t c = 0; c < channels; c += 2) {
        const int32_t a = *w;
        int32_t sums[6] = {a, a, a, 0, 0, 0};
        w = conv_2d_packed_long(columns, w + 1, words, sums);
        const int32_t b = w[0];
        const fast_scale first = {w[1], w[5], w[2]};
        const fast_scale second = {w[3], w[5] >> 8, w[4]};
        for (int32_t i = 0; i < 3; i++) {
            y[i][c] = requantize_doubled(2 * sums[i], first);
            if (c + 1 < channels) {
                y[i][c + 1] = requantize_doubled(sums[3 + i] + b, second);
            }
        }
        w += 6;
    }
}

/* Widens `count` values, a multiple of four, into one column; returns its end. */
static inline int32_t *widen(int32_t *column, const int8_t *x, int32_t count)
{
    for (const int8_t *end = x + count; x != end; x += 4, column += 6) {
        const int32_t word = load_word(x);
        column[0] = even_bytes(word);
        column[3] = odd_bytes(word);
    }
    return column;
}

/* The same of three positions into all columns. */
static IN_LOOP int32_t *widen_three(int32_t *columns, const int8_t *x0, const int8_t *x1,
                                    const int8_t *x2, int32_t count)
{
    for (const int8_t *end = x0 + count; x0 != end; x0 += 4, x1 += 4, x2 += 4, columns += 6) {
        const int32_t word0 = load_word(x0);
        const int32_t word1 = load_word(x1);
        const int32_t word2 = load_word(x2);
        store_three(columns, even_bytes(word0), even_bytes(word1), even_bytes(word2));
        store_three(columns + 3, odd_bytes(word0), odd_bytes(word1), odd_bytes(word2));
    }
    return columns;
}

static inline int32_t *repeat(int32_t *column, int32_t word, int32_t count)
{
    for (; count > 0; count -= 4, column += 6) {
        column[0] = word;
        column[3] = word;
    }
    return column;
}

/* What is left of each row of a window behind whole words, and of all rows, in whole words. */
static inline int32_t conv_2d_packed_rest(const conv_2d_packed_layer *p)
{
    return p->filter_width * p->input_channels & 3;
}

static inline int32_t conv_2d_packed_rests(const conv_2d_packed_layer *p)
{
    return (p->filter_height * conv_2d_packed_rest(p) + 3) & ~3;
}

/* All columns, of windows inside the input that begin at x0, x1 and x2. What is left of each row
   comes after the whole words of all rows; it is put side by side in `rests`. */
static OWN_FUNCTION void conv_2d_packed_inside(const conv_2d_packed_layer *p, const int8_t *x0,
                                               const int8_t *x1, const int8_t *x2, int32_t *columns,
                                               int8_t *rests)
{
    const int32_t rest = conv_2d_packed_rest(p);
    const int32_t all = conv_2d_packed_rests(p);
    const int32_t whole = p->filter_width * p->input_channels - rest;
    const int32_t step = p->dilation_y * p->input_width * p->input_channels;
    int8_t *to = rests;
    for (int32_t left = p->filter_height; left > 0; left--, x0 += step, x1 += step, x2 += step) {
        columns = widen_three(columns, x0, x1, x2, whole);
        for (int32_t i = 0; i < rest; i++, to++) {
            to[0] = x0[whole + i];
            to[all] = x1[whole + i];
            to[2 * all] = x2[whole + i];
        }
    }
    (void)widen_three(columns, rests, rests + all, rests + 2 * all, all);
}

/* The column of one position at the border, if a tap is made of whole words. Taps outside the input
   are its zero point. */
static OWN_FUNCTION void conv_2d_packed_fill(const conv_2d_packed_layer *p, const int8_t *x,
                                             int32_t y0, int32_t x0, int32_t *column)
{
    const int32_t channels = p->input_channels;
    const int32_t taps = p->filter_width;
    const int32_t zero = (int32_t)((uint32_t)p->input_zero << 16) | (p->input_zero & 0xFFFF);
    for (int32_t ky = 0; ky < p->filter_height; ky++) {
        const int32_t iy = y0 + ky * p->dilation_y;
        const window_row part
            = window_row_at(x, p->input_height, p->input_width, channels, iy, x0, taps);
        column = repeat(column, zero, part.before * channels);
        column = widen(column, part.row, part.inside * channels);
        column = repeat(column, zero, part.after * channels);
    }
}

/* The same for any number of channels; behind `rests` there is room for one row. */
static OWN_FUNCTION void conv_2d_packed_collect(const conv_2d_packed_layer *p, const int8_t *x,
                                                int32_t y0, int32_t x0, int32_t *column,
                                                int8_t *rests)
{
    const int32_t channels = p->input_channels;
    const int32_t values = p->filter_width * channels;
    const int32_t rest = conv_2d_packed_rest(p);
    int8_t *row = rests + 3 * conv_2d_packed_rests(p);
    for (int32_t ky = 0; ky < p->filter_height; ky++) {
        const int32_t iy = y0 + ky * p->dilation_y;
        const window_row part = window_row_at(x, p->input_height, p->input_width, channels, iy, x0,
                                              p->filter_width);
        const int8_t *from = part.row;
        if (part.before + part.after > 0) {
            memset(row, p->input_zero, (size_t)values);
            copy_words(row + part.before * channels, part.row, part.inside * channels);
            from = row;
        }
        if (values > rest) {
            column = widen(column, from, values - rest);
        }
        copy_words(rests + ky * rest, from + values - rest, rest);
    }
    (void)widen(column, rests, conv_2d_packed_rests(p));
}

/* The columns of three positions (y0, x0), at least one of them at the border. */
static OWN_FUNCTION void conv_2d_packed_border(const conv_2d_packed_layer *p, const int8_t *x,
                                               const int32_t *y0, const int32_t *x0,
                                               int32_t *columns, int8_t *rests)
{
    for (int32_t i = 0; i < 3; i++) {
        if (p->input_channels % 4 == 0) {
            conv_2d_packed_fill(p, x, y0[i], x0[i], columns + i);
        } else {
            conv_2d_packed_collect(p, x, y0[i], x0[i], columns + i, rests);
        }
    }
}

static void conv_2d_packed(const conv_2d_packed_layer *p, const int8_t *x, int8_t *y,
                           int8_t *scratch, int32_t scratch_bytes)
{
    int32_t *columns = (int32_t *)(void *)scratch;
    int8_t *rests = scratch + 12 * p->column_words;
    const int32_t positions = p->output_height * p->output_width;
    const int32_t rows = p->input_height - (p->filter_height - 1) * p->dilation_y;
    const int32_t in_row = p->input_width - p->filter_width + 1;
    memset(scratch, 0, (size_t)scratch_bytes);
    for (int32_t batch = 0; batch < p->batches; batch++) {
        int32_t top = -p->pad_top;
        int32_t side = -p->pad_left;
        int32_t column = 0;
        int8_t *to = y;
        for (int32_t left = positions; left > 0; left -= 3) {
            int8_t *outputs[3];
            int32_t y0[3];
            int32_t x0[3];
            int32_t inside = 1;
            for (int32_t i = 0; i < 3; i++) {
                outputs[i] = to;
                y0[i] = top;
                x0[i] = side;
                inside &= top >= 0 && top < rows && side >= 0 && side < in_row;
                /* The last position is computed again where fewer than three are left. */
                if (i + 1 < left) {
                    to += p->output_channels;
                    side += p->stride_x;
                    if (++column == p->output_width) {
                        column = 0;
                        side = -p->pad_left;
                        top += p->stride_y;
                    }
                }
            }
            if (inside != 0) {
                conv_2d_packed_inside(p, x + (y0[0] * p->input_width + x0[0]) * p->input_channels,
                                      x + (y0[1] * p->input_width + x0[1]) * p->input_channels,
                                      x + (y0[2] * p->input_width + x0[2]) * p->input_channels,
                                      columns, rests);
            } else {
                conv_2d_packed_border(p, x, y0, x0, columns, rests);
            }
            if (p->column_words <= 256) {
                conv_2d_packed_columns(p->weights, p->column_words, p->output_channels, columns,
                                       outputs);
            } else {
                conv_2d_packed_long_columns(p->weights, p->column_words, p->output_channels,
                                            columns, outputs);
            }
        }
        clamp_all(y, positions * p->output_channels, p->low, p->high);
        x += p->input_height * p->input_width * p->input_channels;
        y += positions * p->output_channels;
    }
}
