/* Convolution of any window: three output positions times two filters at once.

   The inputs of three positions are widened to 16 bits, as three interleaved columns of pairs of
   values. A word of the weights has two values of two filters: each half is 256 * second + first.
   The products with whole halves give 256 * B + A, and those with their low bytes A, for the price
   of one widening; sums of 512 products keep 256 * B within 32 bits. In each group of four values
   the order is 0 2 1 3, as the bytes of a word are widened. The bias includes what the input's zero
   point adds. `pointwise` is 1 for a window of 1x1 without padding, over whole words. */

typedef struct {
    const int32_t *weights;
    const int32_t *bias;
    const int32_t *multiplier;
    const shift_type *shift;
    int32_t batches, input_height, input_width, input_channels, filter_height, filter_width;
    int32_t output_height, output_width, output_channels;
    int32_t stride_y, stride_x, dilation_y, pad_top, pad_left;
    int32_t column_words, pointwise, input_zero, output_offset, low, high;
} conv_2d_packed_layer;

/* Filter A's sums at three positions, and 256 * B + A. */
typedef struct {
    int32_t a0, a1, a2, both0, both1, both2;
} conv_2d_packed_sums;

/* The next word of weights at three positions; returns the next word of the columns. In one piece of
   assembly, since compilers tend to reorder it until they run out of registers. */
#if defined(DSP_INSTRUCTIONS) && defined(__OPTIMIZE__)

static IN_LOOP const int32_t *conv_2d_packed_word(conv_2d_packed_sums *s, const int32_t *x,
                                                  const int32_t *w)
{
    int32_t both = *w;
    int32_t x0;
    int32_t x1;
    int32_t x2;
    __asm__ volatile("ldrd %[x0], %[x1], [%[x]], #8\n\t"
                     "ldr %[x2], [%[x]], #4\n\t"
                     "smlad %[both0], %[x0], %[both], %[both0]\n\t"
                     "smlad %[both1], %[x1], %[both], %[both1]\n\t"
                     "smlad %[both2], %[x2], %[both], %[both2]\n\t"
                     "sxtb16 %[both], %[both]\n\t"
                     "smlad %[a0], %[x0], %[both], %[a0]\n\t"
                     "smlad %[a1], %[x1], %[both], %[a1]\n\t"
                     "smlad %[a2], %[x2], %[both], %[a2]"
                     : [both0] "+r"(s->both0), [both1] "+r"(s->both1), [both2] "+r"(s->both2),
                       [a0] "+r"(s->a0), [a1] "+r"(s->a1), [a2] "+r"(s->a2), [x] "+r"(x),
                       [both] "+r"(both), [x0] "=&r"(x0), [x1] "=&r"(x1), [x2] "=&r"(x2)
                     :
                     : "memory");
    return x;
}

#else

static IN_LOOP const int32_t *conv_2d_packed_word(conv_2d_packed_sums *s, const int32_t *x,
                                                  const int32_t *w)
{
    const int32_t both = *w;
    const int32_t first = even_bytes(both);
    s->both0 = dual_mac(x[0], both, s->both0);
    s->both1 = dual_mac(x[1], both, s->both1);
    s->both2 = dual_mac(x[2], both, s->both2);
    s->a0 = dual_mac(x[0], first, s->a0);
    s->a1 = dual_mac(x[1], first, s->a1);
    s->a2 = dual_mac(x[2], first, s->a2);
    return x + 3;
}

#endif

/* `words` of them, a multiple of four. */
static IN_LOOP void conv_2d_packed_words(conv_2d_packed_sums *s, const int32_t *x, const int32_t *w,
                                         int32_t words)
{
    for (const int32_t *end = w + words; w != end; w += 4) {
        x = conv_2d_packed_word(s, x, w);
        x = conv_2d_packed_word(s, x, w + 1);
        x = conv_2d_packed_word(s, x, w + 2);
        x = conv_2d_packed_word(s, x, w + 3);
    }
}

