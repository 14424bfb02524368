// TensorFlow Lite Micro in place of generated C: the same files as run.c of edgekd's emulated boards,
// but `stack` gets the bytes of the arena that the interpreter uses.

#include <cstddef>
#include <cstdint>

#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"

extern "C" {
int semihost(int operation, const void *argument);
uint64_t ticks(void);
int main(void);
extern const unsigned char model_file[];

// What the runtime asks of a platform.
void DebugLog(const char *, va_list) {}
int DebugVsnprintf(char *, size_t, const char *, va_list) { return 0; }
void _exit(int) { for (;;) {} }
int _kill(int, int) { return -1; }
int _getpid(void) { return 1; }
void *_sbrk(ptrdiff_t) { return nullptr; }
}

namespace {

alignas(16) uint8_t arena[160 << 10];

int open_file(const char *name, uint32_t mode, uint32_t length)
{
    const uint32_t request[3] = {(uint32_t)(uintptr_t)name, mode, length};
    return semihost(0x01, request);
}

int move(int operation, int file, void *bytes, size_t count)
{
    const uint32_t request[3] = {(uint32_t)file, (uint32_t)(uintptr_t)bytes, (uint32_t)count};
    return semihost(operation, request);
}

}  // namespace

int main(void)
{
    const int inputs = open_file("inputs", 1, 6);
    const int outputs = open_file("outputs", 5, 7);
    const int times = open_file("ticks", 5, 5);
    const int used = open_file("stack", 5, 5);
    tflite::MicroMutableOpResolver<10> resolver;
    resolver.AddAdd();
    resolver.AddAveragePool2D();
    resolver.AddConv2D();
    resolver.AddDepthwiseConv2D();
    resolver.AddFullyConnected();
    resolver.AddMaxPool2D();
    resolver.AddMean();
    resolver.AddPad();
    resolver.AddReshape();
    resolver.AddSoftmax();
    tflite::MicroInterpreter interpreter(tflite::GetModel(model_file), resolver, arena,
                                         sizeof arena);
    if (interpreter.AllocateTensors() != kTfLiteOk) {
        return 4;
    }
    uint32_t bytes = (uint32_t)interpreter.arena_used_bytes();
    while (move(0x06, inputs, interpreter.input(0)->data.raw, interpreter.input(0)->bytes) == 0) {
        const uint64_t before = ticks();
        const TfLiteStatus status = interpreter.Invoke();
        uint64_t passed = ticks() - before;
        if (status != kTfLiteOk
            || move(0x05, outputs, interpreter.output(0)->data.raw, interpreter.output(0)->bytes)
            || move(0x05, times, &passed, sizeof passed)) {
            return 3;
        }
    }
    return move(0x05, used, &bytes, sizeof bytes);
}
