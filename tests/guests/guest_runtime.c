/* Output, memory, traps, interrupt controllers and the second processor of a guest; see guest.h. */
#include "tests/guests/guest.h"

#define PORT_SERIAL 0x3f8
#define PORT_I8042_COMMAND 0x64
#define I8042_RESET 0xfe
#define PORT_PIC1_DATA 0x21
#define PORT_PIC2_DATA 0xa1

#define IOAPIC 0xfec00000ul
#define IOAPIC_SELECT 0x00
#define IOAPIC_WINDOW 0x10
#define IOAPIC_REDIRECTION 0x10 /* index of the first entry: two registers each */
#define IOAPIC_MASKED 0x10000u
#define LAPIC 0xfee00000ul
#define LAPIC_EOI 0xb0
#define LAPIC_SPURIOUS 0xf0
#define LAPIC_ICR_LOW 0x300
#define LAPIC_ICR_HIGH 0x310
#define ICR_PENDING 0x1000u
#define ICR_INIT 0x4500u
#define ICR_STARTUP 0x4600u

#define AP_TRAMPOLINE 0x1000u /* under 1 MiB and clear of what the boot protocol put there */
#define FIRST_VECTOR 32u /* IOAPIC pin n interrupts by vector FIRST_VECTOR + n */
#define VECTORS 64u /* as many as guest_start.S has entries for */
#define PINS 24u
#define CODE64 0x10
#define FAILURES_SHOWN 8u

void guest_begin(void);
void ap_begin(void);

struct trap_frame {
	uint64_t rbx, r11, r10, r9, r8, rdi, rsi, rdx, rcx, rax;
	uint64_t vector, error, rip, cs, flags, rsp, ss;
};
void guest_trap(struct trap_frame *frame);

struct idt_gate {
	uint16_t offset_low, selector, type, offset_middle;
	uint32_t offset_high, zero;
};
_Static_assert(sizeof(struct idt_gate) == 16, "gate");

extern const uint8_t trap_entries[], ap_trampoline[], ap_trampoline_end[];
extern uint64_t ap_page_tables;

struct guest_entry entry;
static struct idt_gate idt[VECTORS];
static volatile unsigned interrupts[PINS];
static unsigned failures; /* of the current test */
static void (*volatile ap_run)(void);
static volatile bool ap_running;

/* ---- memory: what compilers call by themselves ---- */

void *memcpy(void *to, const void *from, size_t length)
{
	void *const result = to;
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(length) : : "memory");
	return result;
}

void *memset(void *to, int value, size_t length)
{
	void *const result = to;
	__asm__ volatile("rep stosb" : "+D"(to), "+c"(length) : "a"(value) : "memory");
	return result;
}

int memcmp(const void *a, const void *b, size_t length)
{
	const uint8_t *x = a, *y = b;
	for (size_t i = 0; i < length; i++)
		if (x[i] != y[i])
			return x[i] < y[i] ? -1 : 1;
	return 0;
}

size_t strlen(const char *text)
{
	size_t length = 0;
	while (text[length])
		length++;
	return length;
}

bool contains(const char *text, const char *part)
{
	const size_t length = strlen(part);
	for (; *text; text++)
		if (*text == *part && !memcmp(text, part, length))
			return true;
	return length == 0;
}

/* ---- output ---- */

void print(const char *text)
{
	for (; *text; text++)
		outb(PORT_SERIAL, (uint8_t)*text);
}

void print_hex(uint64_t value)
{
	char text[19] = "0x0";
	unsigned digits = 1;
	while (digits < 16 && value >> (4 * digits))
		digits++;
	for (unsigned i = 0; i < digits; i++)
		text[2 + i] = "0123456789abcdef"[(value >> (4 * (digits - 1 - i))) & 15];
	text[2 + digits] = '\0';
	print(text);
}

static void print_decimal(unsigned value)
{
	char text[11];
	unsigned at = sizeof(text) - 1;
	text[at] = '\0';
	do
		text[--at] = (char)('0' + value % 10);
	while (value /= 10);
	print(text + at);
}

