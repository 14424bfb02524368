/* A table of 256 values for each channel of (outer, channels, inner). */

typedef struct {
    const int8_t *table;
    int32_t outer, channels, inner;
} lookup_channels_layer;

static void lookup_channels(const lookup_channels_layer *p, const int8_t *x, int8_t *y)
{
    for (int32_t outer = 0; outer < p->outer; outer++) {
        const int8_t *table = p->table + 128;
        for (int32_t channel = 0; channel < p->channels; channel++) {
            for (int32_t i = 0; i < p->inner; i++) {
                *y++ = table[*x++];
            }
            table += 256;
        }
    }
}
