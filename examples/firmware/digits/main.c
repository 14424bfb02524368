/* Reads seven handwritten digits of the test set with the generated network, on any machine. */
#include "digits.h"

#include <stdio.h>

enum { PIXELS = 64, IMAGES = 7 };

/* Grey levels from 0 to 16, rows of eight: scikit-learn's digits, samples 1790 to 1796. */
static const unsigned char images[IMAGES][PIXELS] = {
    {0, 0, 5, 12, 8, 0, 1, 0, 0, 0, 11, 16, 5, 13, 6, 0, 0, 0, 2, 15, 16, 12, 1, 0, 0, 0, 0, 10, 16, 6, 0, 0,
     0, 0, 1, 15, 16, 7, 0, 0, 0, 0, 8, 16, 16, 11, 0, 0, 0, 0, 11, 16, 16, 9, 0, 0, 0, 0, 6, 12, 12, 3, 0, 0},
    {0, 0, 0, 3, 15, 4, 0, 0, 0, 0, 4, 16, 12, 0, 0, 0, 0, 0, 12, 15, 3, 4, 3, 0, 0, 7, 16, 5, 3, 15, 8, 0,
     0, 13, 16, 13, 15, 16, 2, 0, 0, 12, 16, 16, 16, 13, 0, 0, 0, 0, 4, 5, 16, 8, 0, 0, 0, 0, 0, 1, 16, 4, 0, 0},
    {0, 0, 4, 10, 13, 6, 0, 0, 0, 1, 16, 14, 12, 16, 3, 0, 0, 4, 16, 6, 3, 16, 4, 0, 0, 0, 12, 16, 16, 16, 5, 0,
     0, 0, 0, 4, 4, 16, 8, 0, 0, 0, 0, 0, 0, 15, 5, 0, 0, 0, 5, 7, 7, 16, 4, 0, 0, 0, 2, 14, 15, 9, 0, 0},
    {0, 0, 6, 16, 13, 11, 1, 0, 0, 0, 16, 15, 12, 16, 1, 0, 0, 3, 16, 7, 0, 13, 6, 0, 0, 4, 16, 0, 0, 10, 8, 0,
     0, 8, 16, 0, 0, 14, 6, 0, 0, 5, 16, 7, 9, 16, 5, 0, 0, 1, 15, 16, 16, 16, 1, 0, 0, 0, 6, 16, 14, 6, 0, 0},
    {0, 0, 1, 11, 15, 1, 0, 0, 0, 0, 13, 16, 8, 2, 1, 0, 0, 0, 16, 15, 10, 16, 5, 0, 0, 0, 8, 16, 16, 7, 0, 0,
     0, 0, 9, 16, 16, 4, 0, 0, 0, 0, 16, 14, 16, 15, 0, 0, 0, 0, 15, 15, 15, 16, 0, 0, 0, 0, 2, 9, 13, 6, 0, 0},
    {0, 0, 2, 10, 7, 0, 0, 0, 0, 0, 14, 16, 16, 15, 1, 0, 0, 4, 16, 7, 3, 16, 7, 0, 0, 5, 16, 10, 7, 16, 4, 0,
     0, 0, 5, 14, 14, 16, 4, 0, 0, 0, 0, 0, 0, 16, 2, 0, 0, 0, 4, 7, 7, 16, 2, 0, 0, 0, 5, 12, 16, 12, 0, 0},
    {0, 0, 10, 14, 8, 1, 0, 0, 0, 2, 16, 14, 6, 1, 0, 0, 0, 0, 15, 15, 8, 15, 0, 0, 0, 0, 5, 16, 16, 10, 0, 0,
     0, 0, 12, 15, 15, 12, 0, 0, 0, 4, 16, 6, 4, 16, 6, 0, 0, 8, 16, 10, 8, 16, 8, 0, 0, 1, 8, 12, 14, 12, 1, 0},
};
static const int answers[IMAGES] = {8, 4, 9, 0, 8, 9, 8};
static const char *const labels[DIGITS_LABEL_COUNT] = DIGITS_LABELS;

_Alignas(DIGITS_ARENA_ALIGNMENT) static int8_t arena[DIGITS_ARENA_BYTES];

/* A grey level on the input's own grid: round(level / 16 / scale) + zero point. */
static int8_t quantized(unsigned char level)
{
    int value = (int)((float)level / 16.0f / DIGITS_INPUT_SCALE + 0.5f) + DIGITS_INPUT_ZERO_POINT;
    return (int8_t)(value > 127 ? 127 : value);
}

static int read_digit(const unsigned char *image)
{
    int8_t *input = digits_input(arena);
    for (int i = 0; i < PIXELS; i++) input[i] = quantized(image[i]);
    digits_invoke(arena);
    const int8_t *output = digits_output(arena);
    int best = 0;
    for (int i = 1; i < DIGITS_LABEL_COUNT; i++) best = output[i] > output[best] ? i : best;
    return best;
}

int main(void)
{
    int right = 0;
    printf("%s %s, %.2f %% on the test set\n", DIGITS_NAME, DIGITS_VERSION, (double)DIGITS_ACCURACY_PERCENT);
    for (int i = 0; i < IMAGES; i++) {
        int digit = read_digit(images[i]);
        right += digit == answers[i];
        printf("image %d: %s\n", i, labels[digit]);
    }
    printf("%d of %d right, arena %d bytes\n", right, IMAGES, DIGITS_ARENA_BYTES);
    return right >= IMAGES - 1 ? 0 : 1;
}
