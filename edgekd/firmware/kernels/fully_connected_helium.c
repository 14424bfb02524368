/* One row of inputs times weights (outputs, inputs), four outputs at once, in vectors of 16 values. */

typedef struct {
    const int8_t *weights;
    const int32_t *bias;
    const int32_t *multiplier;
    const shift_type *shift;
    int32_t inputs, outputs, output_offset, low, high;
} fully_connected_helium_layer;

static void fully_connected_helium(const fully_connected_helium_layer *p, const int8_t *x,
                                   int8_t *y)
{
    for (int32_t c = 0; c < p->outputs; c += 4) {
        const int32_t left = p->outputs - c;
        const int8_t *w = p->weights + c * p->inputs;
        const int8_t *rows[4];
        int32_t sums[4];
        for (int32_t i = 0; i < 4; i++) {
            rows[i] = w + (i < left ? i : left - 1) * p->inputs;
        }
        dot_by_4(x, rows, p->inputs, sums, 1);
        const scales_4 scales
            = scales_4_at(p->bias + c, p->multiplier + c, p->shift + c, p->output_offset);
        requantize_4(&scales, sums, left, y + c);
    }
    clamp_all(y, p->outputs, p->low, p->high);
}
