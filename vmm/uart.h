/*
 * A 16550A UART at COM1, output only: the guest's console, and its last words when it dies.
 *
 * What the guest writes goes to a sink and to a ring that keeps the end of it. There is no input. Called on vCPU threads.
 */
#ifndef TRVMM_VMM_UART_H
#define TRVMM_VMM_UART_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UART_PORT 0x3f8
#define UART_PORTS 8
#define UART_TAIL_BYTES 4096

struct uart {
	pthread_mutex_t lock;
	int echo_fd;     /* borrowed; output is copied there as it comes; -1: nowhere */
	/* Raises the interrupt line once (edge). */
	void (*interrupt)(void *data);
	void *data;
	uint8_t ier, lcr, mcr, scr, dll, dlm;
	bool fifo, thr_empty_pending;
	uint8_t tail[UART_TAIL_BYTES]; /* ring of the last output */
	uint64_t written;              /* bytes in all; the next goes to tail[written % UART_TAIL_BYTES] */
};

void uart_init(struct uart *uart, int echo_fd, void (*interrupt)(void *data), void *data);
uint8_t uart_read(struct uart *uart, unsigned port_offset);
void uart_write(struct uart *uart, unsigned port_offset, uint8_t value);

/*
 * Copies the last output, at most `lines` lines, to `out` (terminated, unprintable bytes but newline replaced by '.', carriage returns
 * dropped; of what has no room, the beginning is left out). Returns its length. `out_size` is at least 1.
 */
size_t uart_tail(struct uart *uart, unsigned lines, char *out, size_t out_size);

#endif
