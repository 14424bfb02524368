/* Reads inputs from the file `inputs` until it ends, writes outputs to the file `outputs`, the
   ticks of each inference to the file `ticks`, 64 bits each, and to `stack` the number of bytes of
   stack that the inferences used: those no longer painted. With CALLS, the model reports the end of
   each kernel call, and the ticks before it, of all its repetitions in patches, are written to the
   file `calls`. */

#include <stdint.h>

#include MODEL_HEADER
#include "bare.h"

_Alignas(ARENA_ALIGNMENT) static int8_t arena[ARENA_BYTES];

static int open_file(const char *name, uint32_t mode, uint32_t length)
{
    const uint32_t request[3] = {(uint32_t)(uintptr_t)name, mode, length};
    return semihost(0x01, request);
}

/* 0 if all bytes were transferred. */
static int move(int operation, int file, void *bytes, uint32_t count)
{
    const uint32_t request[3] = {(uint32_t)file, (uint32_t)(uintptr_t)bytes, count};
    return semihost(operation, request);
}

extern uint32_t bss_end[], stack_top[];

#define PAINT 0x5AFE5AFEU

/* The words between the last variable and this function's own frame. */
static uint32_t *unused_end(void)
{
    return (uint32_t *)__builtin_frame_address(0) - 32;
}

static void paint(void)
{
    for (volatile uint32_t *word = bss_end; word < unused_end(); word++) {
        *word = PAINT;
    }
}

static uint32_t stack_bytes(void)
{
    const volatile uint32_t *word = bss_end;
    while (word < stack_top && *word == PAINT) {
        word++;
    }
    return (uint32_t)((uintptr_t)stack_top - (uintptr_t)word);
}

static const uint32_t input_offsets[] = INPUT_OFFSETS, input_sizes[] = INPUT_SIZES;
static const uint32_t output_offsets[] = OUTPUT_OFFSETS, output_sizes[] = OUTPUT_SIZES;

/* 0 if all of the tensors were read or written, in order. */
static int move_all(int operation, int file, int count, const uint32_t *offsets,
                    const uint32_t *sizes)
{
    for (int i = 0; i < count; i++) {
        if (move(operation, file, arena + offsets[i], sizes[i]) != 0) {
            return 1;
        }
    }
    return 0;
}

#ifdef CALLS
static uint64_t call_ticks[CALLS], last_ticks;

void edgekd_called(int call)
{
    const uint64_t now = ticks();
    call_ticks[call] += now - last_ticks;
    last_ticks = ticks();
}
#endif

int main(void)
{
    const int inputs = open_file("inputs", 1, 6);
    const int outputs = open_file("outputs", 5, 7);
    const int times = open_file("ticks", 5, 5);
    const int stack = open_file("stack", 5, 5);
#ifdef CALLS
    const int calls = open_file("calls", 5, 5);
    if (calls < 0) {
        return 2;
    }
#endif
    if (inputs < 0 || outputs < 0 || times < 0 || stack < 0) {
        return 2;
    }
    paint();
    while (move_all(0x06, inputs, INPUT_COUNT, input_offsets, input_sizes) == 0) {
#ifdef CALLS
        for (int call = 0; call < CALLS; call++) {
            call_ticks[call] = 0;
        }
#endif
        const uint64_t before = ticks();
#ifdef CALLS
        last_ticks = before;
#endif
        MODEL_INVOKE(arena);
        uint64_t passed = ticks() - before;
        if (move_all(0x05, outputs, OUTPUT_COUNT, output_offsets, output_sizes) != 0
            || move(0x05, times, &passed, sizeof passed) != 0) {
            return 3;
        }
#ifdef CALLS
        if (move(0x05, calls, call_ticks, sizeof call_ticks) != 0) {
            return 3;
        }
#endif
    }
    uint32_t used = stack_bytes();
    return move(0x05, stack, &used, sizeof used);
}
