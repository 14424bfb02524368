/* Depthwise convolution with a window of 3x3 and a stride of 1 or 2, one channel after the other.

   A channel is widened to 16 bits into a plane of its own, whose border is the input's zero point.
   Two outputs are computed at once, from pairs of neighbours. A word of the weights has the bytes
   (w0, w1, w1, w2) of one row, so that its even bytes are the pair (w0, w1) and the odd ones
   (w1, w2). The output may be the input: a channel is read before any of its outputs is written.
   The bias includes what the input's zero point adds. */

typedef struct {
    const int32_t *weights;
    const int32_t *bias;
    const int32_t *multiplier;
    const shift_type *shift;
    int32_t batches, input_height, input_width, channels, output_height, output_width;
    int32_t stride, pad_top, pad_left, plane_height, plane_width;
    int32_t input_zero, output_offset, low, high;
} depthwise_3x3_layer;

/* Every `step`-th value of a row. */
static inline void gather_row(int16_t *to, const int8_t *from, int32_t count, int32_t step)
{
    for (; count >= 4; count -= 4, to += 4, from += 4 * step) {
        to[0] = from[0];
        to[1] = from[step];
        to[2] = from[2 * step];
        to[3] = from[3 * step];
    }
    for (; count > 0; count--, to++, from += step) {
        to[0] = from[0];
    }
}

static OWN_FUNCTION void depthwise_3x3_gather(const depthwise_3x3_layer *p, const int8_t *x,
                                              int16_t *plane)
{
    const int32_t below = p->plane_height - p->pad_top;
    const int32_t behind = p->plane_width - p->pad_left;
    const int32_t rows = p->input_height < below ? p->input_height : below;
    const int32_t columns = p->input_width < behind ? p->input_width : behind;
    int16_t *to = plane + p->pad_top * p->plane_width + p->pad_left;
    for (int32_t row = 0; row < rows; row++) {
        gather_row(to, x, columns, p->channels);
        to += p->plane_width;
        x += p->input_width * p->channels;
    }
}

/* One row's share in two neighbouring outputs; its weights are the pairs (w0, w1) and (w1, w2). */
static IN_LOOP void depthwise_3x3_row(const int16_t *x, int32_t stride, const int32_t *w,
                                      int32_t *sums)
{
    int32_t x01;
    int32_t x23;
    int32_t w01;
    int32_t w12;
    load_words(x, &x01, &x23);
    load_words(w, &w01, &w12);
    sums[0] = low_high_mac(x23, w12, dual_mac(x01, w01, sums[0]));
    if (stride == 1) {
        sums[1] = low_high_mac(w01, x01, dual_mac(x23, w12, sums[1]));
    } else {
        sums[1] = low_high_mac(x[4], w12, dual_mac(x23, w01, sums[1]));
    }
}

/* One row of outputs of one channel, `step` apart. */
static IN_LOOP void depthwise_3x3_outputs(const int16_t *row, int32_t width, int32_t stride,
                                          const int32_t *w, int32_t bias, fast_scale scale,
                                          int8_t *y, int32_t step, int32_t count)
{
    for (; count > 0; count -= 2, row += 2 * stride) {
        int32_t sums[2] = {bias, bias};
        depthwise_3x3_row(row, stride, w, sums);
        depthwise_3x3_row(row + width, stride, w + 2, sums);
        depthwise_3x3_row(row + 2 * width, stride, w + 4, sums);
        *y = fast_requantize(sums[0], scale);
        y += step;
        if (count > 1) {
            *y = fast_requantize(sums[1], scale);
            y += step;
        }
    }
}

/* All outputs of one channel. */
static OWN_FUNCTION void depthwise_3x3_channel(const depthwise_3x3_layer *p, const int16_t *plane,
                                               int32_t c, int8_t *y)
{
    const int32_t *packed = p->weights + 3 * c;
    const int32_t w[6] = {even_bytes(packed[0]), odd_bytes(packed[0]), even_bytes(packed[1]),
                          odd_bytes(packed[1]),  even_bytes(packed[2]), odd_bytes(packed[2])};
    const fast_scale scale = fast_scale_of(p->multiplier[c], p->shift[c], p->output_offset);
    const int32_t bias = p->bias[c];
    const int32_t width = p->plane_width;
    const int32_t step = p->channels;
    const int32_t count = p->output_width;
    for (int32_t row = p->output_height; row > 0; row--, y += step * count) {
        if (p->stride == 1) {
            depthwise_3x3_outputs(plane, width, 1, w, bias, scale, y, step, count);
            plane += width;
        } else {
            depthwise_3x3_outputs(plane, width, 2, w, bias, scale, y, step, count);
            plane += 2 * width;
        }
    }
}

static void depthwise_3x3(const depthwise_3x3_layer *p, const int8_t *x, int8_t *y, int8_t *scratch,
                          int32_t scratch_bytes)
{
    int16_t *plane = (int16_t *)(void *)scratch;
    const int32_t outputs = p->output_height * p->output_width * p->channels;
    for (int32_t i = 0; i < scratch_bytes / 2; i++) {
        plane[i] = (int16_t)p->input_zero;
    }
    for (int32_t batch = 0; batch < p->batches; batch++) {
        for (int32_t c = 0; c < p->channels; c++) {
            depthwise_3x3_gather(p, x + c, plane);
            depthwise_3x3_channel(p, plane, c, y + c);
        }
        clamp_all(y, outputs, p->low, p->high);
        x += p->input_height * p->input_width * p->channels;
        y += outputs;
    }
}
