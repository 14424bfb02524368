/* y[b] = a[b] x c[b] for matrices (rows, depth) and (depth, columns), each with its own strides, so
   that a transposed or a repeated one is read in place. */

typedef struct {
    int32_t batches, rows, columns, depth;
    int32_t a_batch, a_row, a_step, c_batch, c_column, c_step;
    int32_t a_offset, c_offset, multiplier, shift, output_offset;
} batch_matmul_layer;

static void batch_matmul(
    const batch_matmul_layer *p, const int8_t *a, const int8_t *c, int8_t *y)
{
    for (int32_t batch = 0; batch < p->batches; batch++) {
        for (int32_t row = 0; row < p->rows; row++) {
            for (int32_t column = 0; column < p->columns; column++) {
                const int8_t *left = a + batch * p->a_batch + row * p->a_row;
                const int8_t *right = c + batch * p->c_batch + column * p->c_column;
                int32_t sum = 0;
                for (int32_t i = 0; i < p->depth; i++) {
                    sum += (left[i * p->a_step] + p->a_offset) * (right[i * p->c_step] + p->c_offset);
                }
                *y++ = clamp_int8(
                    rescale(sum, p->multiplier, p->shift) + p->output_offset, -128, 127);
            }
        }
    }
}