bool expect(bool met, const char *condition, int line)
{
	if (!met && failures++ < FAILURES_SHOWN) {
		print("# line ");
		print_decimal((unsigned)line);
		print(": not met: ");
		print(condition);
		print("\n");
	}
	return met;
}

void test_end(const char *name)
{
	print(failures ? "not ok - " : "ok - ");
	print(name);
	print("\n");
	failures = 0;
}

void test_skip(const char *name, const char *reason)
{
	print("skip - ");
	print(name);
	print(": ");
	print(reason);
	print("\n");
}

void guest_exit(void)
{
	for (;;)
		outb(PORT_I8042_COMMAND, I8042_RESET);
}

/* ---- time ---- */

#define TICKS_PER_US 2000u

uint64_t deadline_us(uint64_t us)
{
	return rdtsc() + us * TICKS_PER_US;
}

void delay_us(uint64_t us)
{
	const uint64_t deadline = deadline_us(us);
	while (rdtsc() < deadline)
		pause();
}

/* ---- traps and interrupts ---- */

/* Where a fault that is expected goes on; 0: none is. */
static volatile uint64_t fault_resume;

static void idt_load(void)
{
	const struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) pointer = { sizeof(idt) - 1, (uint64_t)idt };
	__asm__ volatile("lidt %0" : : "m"(pointer));
}

static void idt_fill(void)
{
	for (unsigned i = 0; i < VECTORS; i++) {
		const uint64_t at = (uint64_t)(trap_entries + 16u * i);
		idt[i] = (struct idt_gate){
			.offset_low = (uint16_t)at,
			.selector = CODE64,
			.type = 0x8e00, /* present, interrupt gate */
			.offset_middle = (uint16_t)(at >> 16),
			.offset_high = (uint32_t)(at >> 32),
		};
	}
}

void guest_trap(struct trap_frame *frame)
{
	if (frame->vector >= FIRST_VECTOR && frame->vector < FIRST_VECTOR + PINS) {
		interrupts[frame->vector - FIRST_VECTOR]++;
		mmio_write32(LAPIC + LAPIC_EOI, 0);
		return;
	}
	if (frame->vector == VECTORS - 1)
		return; /* spurious: not acknowledged */
	if (fault_resume) {
		frame->rip = fault_resume;
		fault_resume = 0;
		return;
	}
	print("\nnot ok - no trap: vector ");
	print_hex(frame->vector);
	print(" error ");
	print_hex(frame->error);
	print(" rip ");
	print_hex(frame->rip);
	print("\n");
	guest_exit();
}

bool guest_faults(enum guest_instruction instruction, uint32_t index, uint64_t value, uint64_t *result)
{
	uint32_t low = (uint32_t)value, high = (uint32_t)(value >> 32);
	if (instruction == GUEST_RDMSR)
		__asm__ volatile("movq $1f, %2; rdmsr; 1:" : "+a"(low), "+d"(high), "=m"(fault_resume) : "c"(index) : "memory");
	else if (instruction == GUEST_LOAD)
		__asm__ volatile("movq $1f, %1; movzbl (%2), %k0; 1:" : "+a"(low), "=m"(fault_resume) : "d"(value) : "memory");
	else
		__asm__ volatile("movq $1f, %2; wrmsr; 1:" : "+a"(low), "+d"(high), "=m"(fault_resume) : "c"(index) : "memory");
	const bool faulted = fault_resume == 0;
	fault_resume = 0;
	if (!faulted && result)
		*result = instruction == GUEST_LOAD ? low : (uint64_t)high << 32 | low;
	return faulted;
}

unsigned guest_attack(void)
{
	/* boot_params, hdr.cmd_line_ptr (Documentation/x86/boot.rst), or hvm_start_info. */
	const uint8_t *info = (const uint8_t *)(uintptr_t)entry.info;
	uint32_t at;
	memcpy(&at, info + (entry.protocol == ENTRY_LINUX64 ? 0x228 : 24), sizeof(at));
	for (const char *line = (const char *)(uintptr_t)at; *line; line++)
		if (!memcmp(line, " attack=", 8))
			return (unsigned)(line[8] - '0');
	return 0;
}

