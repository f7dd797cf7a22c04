/*
 * The runtime of the test guests: freestanding programs in ring 0 of a machine without an operating system. Linked at 1 MiB,
 * entered by either boot protocol, memory mapped one to one. See runner.c for the machine around them.
 *
 * A guest is one C file with guest_main(). It does its work as a series of named tests:
 *
 *	EXPECT(blk_read(&blk, 0, buffer, 1) == VIRTIO_BLK_S_OK);
 *	EXPECT(sector_is(buffer, 0));
 *	test_end("read one sector");
 *
 * which prints `ok - read one sector`, or a line for each EXPECT that was not met and `not ok - ...`. The machine is reset when
 * guest_main() returns, which ends the run. A trap nobody asked for is `not ok` and ends it, too.
 *
 * Guests also run where KVM is an interpreter of one or two million instructions a second: loops are short, SSE is not used, and
 * none but cpu_attack attacks the state of the processor itself.
 */
#ifndef TRVMM_TESTS_GUESTS_GUEST_H
#define TRVMM_TESTS_GUESTS_GUEST_H

#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/guests/world.h"

/* ---- start and end ---- */

/* The test: defined by each guest. */
void guest_main(void);

enum guest_protocol { ENTRY_LINUX64, ENTRY_PVH };

/* The registers at the first instruction; guest_start.S writes it by offsets. */
struct guest_entry {
	uint64_t protocol; /* enum guest_protocol */
	uint64_t info; /* rsi: boot_params, or ebx: hvm_start_info */
	uint64_t cr0, cr3, cr4, efer, flags;
	uint64_t cs, ds, es, ss, rsp;
};
_Static_assert(offsetof(struct guest_entry, rsp) == 88, "guest_start.S");
extern struct guest_entry entry;

extern uint8_t guest_end[]; /* first address behind the guest */

/* Resets the machine by the keyboard controller's command, which is how a run ends. */
void guest_exit(void) __attribute__((noreturn));

/* ---- results ---- */

void print(const char *text);
void print_hex(uint64_t value);

#define EXPECT(condition) expect((condition), #condition, __LINE__)
/* Notes that the current test failed, unless `met`; the first few are printed. Returns `met`. */
bool expect(bool met, const char *condition, int line);
/* Ends the current test. */
void test_end(const char *name);
void test_skip(const char *name, const char *reason);

/* ---- processor ---- */

