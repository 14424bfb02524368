/* CMSIS-NN's depthwise convolution; plain C computes whatever its version does not support. */

typedef depthwise_conv_2d_layer depthwise_conv_2d_cmsis_layer;

static void depthwise_conv_2d_cmsis(const depthwise_conv_2d_cmsis_layer *p, const int8_t *x,
                                    int8_t *y, int8_t *scratch, int32_t scratch_bytes)
{
    const cmsis_nn_dw_conv_params conv = {
        .input_offset = p->input_offset,
        .output_offset = p->output_offset,
        .ch_mult = p->depth,
        .stride = {.w = p->stride_x, .h = p->stride_y},
        .padding = {.w = p->pad_left, .h = p->pad_top},
        .dilation = {.w = p->dilation_x, .h = p->dilation_y},
        .activation = {.min = p->low, .max = p->high},
    };
    const cmsis_nn_dims input = {
        .n = p->batches, .h = p->input_height, .w = p->input_width, .c = p->input_channels};
    const cmsis_nn_dims filter = {
        .n = 1, .h = p->filter_height, .w = p->filter_width, .c = p->output_channels};
    const cmsis_nn_dims bias = {.n = 1, .h = 1, .w = 1, .c = p->output_channels};
    const cmsis_nn_dims output = {
        .n = p->batches, .h = p->output_height, .w = p->output_width, .c = p->output_channels};
    const cmsis_nn_per_channel_quant_params scales = {
        .multiplier = (int32_t *)(uintptr_t)p->multiplier, .shift = (int32_t *)(uintptr_t)p->shift};
    const cmsis_nn_context context = {.buf = scratch, .size = scratch_bytes};
    if (arm_depthwise_conv_wrapper_s8_get_buffer_size(&conv, &input, &filter, &output)
            <= scratch_bytes
        && arm_depthwise_conv_wrapper_s8(&context, &conv, &scales, &input, x, &filter, p->weights,
                                         &bias, p->bias, &output, y)
            == ARM_CMSIS_NN_SUCCESS) {
        return;
    }
    depthwise_conv_2d(p, x, y);
}
