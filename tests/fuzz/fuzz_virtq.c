/*
 * libFuzzer target: the queue walk. The input is what a driver does to the rings and to all other memory, by a few likely and by raw
 * values, while the device's side takes, puts back and returns chains.
 *
 * What is checked beside the sanitizers: a chain's ranges lie in RAM, are as many and as long as its counters say, and are no more than the
 * queue is long; a queue that broke stays broken until it is enabled anew; each index goes on by one.
 */
#include "tests/fuzz/input.h"
#include "tests/unit/fake_driver.h"

#include <errno.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RAM_BYTES 0x4000u

static struct fake_ram ram;
static struct virtq queue;
static struct virtq_config config;
static struct virtq_chain chain;
static bool broken, popped;
static unsigned taken; /* chains that are popped and not yet pushed */
static uint16_t heads[64];

static gpa_t take_address(struct input *in)
{
	const uint64_t kind = take(in, 1);
	switch (kind % 8) {
	case 0:
		return fake_ram_end(&ram) - take(in, 1);
	case 1:
		return take(in, 8);
	case 2:
		return UINT64_MAX - take(in, 1);
	case 3: /* where the rings stand */
		return (kind & 8 ? config.desc : kind & 16 ? config.avail : config.used) + take(in, 1);
	default:
		return FAKE_RAM_BASE + take(in, 2) % RAM_BYTES;
	}
}

static void enable(struct input *in)
{
	const uint64_t how = take(in, 1);
	config = (struct virtq_config){ .ready = true, .size = (uint16_t)(1u << (how & 7)) };
	if (how & 8) {
		config.size = (uint16_t)take(in, 2);
		config.desc = take_address(in);
		config.avail = take_address(in);
		config.used = take_address(in);
	} else {
		struct fake_queue layout;
		fake_queue_init(&layout, &ram, FAKE_RAM_BASE, config.size);
		config = fake_queue_config(&layout);
	}
	const struct virtq before = queue;
	taken = 0;
	popped = false;
	if (virtq_enable(&queue, &ram.mem, &config, how & 16) < 0) {
		assert(!memcmp(&before, &queue, sizeof(queue)));
		virtq_disable(&queue);
	}
	broken = false;
}

/* Writes a descriptor of the queue's table, or of any other. */
static void write_desc(struct input *in)
{
	const uint64_t where = take(in, 1);
	const gpa_t table = where & 0x80 ? take_address(in) : config.desc;
	const gpa_t at = table + 16 * (where & 0x7f);
	const uint64_t address = take_address(in), what = take(in, 1);
	const uint32_t length = what & 0x80 ? (uint32_t)take(in, 4) : (uint32_t)take(in, 1) * 16;
	const uint16_t next = (uint16_t)take(in, what & 0x40 ? 2 : 1);
	if (guest_ptr(&ram.mem, at, 16))
		fake_table_desc(&ram, at, 0, address, length, what & 7, next);
}

static void publish(struct input *in)
{
	const uint64_t what = take(in, 1);
	if (!guest_ptr(&ram.mem, config.avail, 6 + 2ull * config.size) || config.size == 0)
		return;
	uint16_t index = fake_get16(&ram, config.avail + 2);
	fake_put16(&ram, config.avail + 4 + 2u * (index % config.size), (uint16_t)take(in, what & 0x80 ? 2 : 1));
	index = (uint16_t)(index + (what & 0x40 ? take(in, 2) : 1));
	fake_put16(&ram, config.avail + 2, index);
}

static void write_memory(struct input *in)
{
	const gpa_t at = take_address(in);
	const uint64_t value = take(in, 8), length = 1 + take(in, 1) % 8;
	(void)!guest_write(&ram.mem, at, &value, length);
}

static void check_chain(void)
{
	uint64_t sums[2] = { 0, 0 };
	assert(chain.readable_count + chain.writable_count <= queue.size);
	for (unsigned i = 0; i < chain.readable_count + chain.writable_count; i++) {
		const uint8_t *start = chain.iov[i].iov_base;
		assert(start >= ram.bytes && chain.iov[i].iov_len <= RAM_BYTES && chain.iov[i].iov_len > 0);
		assert((size_t)(start - ram.bytes) <= RAM_BYTES - chain.iov[i].iov_len);
		sums[i >= chain.readable_count] += chain.iov[i].iov_len;
	}
	assert(sums[0] == chain.readable_bytes && sums[1] == chain.writable_bytes);
	for (unsigned i = 0; i < chain.writable_count; i++)
		memset(virtq_writable(&chain)[i].iov_base, 0x5a, virtq_writable(&chain)[i].iov_len % 64);
}

static void pop(void)
{
	const struct virtq before = queue;
	const int result = virtq_pop(&queue, &chain);
	assert(!broken || result == -EINVAL || !queue.mem);
	popped = result == 1;
	if (result < 0) {
		assert(result == -EINVAL && queue.broken && queue.next_avail == before.next_avail);
		broken = true;
	} else if (result == 1) {
		assert((uint16_t)(before.next_avail + 1) == queue.next_avail);
		check_chain();
		if (taken < sizeof(heads) / sizeof(heads[0]))
			heads[taken++] = chain.head;
	} else {
		assert(!virtq_has_avail(&queue));
	}
}

static void push(struct input *in)
{
	const uint16_t before = queue.next_used;
	if (!taken)
		return;
	popped = false;
	virtq_push(&queue, heads[--taken], (uint32_t)take(in, 2));
	assert(!queue.mem || queue.next_used == (uint16_t)(before + 1));
}

static void unpop(void)
{
	if (!popped || !taken)
		return;
	popped = false;
	taken--;
	virtq_unpop(&queue);
	assert(virtq_has_avail(&queue) || queue.broken || fake_get16(&ram, config.avail + 2) == queue.next_avail);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { .at = data, .left = size };

	if (!ram.bytes)
		fake_ram_init(&ram, RAM_BYTES);
	memset(ram.bytes, 0, RAM_BYTES);
	virtq_disable(&queue);
	enable(&in);
	while (in.left) {
		switch (take(&in, 1) % 16) {
		case 0:
		case 1:
		case 2:
		case 3:
			write_desc(&in);
			break;
		case 4:
		case 5:
		case 6:
			publish(&in);
			break;
		case 7:
			write_memory(&in);
			break;
		case 8:
		case 9:
		case 10:
			pop();
			break;
		case 11:
			push(&in);
			break;
		case 12:
			unpop();
			break;
		case 13:
			(void)virtq_needs_interrupt(&queue);
			break;
		case 14:
			(void)virtq_want_kicks(&queue, take(&in, 1) & 1);
			break;
		default:
			enable(&in);
			break;
		}
	}
	return 0;
}
