/* Copies a rectangle of (height, width, channels) from one image to another. */

typedef struct {
    int32_t rows, columns, channels;
    int32_t from_row, from_column, from_width, to_row, to_column, to_width;
} rectangle_layer;

static void rectangle(const rectangle_layer *p, const int8_t *x, int8_t *y)
{
    const int32_t count = p->columns * p->channels;
    x += (p->from_row * p->from_width + p->from_column) * p->channels;
    y += (p->to_row * p->to_width + p->to_column) * p->channels;
    for (int32_t row = 0; row < p->rows; row++) {
        copy_words(y, x, count);
        x += p->from_width * p->channels;
        y += p->to_width * p->channels;
    }
}
