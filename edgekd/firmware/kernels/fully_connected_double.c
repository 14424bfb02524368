/* Rows (rows, inputs) times weights (outputs, inputs), rescaled in double precision: what LiteRT's
   reference kernel does since 2.x. `step` is 1 if each output has a scale of its own. */

typedef struct {
    const int8_t *weights;
    const int32_t *bias;
    const double *scale;
    int32_t rows, inputs, outputs, step;
    int32_t input_offset, output_offset, low, high;
} fully_connected_double_layer;

/* Halves away from zero; a 32-bit sum times a scale stays within the range of int32. */
static inline int32_t round_double(double value)
{
    const int32_t whole = (int32_t)value;
    const double rest = value - (double)whole;
    return whole + (rest >= 0.5 ? 1 : 0) - (rest <= -0.5 ? 1 : 0);
}

static void fully_connected_double(const fully_connected_double_layer *p, const int8_t *x,
                                   int8_t *y)
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
                const double value = (double)sums[i] * p->scale[output * p->step];
                const double bounded = value < -1e6 ? -1e6 : (value > 1e6 ? 1e6 : value);
                const int32_t rounded = round_double(bounded);
                *y++ = clamp_int8(rounded + p->output_offset, p->low, p->high);
            }
        }
        x += p->inputs;
    }
}
