/* Convolution, also grouped and dilated: NHWC, filter (outputs, height, width, group's inputs). */

typedef struct {
    const int8_t *weights;
    const int32_t *bias;
    const int32_t *multiplier;
    const shift_type *shift;
    int32_t batches, input_height, input_width, input_channels;
    int32_t filter_height, filter_width, group_inputs;
    int32_t output_height, output_width, output_channels, group_outputs;
    int32_t stride_y, stride_x, dilation_y, dilation_x, pad_top, pad_left;
    int32_t input_offset, output_offset, low, high;
} conv_2d_layer;

/* The filter's taps [begin, end) that are within an input of that size. */
static inline int32_t first_tap(int32_t origin, int32_t dilation)
{
    return origin < 0 ? (dilation - 1 - origin) / dilation : 0;
}

static inline int32_t end_of_taps(int32_t origin, int32_t dilation, int32_t size, int32_t taps)
{
    const int32_t left = size - origin;
    const int32_t within = left > 0 ? (left + dilation - 1) / dilation : 0;
    return within < taps ? within : taps;
}

/* The sums of `count` (1 to 4) output channels of one group at one place. */
static void conv_2d_sums(const conv_2d_layer *p, const int8_t *x, int32_t y0, int32_t x0,
                         int32_t channel, int32_t count, int32_t *sums)
{
    const int32_t filter_size = p->filter_height * p->filter_width * p->group_inputs;
    const int32_t group = channel / p->group_outputs;
    const int32_t ky_end = end_of_taps(y0, p->dilation_y, p->input_height, p->filter_height);
    const int32_t kx_begin = first_tap(x0, p->dilation_x);
    const int32_t kx_end = end_of_taps(x0, p->dilation_x, p->input_width, p->filter_width);
    const int8_t *weights = p->weights + channel * filter_size;
    /* Taps that are adjacent in memory form one long product. */
    const int32_t whole = p->dilation_x == 1 && p->group_inputs == p->input_channels;
    const int32_t runs = whole ? (kx_end > kx_begin ? 1 : 0) : kx_end - kx_begin;
    const int32_t length = whole ? (kx_end - kx_begin) * p->group_inputs : p->group_inputs;
    for (int32_t ky = first_tap(y0, p->dilation_y); ky < ky_end; ky++) {
        const int32_t row = (y0 + ky * p->dilation_y) * p->input_width;
        for (int32_t run = 0; run < runs; run++) {
            const int32_t kx = kx_begin + run;
            const int8_t *input = x
                + (row + x0 + kx * p->dilation_x) * p->input_channels + group * p->group_inputs;
            const int8_t *filter = weights + (ky * p->filter_width + kx) * p->group_inputs;
            dot_4(input, p->input_offset, filter, filter_size, count - 1, length, sums);
        }
    }
}

static void conv_2d(const conv_2d_layer *p, const int8_t *x, int8_t *y)
{
    for (int32_t batch = 0; batch < p->batches; batch++) {
        for (int32_t oy = 0; oy < p->output_height; oy++) {
            for (int32_t ox = 0; ox < p->output_width; ox++) {
                const int32_t y0 = oy * p->stride_y - p->pad_top;
                const int32_t x0 = ox * p->stride_x - p->pad_left;
                for (int32_t channel = 0; channel < p->output_channels;) {
                    const int32_t left = p->group_outputs - channel % p->group_outputs;
                    const int32_t count = left < 4 ? left : 4;
                    int32_t sums[4];
                    for (int32_t i = 0; i < 4; i++) {
                        sums[i] = p->bias[channel + (i < count ? i : count - 1)];
                    }
                    conv_2d_sums(p, x, y0, x0, channel, count, sums);
                    for (int32_t i = 0; i < count; i++, channel++) {
                        const int32_t value
                            = rescale(sums[i], p->multiplier[channel], p->shift[channel]);
                        *y++ = clamp_int8(value + p->output_offset, p->low, p->high);
                    }
                }
            }
        }
        x += p->input_height * p->input_width * p->input_channels;
    }
}