/* Adds the sums of a column longer than 256 words, part by part: A's in sums[0] to [2], B's behind. */
static OWN_FUNCTION void conv_2d_packed_long(const int32_t *x, const int32_t *w, int32_t words,
                                             int32_t *sums)
{
    for (int32_t done = 0; done < words; done += 256) {
        const int32_t part = words - done < 256 ? words - done : 256;
        conv_2d_packed_sums s = {0, 0, 0, 0, 0, 0};
        conv_2d_packed_words(&s, x + 3 * done, w + done, part);
        sums[0] += s.a0;
        sums[1] += s.a1;
        sums[2] += s.a2;
        sums[3] += second_sum(s.both0, s.a0);
        sums[4] += second_sum(s.both1, s.a1);
        sums[5] += second_sum(s.both2, s.a2);
    }
}

/* Every channel of three positions, whose places in the output are y0, y1 and y2. */
static OWN_FUNCTION void conv_2d_packed_columns(const conv_2d_packed_layer *p,
                                                const int32_t *columns, int8_t *y0, int8_t *y1,
                                                int8_t *y2)
{
    const int32_t words = p->column_words;
    const int32_t output_offset = p->output_offset;
    const int32_t *w = p->weights;
    const int32_t *bias = p->bias;
    const int32_t *multiplier = p->multiplier;
    const shift_type *shift = p->shift;
    for (int32_t left = p->output_channels; left > 0; left -= 2) {
        const int32_t a = bias[0];
        const int32_t b = left > 1 ? bias[1] : 0;
        int32_t sums[6] = {a, a, a, b, b, b};
        if (words <= 256) {
            conv_2d_packed_sums s = {a, a, a, a, a, a};
            conv_2d_packed_words(&s, columns, w, words);
            sums[0] = s.a0;
            sums[1] = s.a1;
            sums[2] = s.a2;
            sums[3] += second_sum(s.both0, s.a0);
            sums[4] += second_sum(s.both1, s.a1);
            sums[5] += second_sum(s.both2, s.a2);
        } else {
            conv_2d_packed_long(columns, w, words, sums);
        }
        const fast_scale first = fast_scale_of(multiplier[0], shift[0], output_offset);
        y0[0] = fast_requantize(sums[0], first);
        y1[0] = fast_requantize(sums[1], first);
        y2[0] = fast_requantize(sums[2], first);
        if (left > 1) {
            const fast_scale second = fast_scale_of(multiplier[1], shift[1], output_offset);
            y0[1] = fast_requantize(sums[3], second);
            y1[1] = fast_requantize(sums[4], second);
            y2[1] = fast_requantize(sums[5], second);
        }
        w += words;
        bias += 2;
        multiplier += 2;
        shift += 2;
        y0 += 2;
        y1 += 2;
        y2 += 2;
    }
}

/* Widens `count` values, a multiple of four; returns the end of the column. */
static inline int32_t *widen(int32_t *column, const int8_t *x, int32_t count)
{
    for (const int8_t *end = x + count; x != end; x += 4, column += 6) {
        const int32_t word = load_word(x);
        column[0] = even_bytes(word);
        column[3] = odd_bytes(word);
    }
    return column;
}

static inline int32_t *repeat(int32_t *column, int32_t word, int32_t count)
{
    for (; count > 0; count -= 4, column += 6) {
        column[0] = word;
        column[3] = word;
    }
    return column;
}

/* The column of one position, if a tap is made of whole words. Taps outside the input are its zero
   point. */
