/* vmm/uart: what Linux's 8250 driver asks of the chip, and the tail of the console. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "tests/unit/fake_driver.h"
#include "vmm/uart.h"

#define THR 0
#define IER 1
#define IIR 2
#define FCR 2
#define LCR 3
#define MCR 4
#define LSR 5
#define MSR 6
#define SCR 7

static struct uart uart;
static unsigned interrupts;

static void count_interrupt(void *data)
{
	(*(unsigned *)data)++;
}

static void start(void)
{
	uart_init(&uart, -1, count_interrupt, &interrupts);
}

TestSuite(uart, .init = start);

static void send(const char *text)
{
	for (; *text; text++)
		uart_write(&uart, THR, (uint8_t)*text);
}

static void expect_tail(unsigned lines, const char *want)
{
	char out[UART_TAIL_BYTES + 1];
	cr_assert_eq(uart_tail(&uart, lines, out, sizeof(out)), strlen(want));
	cr_assert_str_eq(out, want);
}

Test(uart, registers_keep_what_is_written)
{
	uart_write(&uart, SCR, 0xa5);
	uart_write(&uart, LCR, 0x1b);
	uart_write(&uart, MCR, 0xff);
	uart_write(&uart, IER, 0xff);
	cr_assert_eq(uart_read(&uart, SCR), 0xa5);
	cr_assert_eq(uart_read(&uart, LCR), 0x1b);
	cr_assert_eq(uart_read(&uart, MCR), 0x1f); /* the upper bits read as 0 */
	cr_assert_eq(uart_read(&uart, IER), 0x0f);
}

Test(uart, divisor_lies_behind_the_latch_bit)
{
	uart_write(&uart, LCR, 0x80);
	cr_assert(uart_read(&uart, 0) == 1 && uart_read(&uart, 1) == 0);
	uart_write(&uart, 0, 0x34);
	uart_write(&uart, 1, 0x12);
	cr_assert(uart_read(&uart, 0) == 0x34 && uart_read(&uart, 1) == 0x12);
	uart_write(&uart, LCR, 0x03);
	cr_assert(uart_read(&uart, 0) == 0 && uart_read(&uart, 1) == 0);
	expect_tail(9, "");
	cr_assert_eq(interrupts, 0);
}

Test(uart, line_is_always_ready_and_never_has_input)
{
	cr_assert_eq(uart_read(&uart, LSR), 0x60);
	send("abc");
	cr_assert_eq(uart_read(&uart, LSR), 0x60);
	cr_assert_eq(uart_read(&uart, THR), 0);
}

Test(uart, modem_is_ready)
{
	cr_assert_eq(uart_read(&uart, MSR), 0xb0);
}

/* PC16550D, 8.6.7: DTR to DSR, RTS to CTS, OUT1 to RI, OUT2 to DCD. */
Test(uart, loopback_returns_the_modem_outputs)
{
	static const uint8_t pairs[][2] = { { 0x01, 0x20 }, { 0x02, 0x10 }, { 0x04, 0x40 },
					    { 0x08, 0x80 }, { 0x0a, 0x90 }, { 0x0f, 0xf0 } };
	for (unsigned i = 0; i < 6; i++) {
		uart_write(&uart, MCR, 0x10 | pairs[i][0]);
		cr_assert_eq(uart_read(&uart, MSR), pairs[i][1]);
	}
	uart_write(&uart, MCR, 0x08);
	cr_assert_eq(uart_read(&uart, MSR), 0xb0);
}

Test(uart, loopback_sends_nothing)
{
	uart_write(&uart, MCR, 0x10);
	send("probe");
	uart_write(&uart, MCR, 0);
	send("out");
	expect_tail(9, "out");
}

Test(uart, fifo_shows_in_the_interrupt_identification)
{
	cr_assert_eq(uart_read(&uart, IIR), 0x01);
	uart_write(&uart, FCR, 0x07);
	cr_assert_eq(uart_read(&uart, IIR), 0xc1);
	uart_write(&uart, FCR, 0);
	cr_assert_eq(uart_read(&uart, IIR), 0x01);
}

Test(uart, no_interrupt_while_disabled)
{
	send("abc");
	cr_assert_eq(interrupts, 0);
	cr_assert_eq(uart_read(&uart, IIR), 0x01);
	uart_write(&uart, IER, 0x0d); /* all but THR empty */
	send("abc");
	cr_assert_eq(interrupts, 0);
}

Test(uart, enabling_the_transmit_interrupt_raises_it)
{
	uart_write(&uart, IER, 0x02);
	cr_assert_eq(interrupts, 1);
	cr_assert_eq(uart_read(&uart, IIR), 0x02);
	cr_assert_eq(uart_read(&uart, IIR), 0x01); /* reading it took it back */
	/* Setting it again is no news. */
	uart_write(&uart, IER, 0x02);
	cr_assert_eq(interrupts, 1);
	uart_write(&uart, IER, 0);
	uart_write(&uart, IER, 0x02);
	cr_assert_eq(interrupts, 2);
}

Test(uart, each_byte_sent_raises_the_transmit_interrupt)
{
	uart_write(&uart, IER, 0x02);
	(void)uart_read(&uart, IIR);
	send("ab");
	cr_assert_eq(interrupts, 3);
	cr_assert_eq(uart_read(&uart, IIR), 0x02);
}

