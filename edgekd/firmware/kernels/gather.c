/* Rows of a table by index. An index outside the table reads its nearest row. */

typedef struct {
    const int8_t *table;
    int32_t rows, width, count;
} gather_layer;

static void gather(const gather_layer *p, const int8_t *x, int8_t *y)
{
    for (int32_t i = 0; i < p->count; i++) {
        int32_t row;
        memcpy(&row, x + i * 4, sizeof row);
        row = row < 0 ? 0 : row >= p->rows ? p->rows - 1 : row;
        memcpy(y + i * p->width, p->table + row * p->width, (size_t)p->width);
    }
}
