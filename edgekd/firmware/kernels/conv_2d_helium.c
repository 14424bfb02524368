/* Convolution of any window: four output positions times one filter at once, in vectors of 16
   values. A position of a `pointwise` window (1x1, without padding) is read where it is; the values
   of any other are first copied side by side. The bias includes what the input's zero point adds. */

typedef struct {
    const int8_t *weights;
    const int32_t *bias;
    const int32_t *multiplier;
    const shift_type *shift;
    int32_t batches, input_height, input_width, input_channels, filter_height, filter_width;
    int32_t output_height, output_width, output_channels;
    int32_t stride_y, stride_x, dilation_y, pad_top, pad_left;
    int32_t pointwise, input_zero, output_offset, low, high;
} conv_2d_helium_layer;

/* The values of one position; taps outside the input are its zero point. */
static void conv_2d_helium_collect(const conv_2d_helium_layer *p, const int8_t *x, int32_t y0,
                                   int32_t x0, int8_t *to)
{
    const int32_t channels = p->input_channels;
    const int32_t taps = p->filter_width;
    const int32_t rows = (p->filter_height - 1) * p->dilation_y + 1;
    if (window_is_inside(y0, x0, rows, taps, p->input_height, p->input_width)) {
        const int32_t step = p->dilation_y * p->input_width * channels;
        const int8_t *row = x + (y0 * p->input_width + x0) * channels;
        for (int32_t left = p->filter_height; left > 0; left--, row += step) {
            copy_bytes(to, row, taps * channels);
            to += taps * channels;
        }
        return;
    }
    for (int32_t ky = 0; ky < p->filter_height; ky++) {
        const int32_t iy = y0 + ky * p->dilation_y;
        const window_row part
            = window_row_at(x, p->input_height, p->input_width, channels, iy, x0, taps);
        fill_bytes(to, p->input_zero, part.before * channels);
        to += part.before * channels;
        copy_bytes(to, part.row, part.inside * channels);
        to += part.inside * channels;
        fill_bytes(to, p->input_zero, part.after * channels);
        to += part.after * channels;
    }
}

/* Every channel of four positions, whose values are at `x` and whose outputs at `y`. */
static OWN_FUNCTION void conv_2d_helium_rows(const conv_2d_helium_layer *p, const int8_t *const *x,
                                             int8_t *const *y)
{
    const int32_t size = p->filter_height * p->filter_width * p->input_channels;
    const int32_t channels = p->output_channels;
    const int8_t *w = p->weights;
    for (int32_t c = 0; c < channels; c += 4) {
        const int32_t left = channels - c;
        const scales_4 scales
            = scales_4_at(p->bias + c, p->multiplier + c, p->shift + c, p->output_offset);
        const int32_t filters = left < 4 ? left : 4;
        int32_t sums[16];
        if (size <= 16) {
            short_dots_by_4(w, filters, x, size, sums);
            w += filters * size;
        } else {
            for (int32_t i = 0; i < filters; i++, w += size) {
                dot_by_4(w, x, size, sums + i, 4);
            }
        }
        if (left >= 4) {
            requantize_4(&scales, sums, 4, y[0] + c);
            requantize_4(&scales, sums + 4, 4, y[1] + c);
            requantize_4(&scales, sums + 8, 4, y[2] + c);
            requantize_4(&scales, sums + 12, 4, y[3] + c);
        } else {
            for (int32_t i = 0; i < 4; i++) {
                requantize_4(&scales, sums + 4 * i, left, y[i] + c);
            }
        }
    }
}

static void conv_2d_helium(const conv_2d_helium_layer *p, const int8_t *x, int8_t *y,
                           int8_t *scratch, int32_t scratch_bytes)
{
    const int32_t positions = p->output_height * p->output_width;
    for (int32_t batch = 0; batch < p->batches; batch++) {
        for (int32_t position = 0; position < positions; position += 4) {
            const int8_t *rows[4];
            int8_t *outputs[4];
            for (int32_t i = 0; i < 4; i++) {
                /* The last position is computed again where fewer than four are left. */
                const int32_t at = position + i < positions ? position + i : positions - 1;
                const int32_t y0 = at / p->output_width * p->stride_y - p->pad_top;
                const int32_t x0 = at % p->output_width * p->stride_x - p->pad_left;
                outputs[i] = y + at * p->output_channels;
                if (p->pointwise != 0) {
                    rows[i] = x + (y0 * p->input_width + x0) * p->input_channels;
                } else {
                    int8_t *copy = scratch + i * (scratch_bytes / 4);
                    conv_2d_helium_collect(p, x, y0, x0, copy);
                    rows[i] = copy;
                }
            }
            conv_2d_helium_rows(p, rows, outputs);
        }
        clamp_all(y, positions * p->output_channels, p->low, p->high);
        x += p->input_height * p->input_width * p->input_channels;
        y += positions * p->output_channels;
    }
}
