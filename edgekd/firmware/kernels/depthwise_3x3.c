/* Depthwise convolution with a window of 3x3 and a stride of 1 or 2, one channel after the other.

   A channel is widened to 16 bits into a plane of its own, whose border is the input's zero point.
   Four outputs are computed at once, from pairs of neighbours. A word of the weights has the bytes
   (w0, w1, w1, w2) of one row, so that its even bytes are the pair (w0, w1) and the odd ones
   (w1, w2). The output may be the input: a channel is read before any of its outputs is written.
   The bias includes what the input's zero point adds. */

typedef struct {
    const int32_t *weights;
    const int32_t *bias;
    const int32_t *multiplier;
    const shift_type *shift;
    int32_t batches, input_height, input_width, channels, output_height, output_width;
    int32_t stride, pad_top, pad_left, plane_height, plane_width;
    int32_t input_zero, output_offset, low, high;
} depthwise_3x3_layer;

/* The part of a channel that the plane has room for, from `offset` on: values are `step` apart,
   `next_row` values are left out between two rows, and `gap` places in the plane. A row is one value
   if words begin behind it, fours, and what is left. */
typedef struct {
    int32_t rows, before, fours, after;
    int32_t offset, step, next_row, gap;
} depthwise_3x3_part;

static inline depthwise_3x3_part depthwise_3x3_part_of(const depthwise_3x3_layer *p)
{
    const int32_t below = p->plane_height - p->pad_top;
    const int32_t behind = p->plane_width - p->pad_left;
    const int32_t columns = p->input_width < behind ? p->input_width : behind;
    depthwise_3x3_part part;
    part.rows = p->input_height < below ? p->input_height : below;
    part.before = columns > 0 ? p->pad_left & 1 : 0;
    part.fours = (columns - part.before) / 4;
    part.after = columns - part.before - 4 * part.fours;
    part.offset = p->pad_top * p->plane_width + p->pad_left;
    part.step = p->channels;
    part.next_row = (p->input_width - columns) * p->channels;
    part.gap = p->plane_width - columns;
    return part;
}

static OWN_FUNCTION void depthwise_3x3_gather(const depthwise_3x3_part *part, const int8_t *x,
                                              int16_t *to)
{
    const int32_t step = part->step;
    to += part->offset;
    for (int32_t rows = part->rows; rows > 0; rows--) {
        if (part->before != 0) {
            *to++ = *x;
            x += step;
        }
        for (int32_t left = part->fours; left > 0; left--) {
            store_words(to, halves(x[0], x[step]), halves(x[2 * step], x[3 * step]));
            x += 4 * step;
            to += 4;
        }
        for (int32_t left = part->after; left > 0; left--) {
            *to++ = *x;
            x += step;
        }
        x += part->next_row;
        to += part->gap;
    }
}

/* A strip of four neighbouring outputs, or of two, in each row of one channel. The weights of a row
   are the pairs (w0, w1) and (w1, w2); they and the bias are doubled. Outputs are `step` apart, and
   the last one is written first and `last` behind the first one, so that it can be left out. `end`
   is where the inputs of the row behind the last begin, and `pitch` the bytes of a row. The
   assembly knows the places of all. */
typedef struct {
    int32_t w[6];
    int32_t bias, multiplier, rounding, shift;
    int32_t step, last, row;
    const int16_t *end;
    int32_t pitch;
} depthwise_3x3_strip;

#if defined(DSP_INSTRUCTIONS) && defined(__OPTIMIZE__)

#define DEPTHWISE_3X3_WEIGHTS(at) "ldrd %[w01], %[w12], [%[q], #" at "]\n\t"
#define DEPTHWISE_3X3_OUTPUT(sum, place)      \
    "smmlar %[x23], " sum ", %[w01], %[w12]\n\t" \
    "sub %[x23], %[x23], " sum ", lsr #31\n\t" \
    "asr %[x23], %[x23], %[x01]\n\t"          \
    "ssat %[x23], #8, %[x23]\n\t"             \
    place
#define DEPTHWISE_3X3_AT(place) "strb %[x23], [%[y]" place "]\n\t"
#define DEPTHWISE_3X3_LAST(sum) "ldr " sum ", [%[q], #44]\n\t" DEPTHWISE_3X3_AT(", " sum)

