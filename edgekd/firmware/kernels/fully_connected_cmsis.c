/* A fully connected layer as CMSIS-NN's 1x1 convolution, which has a multiplier for each output in
   every version; plain C computes whatever it does not support. */

typedef fully_connected_layer fully_connected_cmsis_layer;

static void fully_connected_cmsis(const fully_connected_cmsis_layer *p, const int8_t *x, int8_t *y,
                                  int8_t *scratch, int32_t scratch_bytes)
{
    const cmsis_nn_conv_params conv = {
        .input_offset = p->input_offset,
        .output_offset = p->output_offset,
        .stride = {.w = 1, .h = 1},
        .padding = {.w = 0, .h = 0},
        .dilation = {.w = 1, .h = 1},
        .activation = {.min = p->low, .max = p->high},
    };
    const cmsis_nn_dims input = {.n = 1, .h = 1, .w = p->rows, .c = p->inputs};
    const cmsis_nn_dims filter = {.n = p->outputs, .h = 1, .w = 1, .c = p->inputs};
    const cmsis_nn_dims bias = {.n = 1, .h = 1, .w = 1, .c = p->outputs};
    const cmsis_nn_dims output = {.n = 1, .h = 1, .w = p->rows, .c = p->outputs};
    const cmsis_nn_per_channel_quant_params scales = {
        .multiplier = (int32_t *)(uintptr_t)p->multiplier, .shift = (int32_t *)(uintptr_t)p->shift};
    const cmsis_nn_context context = {.buf = scratch, .size = scratch_bytes};
    if (arm_convolve_wrapper_s8_get_buffer_size(&conv, &input, &filter, &output) <= scratch_bytes
        && arm_convolve_wrapper_s8(&context, &conv, &scales, &input, x, &filter, p->weights, &bias,
                                   p->bias, &output, y)
            == ARM_CMSIS_NN_SUCCESS) {
        return;
    }
    fully_connected(p, x, y);
}
