/* Copies a rectangle into an image that is one value everywhere else. */

typedef struct {
    rectangle_layer copied;
    int32_t to_height, value;
} pad_rectangle_layer;

static void pad_rectangle(const pad_rectangle_layer *p, const int8_t *x, int8_t *y)
{
    memset(y, p->value, (size_t)(p->to_height * p->copied.to_width * p->copied.channels));
    rectangle(&p->copied, x, y);
}
