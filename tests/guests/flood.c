/*
 * Floods its machine with interrupts masked: notifications of every device, the console, and reads of registers, without an end. Whoever
 * wants to end it has to get a word in.
 */
#include "tests/guests/guest.h"

#define DEVICES 2
#define MMIO 0xd0000000ull
#define MMIO_BYTES 0x1000ull
#define COM1 0x3f8

void guest_main(void)
{
	__asm__ volatile("cli");
	for (;;) {
		for (unsigned device = 0; device < DEVICES; device++) {
			volatile uint32_t *registers = (volatile uint32_t *)(uintptr_t)(MMIO + device * MMIO_BYTES);
			for (uint32_t queue = 0; queue < 3; queue++)
				registers[VIRTIO_MMIO_QUEUE_NOTIFY / sizeof(uint32_t)] = queue;
			(void)registers[VIRTIO_MMIO_STATUS / sizeof(uint32_t)];
			registers[VIRTIO_MMIO_STATUS / sizeof(uint32_t)] = 0; /* resets */
		}
		outb(COM1, 'x');
	}
}