static void ioapic_write(unsigned index, uint32_t value)
{
	mmio_write32(IOAPIC + IOAPIC_SELECT, index);
	mmio_write32(IOAPIC + IOAPIC_WINDOW, value);
}

void interrupt_enable(unsigned pin)
{
	ioapic_write(IOAPIC_REDIRECTION + 2 * pin + 1, 0); /* to APIC 0 */
	ioapic_write(IOAPIC_REDIRECTION + 2 * pin, FIRST_VECTOR + pin);
}

void interrupt_disable(unsigned pin)
{
	ioapic_write(IOAPIC_REDIRECTION + 2 * pin, IOAPIC_MASKED);
}

unsigned interrupt_count(unsigned pin)
{
	return interrupts[pin];
}

void interrupt_sleep(unsigned pin, unsigned seen)
{
	/* sti takes effect after the next instruction, so no interrupt slips in before hlt. */
	while (interrupts[pin] == seen)
		__asm__ volatile("sti; hlt; cli" : : : "memory");
}

/* ---- the second processor ---- */

void ap_begin(void)
{
	idt_load();
	ap_running = true;
	ap_run();
}

static void send_ipi(unsigned apic, uint32_t command)
{
	mmio_write32(LAPIC + LAPIC_ICR_HIGH, apic << 24);
	mmio_write32(LAPIC + LAPIC_ICR_LOW, command);
	const uint64_t deadline = deadline_us(PATIENCE_US);
	while ((mmio_read32(LAPIC + LAPIC_ICR_LOW) & ICR_PENDING) && rdtsc() < deadline)
		pause();
}

bool ap_start(void (*run)(void))
{
	uint8_t *const trampoline = (uint8_t *)(uintptr_t)AP_TRAMPOLINE;
	__asm__ volatile("mov %%cr3, %0" : "=r"(ap_page_tables));
	memcpy(trampoline, ap_trampoline, (size_t)(ap_trampoline_end - ap_trampoline));
	ap_run = run;
	barrier();
	send_ipi(1, ICR_INIT);
	delay_us(10000);
	/* Twice, as the specification wants it; the second is ignored by a processor that runs. */
	for (unsigned i = 0; i < 2 && !ap_running; i++) {
		send_ipi(1, ICR_STARTUP | AP_TRAMPOLINE >> 12);
		const uint64_t deadline = deadline_us(PATIENCE_US / 10);
		while (!ap_running && rdtsc() < deadline)
			pause();
	}
	return ap_running;
}

/* What the second processor does until told otherwise; it answers by `doing`. */
static void (*volatile wanted)(uint32_t random);
static void (*volatile doing)(uint32_t random);

void second_rests(uint32_t random)
{
	(void)random;
	pause();
}

static void second_runs(void)
{
	uint32_t random = 12345;
	for (;;) {
		void (*const now)(uint32_t) = wanted;
		doing = now;
		random = random * 1664525u + 1013904223u;
		now(random >> 8);
	}
}

bool second_start(void)
{
	wanted = second_rests;
	return ap_start(second_runs);
}

void second_does(void (*what)(uint32_t random))
{
	const uint64_t deadline = deadline_us(PATIENCE_US);
	wanted = what;
	while (doing != what && rdtsc() < deadline)
		pause();
	EXPECT(doing == what);
}

/* Called by guest_start.S. */
void guest_begin(void)
{
	outb(PORT_PIC1_DATA, 0xff);
	outb(PORT_PIC2_DATA, 0xff);
	idt_fill();
	idt_load();
	mmio_write32(LAPIC + LAPIC_SPURIOUS, 0x100 | (VECTORS - 1));
	guest_main();
	print("done\n");
	guest_exit();
}
