/* Moves elements from one set of strides to another, over up to eight dimensions; outermost
   first. `fill` says whether the whole output is first set to `value`. */

typedef struct {
    int32_t shape[8], from_stride[8], to_stride[8];
    int32_t from, to, fill, value, output_size;
} copy_layer;

static void copy(const copy_layer *p, const int8_t *x, int8_t *y)
{
    int32_t index[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    int32_t from = p->from;
    int32_t to = p->to;
    int32_t dimension = 0;
    if (p->fill != 0) {
        memset(y, p->value, (size_t)p->output_size);
    }
    while (dimension >= 0) {
        for (int32_t i = 0; i < p->shape[7]; i++) {
            y[to + i * p->to_stride[7]] = x[from + i * p->from_stride[7]];
        }
        for (dimension = 6; dimension >= 0; dimension--) {
            from += p->from_stride[dimension];
            to += p->to_stride[dimension];
            index[dimension]++;
            if (index[dimension] < p->shape[dimension]) {
                break;
            }
            from -= p->shape[dimension] * p->from_stride[dimension];
            to -= p->shape[dimension] * p->to_stride[dimension];
            index[dimension] = 0;
        }
    }
}