/* Multiplier and rounding take the place of the weights, the shift that of inputs. */
#define DEPTHWISE_3X3_TWO_OUTPUTS                                    \
    "ldrd %[w01], %[w12], [%[q], #28]\n\t"                                       \
    "ldr %[x01], [%[q], #36]\n\t"                                                \
    DEPTHWISE_3X3_OUTPUT("%[s1]", DEPTHWISE_3X3_LAST("%[s1]"))                   \
    DEPTHWISE_3X3_OUTPUT("%[s0]", DEPTHWISE_3X3_AT(""))
#define DEPTHWISE_3X3_FOUR_OUTPUTS                                               \
    "ldrd %[w01], %[w12], [%[q], #28]\n\t"                                       \
    "ldr %[x01], [%[q], #36]\n\t"                                                \
    DEPTHWISE_3X3_OUTPUT("%[s3]", DEPTHWISE_3X3_LAST("%[s3]"))                   \
    "ldr %[s3], [%[q], #40]\n\t"                                                 \
    DEPTHWISE_3X3_OUTPUT("%[s2]", DEPTHWISE_3X3_AT(", %[s3], lsl #1"))           \
    DEPTHWISE_3X3_OUTPUT("%[s1]", DEPTHWISE_3X3_AT(", %[s3]"))                   \
    DEPTHWISE_3X3_OUTPUT("%[s0]", DEPTHWISE_3X3_AT(""))
#define DEPTHWISE_3X3_NEXT               \
    "ldrd %[s0], %[s1], [%[q], #48]\n\t" \
    "add %[y], %[y], %[s0]\n\t"          \
    "cmp %[x], %[s1]\n\t"                \
    "bne 1b"

#define DEPTHWISE_3X3_TWO_SUMS                  \
    "smlad %[s0], %[x01], %[w01], %[s0]\n\t"    \
    "smlad %[s1], %[x23], %[w12], %[s1]\n\t"    \
    "smlabt %[s0], %[x23], %[w12], %[s0]\n\t"   \
    "smlabt %[s1], %[w01], %[x01], %[s1]\n\t"
#define DEPTHWISE_3X3_TWO(at)                   \
    "ldrd %[x01], %[x23], [%[x]]\n\t"           \
    "add %[x], %[x], %[pitch]\n\t"              \
    DEPTHWISE_3X3_WEIGHTS(at)                   \
    DEPTHWISE_3X3_TWO_SUMS
#define DEPTHWISE_3X3_FOUR(at)                  \
    "ldmia %[x], {%[x01], %[x23], %[x45]}\n\t"  \
    "add %[x], %[x], %[pitch]\n\t"              \
    DEPTHWISE_3X3_WEIGHTS(at)                   \
    DEPTHWISE_3X3_TWO_SUMS                      \
    "smlad %[s2], %[x23], %[w01], %[s2]\n\t"    \
    "smlad %[s3], %[x45], %[w12], %[s3]\n\t"    \
    "smlabt %[s2], %[x45], %[w12], %[s2]\n\t"   \
    "smlabt %[s3], %[w01], %[x23], %[s3]\n\t"
#define DEPTHWISE_3X3_TWO_APART(at)             \
    "ldrd %[x01], %[x23], [%[x]]\n\t"           \
    DEPTHWISE_3X3_WEIGHTS(at)                   \
    "smlad %[s0], %[x01], %[w01], %[s0]\n\t"    \
    "ldrsh %[x01], [%[x], #8]\n\t"              \
    "smlad %[s1], %[x23], %[w01], %[s1]\n\t"    \
    "smlabt %[s0], %[x23], %[w12], %[s0]\n\t"   \
    "smlabt %[s1], %[x01], %[w12], %[s1]\n\t"   \
    "ldr %[w01], [%[q], #56]\n\t"               \
    "add %[x], %[x], %[w01]\n\t"
#define DEPTHWISE_3X3_FOUR_APART(at)            \
    "ldmia %[x], {%[x01], %[x23], %[x45], %[x67]}\n\t" \
    DEPTHWISE_3X3_WEIGHTS(at)                   \
    "smlad %[s0], %[x01], %[w01], %[s0]\n\t"    \
    "ldrsh %[x01], [%[x], #16]\n\t"             \
    "smlad %[s1], %[x23], %[w01], %[s1]\n\t"    \
    "smlad %[s2], %[x45], %[w01], %[s2]\n\t"    \
    "smlad %[s3], %[x67], %[w01], %[s3]\n\t"    \
    "smlabt %[s0], %[x23], %[w12], %[s0]\n\t"   \
    "smlabt %[s1], %[x45], %[w12], %[s1]\n\t"   \
    "smlabt %[s2], %[x67], %[w12], %[s2]\n\t"   \
    "smlabt %[s3], %[x01], %[w12], %[s3]\n\t"   \
    "ldr %[w01], [%[q], #56]\n\t"               \
    "add %[x], %[x], %[w01]\n\t"
