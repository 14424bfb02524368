/* Depthwise convolution of up to 25 taps, 16 channels at once. `scratch` has one row of channels that
   are the input's zero point, which taps outside the input read. The bias includes what the zero
   point adds. */

#define DEPTHWISE_HELIUM_TAPS 25

typedef struct {
    const int8_t *weights;
    const int32_t *bias;
    const int32_t *multiplier;
    const shift_type *shift;
    int32_t batches, input_height, input_width, channels, filter_height, filter_width;
    int32_t output_height, output_width, stride_y, stride_x, dilation_y, dilation_x;
    int32_t pad_top, pad_left, input_zero, output_offset, low, high;
} depthwise_helium_layer;

/* The places of all taps at a position, whose inputs are `steps` apart if all are inside. */
static inline void depthwise_helium_taps(const depthwise_helium_layer *p, const int8_t *x,
                                         int32_t y0, int32_t x0, const int32_t *steps,
                                         const int8_t *outside, const int8_t **taps)
{
    const int32_t height = (p->filter_height - 1) * p->dilation_y;
    const int32_t width = (p->filter_width - 1) * p->dilation_x;
    const int32_t count = p->filter_height * p->filter_width;
    const int8_t *start = x + (y0 * p->input_width + x0) * p->channels;
    if (y0 >= 0 && x0 >= 0 && y0 + height < p->input_height && x0 + width < p->input_width) {
        for (int32_t i = 0; i < count; i++) {
            taps[i] = start + steps[i];
        }
        return;
    }
    for (int32_t ky = 0; ky < p->filter_height; ky++) {
        const int32_t iy = y0 + ky * p->dilation_y;
        const int32_t within = iy >= 0 && iy < p->input_height;
        for (int32_t kx = 0; kx < p->filter_width; kx++) {
            const int32_t ix = x0 + kx * p->dilation_x;
            const int32_t inside = within && ix >= 0 && ix < p->input_width;
            *taps++ = inside ? x + (iy * p->input_width + ix) * p->channels : outside;
        }
    }
}

static OWN_FUNCTION void depthwise_helium_position(const depthwise_helium_layer *p,
                                                   const int8_t *const *taps, int8_t *y)
{
    const int32_t count = p->filter_height * p->filter_width;
    const int32_t channels = p->channels;
    const int32_t output_offset = p->output_offset;
    const int32_t *bias = p->bias;
    const int32_t *multiplier = p->multiplier;
    const shift_type *shift = p->shift;
    for (int32_t c = 0; c < channels; c += 16) {
        const int32_t end = channels - c < 16 ? channels : c + 16;
        int32_t sums[16];
        const int32_t *sum = sums;
        sum_taps(taps, c, p->weights + c, channels, count, channels - c, sums);
        for (int32_t at = c; at < end; at += 4) {
            const scales_4 scales = scales_4_at(bias, multiplier, shift, output_offset);
            requantize_4(&scales, sum, channels - at, y);
            bias += 4;
            multiplier += 4;
            shift += 4;
            sum += 4;
            y += 4;
        }
    }
}

static void depthwise_helium(const depthwise_helium_layer *p, const int8_t *x, int8_t *y,
                             int8_t *scratch, int32_t scratch_bytes)
{
    int32_t steps[DEPTHWISE_HELIUM_TAPS];
    const int8_t *taps[DEPTHWISE_HELIUM_TAPS];
    const int32_t outputs = p->output_height * p->output_width * p->channels;
    for (int32_t i = 0; i < p->filter_height * p->filter_width; i++) {
        const int32_t row = i / p->filter_width * p->dilation_y * p->input_width;
        steps[i] = (row + i % p->filter_width * p->dilation_x) * p->channels;
    }
    fill_bytes(scratch, p->input_zero, scratch_bytes);
    for (int32_t batch = 0; batch < p->batches; batch++) {
        for (int32_t oy = 0; oy < p->output_height; oy++) {
            for (int32_t ox = 0; ox < p->output_width; ox++) {
                depthwise_helium_taps(p, x, oy * p->stride_y - p->pad_top,
                                      ox * p->stride_x - p->pad_left, steps, scratch, taps);
                depthwise_helium_position(p, taps, y);
                y += p->channels;
            }
        }
        clamp_all(y - outputs, outputs, p->low, p->high);
        x += p->input_height * p->input_width * p->channels;
    }
}
