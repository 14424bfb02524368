/* A part of an image that is enlarged by whole factors: each pixel is repeated. `from_row` and
   `from_column` are the place in the enlarged image of what `x` holds where the part begins. */

typedef struct {
    int32_t rows, columns, channels, up, right;
    int32_t from_row, from_column, from_width;
} nearest_rectangle_layer;

static void nearest_rectangle(const nearest_rectangle_layer *p, const int8_t *x, int8_t *y)
{
    for (int32_t row = 0; row < p->rows; row++) {
        const int8_t *from = x + (p->from_row + row) / p->up * p->from_width * p->channels;
        for (int32_t column = 0; column < p->columns; column++, y += p->channels) {
            copy_words(y, from + (p->from_column + column) / p->right * p->channels, p->channels);
        }
    }
}
