/* Vector table, start and semihosting of an emulated Cortex-M: everything between reset and main. */

#include <stdint.h>

#include "bare.h"

extern uint32_t stack_top[], data_from[], data_begin[], data_end[], bss_begin[], bss_end[];

static volatile uint32_t wraps;

int semihost(int operation, const void *argument)
{
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

void leave(int status)
{
    const uint32_t exited[2] = {0x20026U, (uint32_t)status}; /* ADP_Stopped_ApplicationExit */
    semihost(0x20, exited);
    for (;;) {
    }
}

static void fault(void)
{
    leave(99);
}

static void tick(void)
{
    wraps++;
}

#define SYSTICK_CONTROL (*(volatile uint32_t *)0xE000E010U)
#define SYSTICK_RELOAD (*(volatile uint32_t *)0xE000E014U)
#define SYSTICK_VALUE (*(volatile uint32_t *)0xE000E018U)
#define COPROCESSORS (*(volatile uint32_t *)0xE000ED88U)

uint64_t ticks(void)
{
    uint32_t before = 0;
    uint32_t value = 0;
    do {
        before = wraps;
        value = SYSTICK_VALUE;
    } while (before != wraps);
    return ((uint64_t)before << 24) + (0xFFFFFFU - value);
}

static void reset(void)
{
    uint32_t *from = data_from;
    for (uint32_t *to = data_begin; to < data_end; to++) {
        *to = *from++;
    }
    for (uint32_t *to = bss_begin; to < bss_end; to++) {
        *to = 0;
    }
    COPROCESSORS |= 0xFU << 20; /* the floating-point and vector registers */
    __asm__ volatile("dsb\n\tisb");
    SYSTICK_RELOAD = 0xFFFFFFU;
    SYSTICK_VALUE = 0;
    SYSTICK_CONTROL = 7U; /* the processor's clock, with an interrupt at each wrap */
    leave(main());
}

__attribute__((section(".vectors"), used)) static void (*const vectors[16])(void) = {
    (void (*)(void))(uintptr_t)stack_top, reset, fault, fault, fault, fault, fault, fault,
    fault, fault, fault, fault, fault, fault, fault, tick,
};
