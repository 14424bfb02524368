/* The taps of one row of a filter at a position: outside the input there are `before`, then `inside`
   ones from `row` on, then `after`. */

typedef struct {
    const int8_t *row;
    int32_t before, inside, after;
} window_row;

static inline window_row window_row_at(const int8_t *x, int32_t height, int32_t width,
                                       int32_t channels, int32_t iy, int32_t x0, int32_t taps)
{
    const int32_t beyond = x0 + taps - width;
    window_row found = {x, taps, 0, 0};
    if (iy >= 0 && iy < height && beyond < taps && x0 + taps > 0) {
        found.before = x0 < 0 ? -x0 : 0;
        found.after = beyond > 0 ? beyond : 0;
        found.inside = taps - found.before - found.after;
        found.row = x + (iy * width + x0 + found.before) * channels;
    }
    return found;
}

/* Whether all taps are inside; `rows` is the window's extent including what dilation leaves out. */
static inline int32_t window_is_inside(int32_t y0, int32_t x0, int32_t rows, int32_t taps,
                                       int32_t height, int32_t width)
{
    return y0 >= 0 && x0 >= 0 && y0 + rows <= height && x0 + taps <= width;
}
