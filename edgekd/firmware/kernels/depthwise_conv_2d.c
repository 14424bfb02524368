/* Depthwise convolution: NHWC, filter (1, height, width, outputs); output channel c filters input
   channel c / depth. */

typedef struct {
    const int8_t *weights;
    const int32_t *bias;
    const int32_t *multiplier;
    const shift_type *shift;
    int32_t batches, input_height, input_width, input_channels;
    int32_t filter_height, filter_width;
    int32_t output_height, output_width, output_channels, depth;
    int32_t stride_y, stride_x, dilation_y, dilation_x, pad_top, pad_left;
    int32_t input_offset, output_offset, low, high;
} depthwise_conv_2d_layer;

/* The sums of four adjacent output channels; the last one is repeated if fewer are left. */
static void depthwise_conv_2d_sums(const depthwise_conv_2d_layer *p, const int8_t *x, int32_t y0,
                                   int32_t x0, const int32_t *channels, int32_t *sums)
{
    const int32_t in0 = channels[0] / p->depth;
    const int32_t in1 = channels[1] / p->depth;
    const int32_t in2 = channels[2] / p->depth;
    const int32_t in3 = channels[3] / p->depth;
    int32_t s0 = p->bias[channels[0]];
    int32_t s1 = p->bias[channels[1]];
    int32_t s2 = p->bias[channels[2]];
    int32_t s3 = p->bias[channels[3]];
    const int32_t offset = p->input_offset;
    for (int32_t ky = 0; ky < p->filter_height; ky++) {
        const int32_t iy = y0 + ky * p->dilation_y;
        if (iy < 0 || iy >= p->input_height) {
            continue;
        }
        for (int32_t kx = 0; kx < p->filter_width; kx++) {
            const int32_t ix = x0 + kx * p->dilation_x;
            if (ix < 0 || ix >= p->input_width) {
                continue;
            }
            const int8_t *input = x + (iy * p->input_width + ix) * p->input_channels;
            const int8_t *filter = p->weights + (ky * p->filter_width + kx) * p->output_channels;
            s0 += (input[in0] + offset) * filter[channels[0]];
            s1 += (input[in1] + offset) * filter[channels[1]];
            s2 += (input[in2] + offset) * filter[channels[2]];
            s3 += (input[in3] + offset) * filter[channels[3]];
        }
    }
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
}

static void depthwise_conv_2d(const depthwise_conv_2d_layer *p, const int8_t *x, int8_t *y)
{
    for (int32_t batch = 0; batch < p->batches; batch++) {
        for (int32_t oy = 0; oy < p->output_height; oy++) {
            for (int32_t ox = 0; ox < p->output_width; ox++) {
                for (int32_t channel = 0; channel < p->output_channels; channel += 4) {
                    const int32_t left = p->output_channels - channel;
                    const int32_t count = left < 4 ? left : 4;
                    int32_t channels[4];
                    int32_t sums[4];
                    for (int32_t i = 0; i < 4; i++) {
                        channels[i] = channel + (i < count ? i : count - 1);
                    }
                    depthwise_conv_2d_sums(p, x, oy * p->stride_y - p->pad_top,
                                           ox * p->stride_x - p->pad_left, channels, sums);
                    for (int32_t i = 0; i < count; i++) {
                        const int32_t c = channel + i;
                        const int32_t value = rescale(sums[i], p->multiplier[c], p->shift[c]);
                        *y++ = clamp_int8(value + p->output_offset, p->low, p->high);
                    }
                }
            }
        }
        x += p->input_height * p->input_width * p->input_channels;
    }
}