static OWN_FUNCTION void conv_2d_packed_fill(const conv_2d_packed_layer *p, const int8_t *x,
                                             int32_t y0, int32_t x0, int32_t *column)
{
    const int32_t channels = p->input_channels;
    const int32_t taps = p->filter_width;
    const int32_t zero = (int32_t)((uint32_t)p->input_zero << 16) | (p->input_zero & 0xFFFF);
    const int32_t rows = (p->filter_height - 1) * p->dilation_y + 1;
    if (window_is_inside(y0, x0, rows, taps, p->input_height, p->input_width)) {
        const int32_t step = p->dilation_y * p->input_width * channels;
        const int8_t *row = x + (y0 * p->input_width + x0) * channels;
        for (int32_t left = p->filter_height; left > 0; left--, row += step) {
            column = widen(column, row, taps * channels);
        }
        return;
    }
    for (int32_t ky = 0; ky < p->filter_height; ky++) {
        const int32_t iy = y0 + ky * p->dilation_y;
        const window_row part
            = window_row_at(x, p->input_height, p->input_width, channels, iy, x0, taps);
        column = repeat(column, zero, part.before * channels);
        column = widen(column, part.row, part.inside * channels);
        column = repeat(column, zero, part.after * channels);
    }
}

/* The same for any number of channels: `bytes` collects the values first. */
static OWN_FUNCTION void conv_2d_packed_collect(const conv_2d_packed_layer *p, const int8_t *x,
                                                int32_t y0, int32_t x0, int32_t *column,
                                                int8_t *bytes)
{
    const int32_t channels = p->input_channels;
    const int32_t taps = p->filter_width;
    const int32_t rows = (p->filter_height - 1) * p->dilation_y + 1;
    int8_t *to = bytes;
    if (window_is_inside(y0, x0, rows, taps, p->input_height, p->input_width)) {
        const int32_t step = p->dilation_y * p->input_width * channels;
        const int8_t *row = x + (y0 * p->input_width + x0) * channels;
        for (int32_t left = p->filter_height; left > 0; left--, row += step) {
            copy_words(to, row, taps * channels);
            to += taps * channels;
        }
    } else {
        memset(bytes, p->input_zero, (size_t)(p->filter_height * taps * channels));
        for (int32_t ky = 0; ky < p->filter_height; ky++) {
            const int32_t iy = y0 + ky * p->dilation_y;
            const window_row part
                = window_row_at(x, p->input_height, p->input_width, channels, iy, x0, taps);
            copy_words(to + part.before * channels, part.row, part.inside * channels);
            to += taps * channels;
        }
    }
    (void)widen(column, bytes, 2 * p->column_words);
}

static void conv_2d_packed(const conv_2d_packed_layer *p, const int8_t *x, int8_t *y,
                           int8_t *scratch, int32_t scratch_bytes)
{
    int32_t *columns = (int32_t *)(void *)scratch;
    int8_t *bytes = scratch + 12 * p->column_words;
    const int32_t positions = p->output_height * p->output_width;
    memset(scratch, 0, (size_t)scratch_bytes);
    for (int32_t batch = 0; batch < p->batches; batch++) {
        for (int32_t position = 0; position < positions; position += 3) {
            int8_t *outputs[3] = {y, y, y};
            for (int32_t i = 0; i < 3; i++) {
                /* The last position is computed again where fewer than three are left. */
                const int32_t at = position + i < positions ? position + i : positions - 1;
                const int32_t y0 = at / p->output_width * p->stride_y - p->pad_top;
                const int32_t x0 = at % p->output_width * p->stride_x - p->pad_left;
                outputs[i] = y + at * p->output_channels;
                if (p->pointwise != 0) {
                    (void)widen(columns + i, x + (y0 * p->input_width + x0) * p->input_channels,
                                p->input_channels);
                } else if (p->input_channels % 4 == 0) {
                    conv_2d_packed_fill(p, x, y0, x0, columns + i);
                } else {
                    conv_2d_packed_collect(p, x, y0, x0, columns + i, bytes);
                }
            }
            conv_2d_packed_columns(p, columns, outputs[0], outputs[1], outputs[2]);
        }
        clamp_all(y, positions * p->output_channels, p->low, p->high);
        x += p->input_height * p->input_width * p->input_channels;
        y += positions * p->output_channels;
    }
}