static inline void outb(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void outw(uint16_t port, uint16_t value)
{
	__asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void outl(uint16_t port, uint32_t value)
{
	__asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint8_t inb(uint16_t port)
{
	uint8_t value;
	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}

static inline uint16_t inw(uint16_t port)
{
	uint16_t value;
	__asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}

static inline uint32_t inl(uint16_t port)
{
	uint32_t value;
	__asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
	return value;
}

static inline uint64_t rdtsc(void)
{
	uint32_t low, high;
	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return (uint64_t)high << 32 | low;
}

static inline void pause(void)
{
	__asm__ volatile("pause" : : : "memory");
}

static inline void barrier(void)
{
	__asm__ volatile("mfence" : : : "memory");
}

/* Memory-mapped registers: one access of exactly this width. */
static inline uint8_t mmio_read8(uintptr_t at)
{
	uint8_t value;
	__asm__ volatile("movb %1, %0" : "=q"(value) : "m"(*(volatile uint8_t *)at) : "memory");
	return value;
}

static inline uint16_t mmio_read16(uintptr_t at)
{
	uint16_t value;
	__asm__ volatile("movw %1, %0" : "=r"(value) : "m"(*(volatile uint16_t *)at) : "memory");
	return value;
}

static inline uint32_t mmio_read32(uintptr_t at)
{
	uint32_t value;
	__asm__ volatile("movl %1, %0" : "=r"(value) : "m"(*(volatile uint32_t *)at) : "memory");
	return value;
}

static inline uint64_t mmio_read64(uintptr_t at)
{
	uint64_t value;
	__asm__ volatile("movq %1, %0" : "=r"(value) : "m"(*(volatile uint64_t *)at) : "memory");
	return value;
}

static inline void mmio_write8(uintptr_t at, uint8_t value)
{
	__asm__ volatile("movb %1, %0" : "=m"(*(volatile uint8_t *)at) : "q"(value) : "memory");
}

static inline void mmio_write16(uintptr_t at, uint16_t value)
{
	__asm__ volatile("movw %1, %0" : "=m"(*(volatile uint16_t *)at) : "r"(value) : "memory");
}

static inline void mmio_write32(uintptr_t at, uint32_t value)
{
	__asm__ volatile("movl %1, %0" : "=m"(*(volatile uint32_t *)at) : "r"(value) : "memory");
}

static inline void mmio_write64(uintptr_t at, uint64_t value)
{
	__asm__ volatile("movq %1, %0" : "=m"(*(volatile uint64_t *)at) : "r"(value) : "memory");
}

void *memcpy(void *to, const void *from, size_t length);
void *memset(void *to, int value, size_t length);
int memcmp(const void *a, const void *b, size_t length);
size_t strlen(const char *text);
/* True when `part` stands somewhere in `text`. */
bool contains(const char *text, const char *part);

/* Waits for about `us` microseconds. The TSC's rate is not known and taken as 2 GHz, which is near enough for a time limit. */
void delay_us(uint64_t us);
uint64_t deadline_us(uint64_t us); /* for: while (rdtsc() < deadline) */
#define PATIENCE_US 5000000ull /* for an answer that has to come */
#define QUIET_US 3000ull /* for one that must not come */

/* ---- interrupts ---- */

/* Routes IOAPIC pin `pin`, edge-triggered, to this processor, and counts what comes. Interrupts are off until cpu_sti(). */
void interrupt_enable(unsigned pin);
void interrupt_disable(unsigned pin);
unsigned interrupt_count(unsigned pin);

static inline void cpu_sti(void)
{
	__asm__ volatile("sti" : : : "memory");
}

static inline void cpu_cli(void)
{
	__asm__ volatile("cli" : : : "memory");
}

/*
 * Executes one instruction that may fault; true when it did. RDMSR stores what it read in `result`, and so does a load of the byte at
 * address `value`.
 */
enum guest_instruction { GUEST_RDMSR, GUEST_WRMSR, GUEST_LOAD };
bool guest_faults(enum guest_instruction instruction, uint32_t index, uint64_t value, uint64_t *result);

/* The number of the runner's --attack; 0 without. To be asked before the boot protocol's structures are overwritten. */
unsigned guest_attack(void);

/* Sleeps until an interrupt came that was not counted when `seen` was read. Call with interrupts off; returns with them off. */
void interrupt_sleep(unsigned pin, unsigned seen);

/* ---- the second processor ---- */

/* Starts processor 1 in `run`, which does not return to anybody. False when it did not come up. */
bool ap_start(void (*run)(void));

/* Starts it for second_does(): from then on it calls what it is told to, again and again, with random numbers. */
bool second_start(void);
/* Returns when it has begun to do `what`. */
void second_does(void (*what)(uint32_t random));
void second_rests(uint32_t random);

/* ---- virtio-mmio driver (guest_virtio.c) ---- */

#define DEVICE_QUEUES 3
#define QUEUE_SIZE_MAX 256

#define FEATURE_INDIRECT (1ull << VIRTIO_RING_F_INDIRECT_DESC)
#define FEATURE_EVENT_IDX (1ull << VIRTIO_RING_F_EVENT_IDX)
#define FEATURE_VERSION_1 (1ull << VIRTIO_F_VERSION_1)

/* A split virtqueue with nothing between the test and the rings. */
struct queue {
	uint16_t size;
	uint16_t next_avail; /* the index that was, or will be, published */
	uint16_t last_used; /* used elements that were looked at */
	volatile struct vring_desc *desc;
	volatile uint16_t *avail; /* flags, idx, ring[size], used_event */
	volatile uint16_t *used; /* flags, idx, then elements */
};

struct device {
	uintptr_t base;
	unsigned pin;
	uint64_t features; /* negotiated */
	struct queue queues[DEVICE_QUEUES];
};

/* The `index`th device of the machine; false when it is not there or of another type. */
bool device_find(struct device *dev, unsigned index, uint32_t device_id);

static inline uint32_t reg_read(const struct device *dev, unsigned offset)
{
	return mmio_read32(dev->base + offset);
}

static inline void reg_write(const struct device *dev, unsigned offset, uint32_t value)
{
	mmio_write32(dev->base + offset, value);
}

uint32_t device_status(const struct device *dev);
void device_reset(struct device *dev);
uint64_t device_offered(const struct device *dev);

/* Reset, ACKNOWLEDGE, DRIVER, features (those of `wanted` that are offered, and VERSION_1), FEATURES_OK. */
bool device_negotiate(struct device *dev, uint64_t wanted);

/* Clears the rings of queue `index` and tells the device where they are, without QueueReady. */
void queue_place(struct device *dev, unsigned index, uint16_t size);
void queue_set_address(struct device *dev, unsigned index, unsigned low_register, uint64_t address);
void queue_ready(struct device *dev, unsigned index);

/* All of it for `queue_count` queues of `size` entries, up to DRIVER_OK. */
bool device_start(struct device *dev, uint64_t wanted, unsigned queue_count, uint16_t size);

void desc_set(struct queue *q, unsigned index, const volatile void *addr, uint32_t length, uint16_t flags, uint16_t next);
void desc_set_raw(volatile struct vring_desc *desc, uint64_t addr, uint32_t length, uint16_t flags, uint16_t next);
/* Puts `head` into the available ring and publishes it. */
void queue_put(struct queue *q, uint16_t head);
void queue_notify(struct device *dev, unsigned index);
uint16_t queue_used_index(const struct queue *q);
/* The used element number `at` (modulo the size). */
uint32_t queue_used_id(const struct queue *q, uint16_t at);
uint32_t queue_used_length(const struct queue *q, uint16_t at);
void queue_set_used_event(struct queue *q, uint16_t at);

/* Waits until the device has returned `count` more chains. False when time is up or the device needs a reset. */
bool queue_wait(struct device *dev, unsigned index, uint16_t count);
/* Waits until the device says DEVICE_NEEDS_RESET. */
bool device_wait_failed(const struct device *dev);

/* ---- virtio-blk (guest_blk.c) ---- */

#define BLK_NO_ANSWER 0x100u /* the request did not come back */

struct blk_header {
	uint32_t type;
	uint32_t reserved;
	uint64_t sector;
};

/* Starts disk `dev` anew with queue size 128, all features. */
bool blk_start(struct device *dev);
/* One request of three descriptors, waited for by polling. Returns its status byte, or BLK_NO_ANSWER. */
unsigned blk_request(struct device *dev, uint32_t type, uint64_t sector, volatile void *data, uint32_t length, bool data_writable);
unsigned blk_read(struct device *dev, uint64_t sector, volatile void *data, uint32_t sectors);
unsigned blk_write(struct device *dev, uint64_t sector, const volatile void *data, uint32_t sectors);
/* True when the 512 bytes at `data` are what the runner put into `sector` of device 0. */
bool sector_is(const volatile void *data, uint64_t sector);
void sector_fill(volatile void *data, uint64_t as_sector);
/* Resets the disk, starts it, and reads a sector: the device works after whatever was done to it. */
bool blk_recovers(struct device *dev);

/* ---- boot (guest_tables.c): each ends a test ---- */

struct memory_range {
	uint64_t start, end;
	uint32_t type; /* 1 RAM, 2 reserved */
};

/* In order, without overlaps, as much RAM as there is; each of `used` is mentioned. */
void memory_map_check(const struct memory_range *map, unsigned count, const void *const used[], unsigned used_count);
void acpi_check(uint64_t rsdp_address, unsigned cpus);
void mptable_check(unsigned cpus);
/* Returns the number of processors that the runner wrote there. */
unsigned cmdline_check(const char *cmdline);
void bss_check(void);

#endif
