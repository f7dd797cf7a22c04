/* Does nothing but burn its processor, with interrupts masked: whoever wants to end it can ask nothing of it. */
#include "tests/guests/guest.h"

void guest_main(void)
{
	__asm__ volatile("cli");
	for (;;)
		pause();
}
