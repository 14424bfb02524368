/* The mean or maximum of a window, over the part of it that is within the input. */

typedef struct {
    int32_t batches, input_height, input_width, channels;
    int32_t output_height, output_width, window_height, window_width;
    int32_t stride_y, stride_x, pad_top, pad_left, maximum, low, high;
} pool_2d_layer;

static int32_t pool_2d_window(const pool_2d_layer *p, const int8_t *x, int32_t y0, int32_t x0)
{
    int32_t sum = 0;
    int32_t count = 0;
    int32_t most = -128;
    for (int32_t iy = y0 < 0 ? 0 : y0; iy < y0 + p->window_height && iy < p->input_height; iy++) {
        for (int32_t ix = x0 < 0 ? 0 : x0; ix < x0 + p->window_width && ix < p->input_width; ix++) {
            const int32_t value = x[(iy * p->input_width + ix) * p->channels];
            sum += value;
            most = value > most ? value : most;
            count++;
        }
    }
    if (p->maximum != 0 || count == 0) {
        return most;
    }
    return (sum > 0 ? sum + count / 2 : sum - count / 2) / count;
}

static void pool_2d(const pool_2d_layer *p, const int8_t *x, int8_t *y)
{
    for (int32_t batch = 0; batch < p->batches; batch++) {
        for (int32_t oy = 0; oy < p->output_height; oy++) {
            for (int32_t ox = 0; ox < p->output_width; ox++) {
                for (int32_t channel = 0; channel < p->channels; channel++) {
                    const int32_t value = pool_2d_window(p, x + channel,
                                                         oy * p->stride_y - p->pad_top,
                                                         ox * p->stride_x - p->pad_left);
                    *y++ = clamp_int8(value, p->low, p->high);
                }
            }
        }
        x += p->input_height * p->input_width * p->channels;
    }
}
