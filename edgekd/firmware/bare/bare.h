/* The services of the emulated board. */

#ifndef BARE_H
#define BARE_H

#include <stdint.h>

/* One request to the emulator: Arm's "Semihosting for AArch32 and AArch64". */
int semihost(int operation, const void *argument);

/* Ends the emulation with that exit status. */
_Noreturn void leave(int status);

/* Ticks of the processor's clock since reset. */
uint64_t ticks(void);

int main(void);

#endif