#define DEPTHWISE_3X3_ROWS(row) row("0") row("8") row("16")
#define DEPTHWISE_3X3_BIAS                                              \
    "1:\n\tldr %[s0], [%[q], #24]\n\tmov %[s1], %[s0]\n\t"
#define DEPTHWISE_3X3_BIASES DEPTHWISE_3X3_BIAS "mov %[s2], %[s0]\n\tmov %[s3], %[s0]\n\t"

static OWN_FUNCTION void depthwise_3x3_four(const depthwise_3x3_strip *q, const int16_t *x,
                                            int8_t *y, int32_t stride)
{
    register int32_t x01 __asm__("r2");
    register int32_t x23 __asm__("r3");
    register int32_t x45 __asm__("r4");
    register int32_t x67 __asm__("r5");
    int32_t w01;
    int32_t w12;
    int32_t s0;
    int32_t s1;
    int32_t s2;
    int32_t s3;
    if (stride == 1) {
        __asm__ volatile(DEPTHWISE_3X3_BIASES DEPTHWISE_3X3_ROWS(DEPTHWISE_3X3_FOUR)
                         "sub %[x], %[x], %[pitch], lsl #1\n\t"
                         DEPTHWISE_3X3_FOUR_OUTPUTS DEPTHWISE_3X3_NEXT
                         : [s0] "=&r"(s0), [s1] "=&r"(s1), [s2] "=&r"(s2), [s3] "=&r"(s3),
                           [x] "+r"(x), [y] "+r"(y), [x01] "=&r"(x01), [x23] "=&r"(x23),
                           [x45] "=&r"(x45), [w01] "=&r"(w01), [w12] "=&r"(w12)
                         : [q] "r"(q), [pitch] "r"(q->pitch)
                         : "memory", "cc");
    } else {
        __asm__ volatile(DEPTHWISE_3X3_BIASES DEPTHWISE_3X3_ROWS(DEPTHWISE_3X3_FOUR_APART)
                         "sub %[x], %[x], %[w01]\n\t"
                         DEPTHWISE_3X3_FOUR_OUTPUTS DEPTHWISE_3X3_NEXT
                         : [s0] "=&r"(s0), [s1] "=&r"(s1), [s2] "=&r"(s2), [s3] "=&r"(s3),
                           [x] "+r"(x), [y] "+r"(y), [x01] "=&r"(x01), [x23] "=&r"(x23),
                           [x45] "=&r"(x45), [x67] "=&r"(x67), [w01] "=&r"(w01), [w12] "=&r"(w12)
                         : [q] "r"(q)
                         : "memory", "cc");
    }
}

static OWN_FUNCTION void depthwise_3x3_two(const depthwise_3x3_strip *q, const int16_t *x,
                                           int8_t *y, int32_t stride)
{
    int32_t x01;
    int32_t x23;
    int32_t w01;
    int32_t w12;
    int32_t s0;
    int32_t s1;
    if (stride == 1) {
        __asm__ volatile(DEPTHWISE_3X3_BIAS DEPTHWISE_3X3_ROWS(DEPTHWISE_3X3_TWO)
                         "sub %[x], %[x], %[pitch], lsl #1\n\t"
                         DEPTHWISE_3X3_TWO_OUTPUTS DEPTHWISE_3X3_NEXT
                         : [s0] "=&r"(s0), [s1] "=&r"(s1), [x] "+r"(x), [y] "+r"(y),
                           [x01] "=&r"(x01), [x23] "=&r"(x23), [w01] "=&r"(w01), [w12] "=&r"(w12)
                         : [q] "r"(q), [pitch] "r"(q->pitch)
                         : "memory", "cc");
    } else {
        __asm__ volatile(DEPTHWISE_3X3_BIAS DEPTHWISE_3X3_ROWS(DEPTHWISE_3X3_TWO_APART)
                         "sub %[x], %[x], %[w01]\n\t"
                         DEPTHWISE_3X3_TWO_OUTPUTS DEPTHWISE_3X3_NEXT
                         : [s0] "=&r"(s0), [s1] "=&r"(s1), [x] "+r"(x), [y] "+r"(y),
                           [x01] "=&r"(x01), [x23] "=&r"(x23), [w01] "=&r"(w01), [w12] "=&r"(w12)
                         : [q] "r"(q)
                         : "memory", "cc");
    }
}

