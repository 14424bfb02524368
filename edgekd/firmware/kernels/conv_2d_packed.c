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

/* One word of weights, at three positions: filter A's sums, and 256 * B + A. */
typedef struct {
    int32_t a0, a1, a2, both0, both1, both2;
} conv_2d_packed_sums;

static inline void conv_2d_packed_word(conv_2d_packed_sums *s, const int32_t *x, int32_t both)
{
    const int32_t first = even_bytes(both);
    s->a0 = dual_mac(x[0], first, s->a0);
    s->a1 = dual_mac(x[1], first, s->a1);
    s->a2 = dual_mac(x[2], first, s->a2);
    s->both0 = dual_mac(x[0], both, s->both0);
    s->both1 = dual_mac(x[1], both, s->both1);
    s->both2 = dual_mac(x[2], both, s->both2);
}

/* Requantizes and stores one channel of three positions. */
static inline void conv_2d_packed_store(const conv_2d_packed_layer *p, int32_t c, int32_t sum0,
                                        int32_t sum1, int32_t sum2, int8_t *const *y)
{
    const fast_scale scale = fast_scale_of(p->multiplier[c], p->shift[c], p->output_offset);
    int8_t *y0 = y[0];
    int8_t *y1 = y[1];
    int8_t *y2 = y[2];
    y0[c] = fast_requantize(sum0, scale);
    y1[c] = fast_requantize(sum1, scale);
    y2[c] = fast_requantize(sum2, scale);
}

/* Every channel of three positions; `y` are their places in the output. */
static OWN_FUNCTION void conv_2d_packed_columns(const conv_2d_packed_layer *p,
                                                const int32_t *columns, int8_t *const *y)
{
    const int32_t words = p->column_words;
    const int32_t channels = p->output_channels;
    const int32_t *w = p->weights;
    for (int32_t c = 0; c < channels; c += 2) {
        const int32_t next = c + 1 < channels ? c + 1 : c;
        const int32_t *x = columns;
        const int32_t *end = w + words;
        const int32_t a = p->bias[c];
        conv_2d_packed_sums s = {a, a, a, a, a, a};
        int32_t b0 = p->bias[next];
        int32_t b1 = b0;
        int32_t b2 = b0;
        do {
            const int32_t *stop = end - w > 256 ? w + 256 : end;
            for (; w != stop; w += 4, x += 12) {
                conv_2d_packed_word(&s, x, w[0]);
                conv_2d_packed_word(&s, x + 3, w[1]);
                conv_2d_packed_word(&s, x + 6, w[2]);
                conv_2d_packed_word(&s, x + 9, w[3]);
            }
            b0 += second_sum(s.both0, s.a0);
            b1 += second_sum(s.both1, s.a1);
            b2 += second_sum(s.both2, s.a2);
            s.both0 = s.a0;
            s.both1 = s.a1;
            s.both2 = s.a2;
        } while (w != end);
        if (next > c) {
            conv_2d_packed_store(p, next, b0, b1, b2, y);
        }
        conv_2d_packed_store(p, c, s.a0, s.a1, s.a2, y);
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
    const int32_t zero = (int32_t)((uint32_t)p->input_zero << 16) | (p->input_zero & 0xFFFF);
    for (int32_t ky = 0; ky < p->filter_height; ky++) {
        const window_row taps
            = window_row_at(x, p->input_height, p->input_width, channels, y0 + ky * p->dilation_y,
                            x0, p->filter_width);
        column = repeat(column, zero, taps.before * channels);
        column = widen(column, taps.row, taps.inside * channels);
        column = repeat(column, zero, taps.after * channels);
    }
}

/* The same for any number of channels: `bytes` collects the values first. */
static OWN_FUNCTION void conv_2d_packed_collect(const conv_2d_packed_layer *p, const int8_t *x,
                                                int32_t y0, int32_t x0, int32_t *column,
                                                int8_t *bytes)
{
    const int32_t channels = p->input_channels;
    int8_t *to = bytes;
    for (int32_t ky = 0; ky < p->filter_height; ky++) {
        const window_row taps
            = window_row_at(x, p->input_height, p->input_width, channels, y0 + ky * p->dilation_y,
                            x0, p->filter_width);
        if (taps.inside < p->filter_width) {
            memset(to, p->input_zero, (size_t)(p->filter_width * channels));
        }
        copy_words(to + taps.before * channels, taps.row, taps.inside * channels);
        to += p->filter_width * channels;
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
            int8_t *outputs[3];
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
            conv_2d_packed_columns(p, columns, outputs);
        }
        clamp_all(y, positions * p->output_channels, p->low, p->high);
        x += p->input_height * p->input_width * p->input_channels;
        y += positions * p->output_channels;
    }
}
