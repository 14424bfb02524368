/* Rows (rows, inputs) times weights (outputs, inputs). `step` is 1 if each output has a multiplier
   of its own, and 0 if all share one. */

typedef struct {
    const int8_t *weights;
    const int32_t *bias;
    const int32_t *multiplier;
    const shift_type *shift;
    int32_t rows, inputs, outputs, step;
    int32_t input_offset, output_offset, low, high;
} fully_connected_layer;

static void fully_connected(const fully_connected_layer *p, const int8_t *x, int8_t *y)
{
    for (int32_t row = 0; row < p->rows; row++) {
        for (int32_t output = 0; output < p->outputs;) {
            const int32_t left = p->outputs - output;
            const int32_t count = left < 4 ? left : 4;
            const int8_t *weights = p->weights + output * p->inputs;
            int32_t sums[4];
            for (int32_t i = 0; i < 4; i++) {
                sums[i] = p->bias[output + (i < count ? i : count - 1)];
            }
            dot_4(x, p->input_offset, weights, p->inputs, count - 1, p->inputs, sums);
            for (int32_t i = 0; i < count; i++, output++) {
                const int32_t c = output * p->step;
                const int32_t value = rescale(sums[i], p->multiplier[c], p->shift[c]);
                *y++ = clamp_int8(value + p->output_offset, p->low, p->high);
            }
        }
        x += p->inputs;
    }
}
