/* A 16550A UART, output only; see uart.h. Registers: National Semiconductor PC16550D data sheet. */
#include "vmm/uart.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define THR_RBR_DLL 0
#define IER_DLM 1
#define IIR_FCR 2
#define LCR 3
#define MCR 4
#define LSR 5
#define MSR 6
#define SCR 7

#define IER_THR_EMPTY 0x02
#define IIR_NONE 0x01
#define IIR_THR_EMPTY 0x02
#define IIR_FIFO 0xc0
#define FCR_ENABLE 0x01
#define LCR_DLAB 0x80
#define MCR_LOOPBACK 0x10
#define LSR_THR_EMPTY 0x60 /* holding and shift register */
#define MSR_READY 0xb0     /* DCD, DSR, CTS */

void uart_init(struct uart *uart, int echo_fd, void (*interrupt)(void *data), void *data)
{
	memset(uart, 0, sizeof(*uart));
	pthread_mutex_init(&uart->lock, NULL);
	uart->echo_fd = echo_fd;
	uart->interrupt = interrupt;
	uart->data = data;
	uart->dll = 1; /* 115200 baud */
}

/*
 * A console that cannot be written to does not stop the guest; one that is only full loses what it cannot take, or, where writing waits,
 * makes this vCPU wait. Without the lock: others are not to wait for its reader.
 */
static void echo(struct uart *uart, int fd, uint8_t byte)
{
	if (write(fd, &byte, 1) >= 0 || errno == EAGAIN || errno == EINTR)
		return;
	pthread_mutex_lock(&uart->lock);
	uart->echo_fd = -1;
	pthread_mutex_unlock(&uart->lock);
}

/* A byte is sent at once, so the holding register is empty again. */
static void transmit(struct uart *uart, uint8_t byte)
{
	uart->tail[uart->written++ % UART_TAIL_BYTES] = byte;
	uart->thr_empty_pending = true;
	if (uart->ier & IER_THR_EMPTY)
		uart->interrupt(uart->data);
}

static uint8_t identify_interrupt(struct uart *uart)
{
	uint8_t iir = IIR_NONE;
	if (uart->thr_empty_pending && (uart->ier & IER_THR_EMPTY)) {
		iir = IIR_THR_EMPTY;
		uart->thr_empty_pending = false;
	}
	return uart->fifo ? iir | IIR_FIFO : iir;
}

/* In loopback the modem outputs come back as inputs, which is how drivers probe for the chip. */
static uint8_t modem_status(const struct uart *uart)
{
	if (!(uart->mcr & MCR_LOOPBACK))
		return MSR_READY;
	const uint8_t mcr = uart->mcr;
	return (uint8_t)((mcr & 0x0c) << 4 | (mcr & 0x02) << 3 | (mcr & 0x01) << 5);
}

uint8_t uart_read(struct uart *uart, unsigned port_offset)
{
	uint8_t value = 0;

	pthread_mutex_lock(&uart->lock);
	const bool dlab = uart->lcr & LCR_DLAB;
	switch (port_offset) {
	case THR_RBR_DLL:
		value = dlab ? uart->dll : 0;
		break;
	case IER_DLM:
		value = dlab ? uart->dlm : uart->ier;
		break;
	case IIR_FCR:
		value = identify_interrupt(uart);
		break;
	case LCR:
		value = uart->lcr;
		break;
	case MCR:
		value = uart->mcr;
		break;
	case LSR:
		value = LSR_THR_EMPTY;
		break;
	case MSR:
		value = modem_status(uart);
		break;
	case SCR:
		value = uart->scr;
		break;
	}
	pthread_mutex_unlock(&uart->lock);
	return value;
}

void uart_write(struct uart *uart, unsigned port_offset, uint8_t value)
{
	int echo_fd = -1;

	pthread_mutex_lock(&uart->lock);
	const bool dlab = uart->lcr & LCR_DLAB;
	switch (port_offset) {
	case THR_RBR_DLL:
		if (dlab) {
			uart->dll = value;
		} else if (!(uart->mcr & MCR_LOOPBACK)) {
			transmit(uart, value);
			echo_fd = uart->echo_fd;
		}
		break;
	case IER_DLM:
		if (dlab) {
			uart->dlm = value;
			break;
		}
		/* Enabling the interrupt while the register is empty raises it. */
		if ((value & ~uart->ier) & IER_THR_EMPTY) {
			uart->thr_empty_pending = true;
			uart->interrupt(uart->data);
		}
		uart->ier = value & 0x0f;
		break;
	case IIR_FCR:
		uart->fifo = value & FCR_ENABLE;
		break;
	case LCR:
		uart->lcr = value;
		break;
	case MCR:
		uart->mcr = value & 0x1f;
		break;
	case SCR:
		uart->scr = value;
		break;
	}
	pthread_mutex_unlock(&uart->lock);
	if (echo_fd >= 0)
		echo(uart, echo_fd, value);
}

size_t uart_tail(struct uart *uart, unsigned lines, char *out, size_t out_size)
{
	size_t used = 0;

	pthread_mutex_lock(&uart->lock);
	const uint64_t kept = uart->written < UART_TAIL_BYTES ? uart->written : UART_TAIL_BYTES;
	uint64_t start = uart->written - kept;
	/* Back over `lines` line ends; the one that closes the output does not count. */
	unsigned seen = 0;
	for (uint64_t at = uart->written; at > start; at--) {
		if (uart->tail[(at - 1) % UART_TAIL_BYTES] != '\n' || at == uart->written)
			continue;
		if (++seen == lines) {
			start = at;
			break;
		}
	}
	if (lines == 0)
		start = uart->written;
	/* Where not all has room, it is the end that counts. */
	if (uart->written - start > out_size - 1)
		start = uart->written - (out_size - 1);
	for (uint64_t at = start; at < uart->written; at++) {
		const uint8_t byte = uart->tail[at % UART_TAIL_BYTES];
		if (byte == '\r')
			continue;
		out[used++] = byte == '\n' || (byte >= 0x20 && byte < 0x7f) ? (char)byte : '.';
	}
	pthread_mutex_unlock(&uart->lock);
	out[used] = '\0';
	return used;
}
