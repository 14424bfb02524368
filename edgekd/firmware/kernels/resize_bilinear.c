/* Bilinear resizing of (height, width, channels) in steps of 1/1024 of a pixel. */

typedef struct {
    int32_t batches, height, width, channels, out_height, out_width;
    int32_t row_step, column_step, half_pixel;
} resize_bilinear_layer;

/* The place of output pixel `i` in the source, in 1/1024 pixels, and the pixels around it. */
static inline int32_t resize_place(
    int32_t i, int32_t step, int32_t half_pixel, int32_t size, int32_t *low, int32_t *high)
{
    const int32_t place = half_pixel ? i * step + step / 2 - 512 : i * step;
    *low = place < 0 ? 0 : place / 1024;
    *high = (place + 1023) / 1024;
    *high = *high < size - 1 ? *high : size - 1;
    return place;
}

static void resize_bilinear(const resize_bilinear_layer *p, const int8_t *x, int8_t *y)
{
    const int32_t row = p->width * p->channels;
    for (int32_t batch = 0; batch < p->batches; batch++) {
        for (int32_t i = 0; i < p->out_height; i++) {
            int32_t top, bottom;
            const int32_t v
                = resize_place(i, p->row_step, p->half_pixel, p->height, &top, &bottom) - 1024 * top;
            for (int32_t j = 0; j < p->out_width; j++) {
                int32_t left, right;
                const int32_t u
                    = resize_place(j, p->column_step, p->half_pixel, p->width, &left, &right)
                    - 1024 * left;
                const int8_t *top_left = x + top * row + left * p->channels;
                const int8_t *bottom_left = x + bottom * row + left * p->channels;
                const int8_t *top_right = x + top * row + right * p->channels;
                const int8_t *bottom_right = x + bottom * row + right * p->channels;
                for (int32_t c = 0; c < p->channels; c++) {
                    const int32_t sum = top_left[c] * (1024 - v) * (1024 - u)
                        + bottom_left[c] * v * (1024 - u) + top_right[c] * (1024 - v) * u
                        + bottom_right[c] * v * u;
                    const int32_t half = sum > 0 ? INT32_C(1) << 19 : -(INT32_C(1) << 19);
                    *y++ = (int8_t)((sum + half) / (INT32_C(1) << 20));
                }
            }
        }
        x += p->height * row;
    }
}