#else

/* One output of a row of the strip. */
static inline int8_t depthwise_3x3_output(const depthwise_3x3_strip *q, const int16_t *x)
{
    const fast_scale scale = {q->multiplier, q->shift, q->rounding};
    int32_t sum = q->bias;
    for (int32_t row = 0; row < 3; row++, x += q->pitch / 2) {
        sum += x[0] * (int16_t)q->w[2 * row] + x[1] * (int16_t)q->w[2 * row + 1]
            + x[2] * (q->w[2 * row + 1] >> 16);
    }
    return requantize_doubled(sum, scale);
}

static inline void depthwise_3x3_outputs(const depthwise_3x3_strip *q, const int16_t *x, int8_t *y,
                                         int32_t stride, int32_t count)
{
    for (; x != q->end; x += stride * q->pitch / 2, y += q->row) {
        y[q->last] = depthwise_3x3_output(q, x + (count - 1) * stride);
        for (int32_t i = 0; i < count - 1; i++) {
            y[i * q->step] = depthwise_3x3_output(q, x + i * stride);
        }
    }
}

static void depthwise_3x3_four(const depthwise_3x3_strip *q, const int16_t *x, int8_t *y,
                               int32_t stride)
{
    depthwise_3x3_outputs(q, x, y, stride, 4);
}

static void depthwise_3x3_two(const depthwise_3x3_strip *q, const int16_t *x, int8_t *y,
                              int32_t stride)
{
    depthwise_3x3_outputs(q, x, y, stride, 2);
}

#endif

/* All outputs of one channel, strip by strip. */
static OWN_FUNCTION void depthwise_3x3_channel(const depthwise_3x3_layer *p, depthwise_3x3_strip *q,
                                               const int16_t *plane, int32_t c, int8_t *y)
{
    const int32_t *packed = p->weights + 3 * c;
    const fast_scale scale = fast_scale_of(p->multiplier[c], p->shift[c], p->output_offset);
    const int32_t stride = p->stride;
    const int32_t rows = p->output_height * stride * p->plane_width;
    q->w[0] = doubled_halves(even_bytes(packed[0]));
    q->w[1] = doubled_halves(odd_bytes(packed[0]));
    q->w[2] = doubled_halves(even_bytes(packed[1]));
    q->w[3] = doubled_halves(odd_bytes(packed[1]));
    q->w[4] = doubled_halves(even_bytes(packed[2]));
    q->w[5] = doubled_halves(odd_bytes(packed[2]));
    q->bias = 2 * p->bias[c];
    q->multiplier = scale.multiplier;
    q->rounding = scale.rounding;
    q->shift = scale.shift;
    for (int32_t left = p->output_width; left > 0; left -= 4) {
        q->end = plane + rows;
        if (left > 2) {
            q->last = (left > 3 ? 3 : 2) * q->step;
            depthwise_3x3_four(q, plane, y, stride);
        } else {
            q->last = (left - 1) * q->step;
            depthwise_3x3_two(q, plane, y, stride);
        }
        plane += 4 * stride;
        y += 4 * q->step;
    }
}

static void depthwise_3x3(const depthwise_3x3_layer *p, const int8_t *x, int8_t *y, int8_t *scratch,
                          int32_t scratch_bytes)
{
    int16_t *plane = (int16_t *)(void *)scratch;
    const int32_t outputs = p->output_height * p->output_width * p->channels;
    const depthwise_3x3_part part = depthwise_3x3_part_of(p);
    depthwise_3x3_strip q;
    q.step = p->channels;
    q.row = p->output_width * p->channels;
    q.pitch = 2 * p->plane_width;
    for (int32_t i = 0; i < scratch_bytes / 2; i++) {
        plane[i] = (int16_t)p->input_zero;
    }
    for (int32_t batch = 0; batch < p->batches; batch++) {
        for (int32_t c = 0; c < p->channels; c++) {
            depthwise_3x3_gather(&part, x + c, plane);
            depthwise_3x3_channel(p, &q, plane, c, y + c);
        }
        clamp_all(y, outputs, p->low, p->high);
        x += p->input_height * p->input_width * p->channels;
        y += outputs;
    }
}