Test(uart, ports_beyond_the_chip_do_nothing)
{
	for (unsigned port = UART_PORTS; port < 300; port++) {
		uart_write(&uart, port, 0xff);
		cr_assert_eq(uart_read(&uart, port), 0);
	}
	cr_assert_eq(uart_read(&uart, LSR), 0x60);
	uart_write(&uart, LSR, 0xff);
	uart_write(&uart, MSR, 0xff);
	cr_assert(uart_read(&uart, LSR) == 0x60 && uart_read(&uart, MSR) == 0xb0);
}

/* ---- the echo --------------------------------------------------------------------------------------------------------------- */

Test(uart, echo_gets_every_byte_as_it_is)
{
	int ends[2];
	char got[32];
	cr_assert(pipe(ends) == 0);
	uart_init(&uart, ends[1], count_interrupt, &interrupts);
	send("a\r\n\x1b[0m\xff");
	cr_assert_eq(read(ends[0], got, sizeof(got)), 8);
	cr_assert(!memcmp(got, "a\r\n\x1b[0m\xff", 8));
}

Test(uart, echo_that_fails_does_not_stop_the_guest)
{
	const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	uart_init(&uart, fd, count_interrupt, &interrupts);
	send("lost but kept");
	expect_tail(1, "lost but kept");
	cr_assert_eq(uart.echo_fd, -1);
}

Test(uart, echo_that_is_full_goes_on_when_it_is_read)
{
	int ends[2];
	static char got[1 << 20];
	cr_assert(pipe2(ends, O_NONBLOCK | O_CLOEXEC) == 0);
	uart_init(&uart, ends[1], count_interrupt, &interrupts);
	for (unsigned i = 0; i < sizeof(got); i++)
		uart_write(&uart, THR, 'x');
	cr_assert(read(ends[0], got, sizeof(got)) > 0);
	while (read(ends[0], got, sizeof(got)) > 0)
		continue;
	send("again");
	cr_assert_eq(read(ends[0], got, sizeof(got)), 5);
}

static void *write_to_the_full_console(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < 1 << 20; i++)
		uart_write(&uart, THR, 'x');
	return NULL;
}

Test(uart, echo_that_waits_for_its_reader_holds_nobody_else, .timeout = 20)
{
	static char got[1 << 16];
	pthread_t vcpu;
	int ends[2];
	ssize_t left = 1 << 20, n;
	cr_assert(pipe2(ends, O_CLOEXEC) == 0);
	uart_init(&uart, ends[1], count_interrupt, &interrupts);
	cr_assert_eq(pthread_create(&vcpu, NULL, write_to_the_full_console, NULL), 0);
	for (int held = 0, before = -1; held != before;) { /* until it waits */
		before = held;
		usleep(100000);
		cr_assert_eq(ioctl(ends[0], FIONREAD, &held), 0);
	}
	char tail[16];
	cr_expect_eq(uart_tail(&uart, 1, tail, sizeof(tail)), sizeof(tail) - 1);
	while (left > 0 && (n = read(ends[0], got, sizeof(got))) > 0)
		left -= n;
	cr_expect_eq(left, 0);
	pthread_join(vcpu, NULL);
}

/* ---- the tail --------------------------------------------------------------------------------------------------------------- */

Test(uart_tail, of_nothing_is_empty)
{
	start();
	expect_tail(0, "");
	expect_tail(5, "");
}

Test(uart_tail, gives_the_last_lines)
{
	start();
	send("one\ntwo\nthree\n");
	expect_tail(0, "");
	expect_tail(1, "three\n");
	expect_tail(2, "two\nthree\n");
	expect_tail(3, "one\ntwo\nthree\n");
	expect_tail(100, "one\ntwo\nthree\n");
	send("four");
	expect_tail(1, "four");
	expect_tail(2, "three\nfour");
	send("\n\n");
	expect_tail(1, "\n");
	expect_tail(2, "four\n\n");
}

Test(uart_tail, replaces_what_cannot_be_printed)
{
	start();
	send("a\tb\x1b[1m\x7f\xc3\xa9\r\nz\r\n");
	expect_tail(9, "a.b.[1m...\nz\n");
	uart_write(&uart, THR, 0);
	expect_tail(1, ".");
}

Test(uart_tail, keeps_the_end_of_a_long_output)
{
	start();
	char want[UART_TAIL_BYTES + 1];
	for (unsigned i = 0; i < 3 * UART_TAIL_BYTES + 7; i++) {
		const char byte = (char)('a' + i % 26);
		uart_write(&uart, THR, (uint8_t)byte);
		if (i >= 2 * UART_TAIL_BYTES + 7)
			want[i - 2 * UART_TAIL_BYTES - 7] = byte;
	}
	want[UART_TAIL_BYTES] = '\0';
	expect_tail(1, want);
	expect_tail(1000, want);
}

Test(uart_tail, lines_over_the_wrap_of_the_ring)
{
	start();
	for (unsigned i = 0; i < 3000; i++) {
		char line[16];
		snprintf(line, sizeof(line), "%u\n", i);
		send(line);
	}
	expect_tail(3, "2997\n2998\n2999\n");
}

/* The last words are what a person needs. */
Test(uart_tail, too_long_for_its_room_keeps_the_end)
{
	start();
	send("first line\nlast words\n");
	for (size_t size = 1; size < 40; size++) {
		char *out = malloc(size);
		const char *all = "first line\nlast words\n";
		const size_t want = size - 1 < strlen(all) ? size - 1 : strlen(all);
		cr_assert_eq(uart_tail(&uart, 9, out, size), want);
		cr_assert_str_eq(out, all + strlen(all) - want);
		free(out);
	}
}
