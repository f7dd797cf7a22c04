/* virtio-blk requests; see virtio_blk.h. */
#include "devices/virtio-blk/virtio_blk.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/iov.h"
#include "base/le.h"
#include "devices/virtio/shm_bounce.h"

#define QUEUE_SIZE 128
/* A chain holds the header and the status too. */
#define SEG_MAX (QUEUE_SIZE - 2)
/* Sectors in one discard or write-zeroes segment, and segments in a request: bounds the work of one request. */
#define RANGE_SECTORS_MAX 0x400000u
#define RANGE_SEGMENTS_MAX 16u

struct blk_request_header {
	le32 type;
	le32 reserved;
	le64 sector;
};
_Static_assert(sizeof(struct blk_request_header) == 16, "5.2.6");

/* 5.2.6: discard and write-zeroes data. */
struct blk_range {
	le64 sector;
	le32 sector_count;
	le32 flags;
};
_Static_assert(sizeof(struct blk_range) == 16, "5.2.6");
#define BLK_RANGE_F_UNMAP 1u

/* Reads and writes that are to be done at once. */
struct blk_batch {
	unsigned count;
	struct disk_transfer transfers[DISK_TRANSFERS_MAX];
	struct {
		struct virtq_chain chain;
		struct iovec payload[VIRTQ_MAX_SIZE];
	} requests[DISK_TRANSFERS_MAX];
};

struct virtio_blk {
	struct virtio_device dev; /* first: callbacks get a pointer to it */
	struct disk *disk; /* borrowed */
	struct virtio_blk_config config;
	struct throttle throttle;
	struct virtq_chain chain; /* the request being served */
	struct blk_batch *batch; /* owned; empty between notifications; NULL: the disk does one at a time */
	struct iovec payload[VIRTQ_MAX_SIZE]; /* its data, without header and status */
	/* Written by the loop's thread, read by any. */
	_Atomic uint64_t reads, read_bytes, writes, written_bytes;
};

/* True when [sector, sector + count) lies on the disk. */
static bool range_valid(const struct virtio_blk *blk, uint64_t sector, uint64_t count)
{
	const uint64_t capacity = blk->disk->size_bytes / DISK_SECTOR_BYTES;
	return sector <= capacity && count <= capacity - sector;
}

/* There is one writer, so no locked instruction is needed. */
static void count(_Atomic uint64_t *counter, uint64_t more)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + more, memory_order_relaxed);
}

static uint8_t status_of(int result)
{
	return result == 0 ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR;
}

/*
 * What a read or write of the chain asks for; its vector is put into `payload`, which has room for VIRTQ_MAX_SIZE ranges. Returns false
 * when it cannot be.
 */
static bool blk_parse_transfer(struct virtio_blk *blk, const struct virtq_chain *chain, uint64_t sector, bool write,
			       struct iovec *payload, struct disk_transfer *transfer)
{
	const uint32_t length =
	    write ? chain->readable_bytes - (uint32_t)sizeof(struct blk_request_header) : chain->writable_bytes - 1;
	if (length % DISK_SECTOR_BYTES || !range_valid(blk, sector, length / DISK_SECTOR_BYTES) || (write && blk->disk->read_only))
		return false;
	*transfer = (struct disk_transfer){ .write = write, .offset = sector * DISK_SECTOR_BYTES, .iov = payload };
	if (length == 0)
		return true;
	count(write ? &blk->writes : &blk->reads, 1);
	count(write ? &blk->written_bytes : &blk->read_bytes, length);
	transfer->count =
	    write ? iov_slice(virtq_readable(chain), chain->readable_count, sizeof(struct blk_request_header), length, payload)
		  : iov_slice(virtq_writable(chain), chain->writable_count, 0, length, payload);
	return true;
}

static uint8_t blk_transfer(struct virtio_blk *blk, uint64_t sector, bool write)
{
	struct disk_transfer transfer;
	struct disk *disk = blk->disk;
	if (!blk_parse_transfer(blk, &blk->chain, sector, write, blk->payload, &transfer))
		return VIRTIO_BLK_S_IOERR;
	if (transfer.count == 0)
		return VIRTIO_BLK_S_OK;
	return status_of((write ? disk->ops->writev : disk->ops->readv)(disk, transfer.offset, transfer.iov, transfer.count));
}

static uint8_t blk_get_id(struct virtio_blk *blk, uint32_t room, uint32_t *written)
{
	struct virtq_chain *chain = &blk->chain;
	const size_t length = room < DISK_ID_BYTES ? room : DISK_ID_BYTES;
	*written = (uint32_t)iov_copy_in(virtq_writable(chain), chain->writable_count, 0, blk->disk->id, length);
	return VIRTIO_BLK_S_OK;
}

/* Discard and write-zeroes: all segments are checked before the first is done. */
static uint8_t blk_ranges(struct virtio_blk *blk, uint32_t type, uint32_t length)
{
	struct virtq_chain *chain = &blk->chain;
	struct blk_range ranges[RANGE_SEGMENTS_MAX];
	struct disk *disk = blk->disk;

	if (disk->read_only || length == 0 || length % sizeof(ranges[0]) || length > sizeof(ranges))
		return VIRTIO_BLK_S_IOERR;
	const unsigned count = length / (uint32_t)sizeof(ranges[0]);
	iov_copy_out(virtq_readable(chain), chain->readable_count, sizeof(struct blk_request_header), ranges, length);
	for (unsigned i = 0; i < count; i++) {
		const uint32_t flags = le32_get(ranges[i].flags);
		const uint32_t known = type == VIRTIO_BLK_T_WRITE_ZEROES ? BLK_RANGE_F_UNMAP : 0;
		if (flags & ~known)
			return VIRTIO_BLK_S_UNSUPP; /* 5.2.6.2 */
		const uint32_t sectors = le32_get(ranges[i].sector_count);
		if (sectors > RANGE_SECTORS_MAX || !range_valid(blk, le64_get(ranges[i].sector), sectors))
			return VIRTIO_BLK_S_IOERR;
	}
	for (unsigned i = 0; i < count; i++) {
		const uint64_t offset = le64_get(ranges[i].sector) * DISK_SECTOR_BYTES;
		const uint64_t bytes = (uint64_t)le32_get(ranges[i].sector_count) * DISK_SECTOR_BYTES;
		const bool unmap = le32_get(ranges[i].flags) & BLK_RANGE_F_UNMAP;
		const int result = type == VIRTIO_BLK_T_DISCARD ? disk->ops->discard(disk, offset, bytes)
								: disk->ops->write_zeroes(disk, offset, bytes, unmap);
		if (result < 0)
			return VIRTIO_BLK_S_IOERR;
	}
	return VIRTIO_BLK_S_OK;
}

/* Serves one request; `data_written` is what was written before the status byte. */
static uint8_t blk_serve(struct virtio_blk *blk, uint32_t *data_written)
{
	const struct virtq_chain *chain = &blk->chain;
	struct blk_request_header header;
	const uint32_t data_in = chain->readable_bytes - (uint32_t)sizeof(header);
	const uint32_t data_out = chain->writable_bytes - 1;
	uint8_t status;

	iov_copy_out(virtq_readable(chain), chain->readable_count, 0, &header, sizeof(header));
	const uint32_t type = le32_get(header.type);
	switch (type) {
	case VIRTIO_BLK_T_IN:
		status = blk_transfer(blk, le64_get(header.sector), false);
		if (status == VIRTIO_BLK_S_OK)
			*data_written = data_out;
		return status;
	case VIRTIO_BLK_T_OUT:
		return blk_transfer(blk, le64_get(header.sector), true);
	case VIRTIO_BLK_T_FLUSH:
		return status_of(blk->disk->ops->flush(blk->disk));
	case VIRTIO_BLK_T_GET_ID:
		return blk_get_id(blk, data_out, data_written);
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		return blk_ranges(blk, type, data_in);
	default:
		return VIRTIO_BLK_S_UNSUPP;
	}
}

/*
 * The status byte is the last writable one. The length tells the driver which bytes from the start were written, so it is counted only when
 * all before it was.
 */
static void blk_answer(struct virtq *q, const struct virtq_chain *chain, uint8_t status, uint32_t data_written)
{
	iov_copy_in(virtq_writable(chain), chain->writable_count, chain->writable_bytes - 1, &status, 1);
	virtq_push(q, chain->head, data_written == chain->writable_bytes - 1 ? data_written + 1 : data_written);
}

/*
 * Serves and answers a chain that is in part a file which the guest has mapped: a program there reads to it, or writes from it, with
 * O_DIRECT. What is no longer there fails the request.
 */
static void blk_serve_bounced(struct virtio_blk *blk, struct virtq *q)
{
	struct virtq_chain *chain = &blk->chain;
	struct shm_bounce bounce;
	uint32_t data_written = 0;
	/* There is data of programs, and no status: without one a chain just goes back. */
	if (guest_is_shm(blk->dev.mem, virtq_writable(chain)[chain->writable_count - 1].iov_base)) {
		virtq_push(q, chain->head, 0);
		return;
	}
	const bool bounced = shm_bounce_begin(blk->dev.mem, chain, &bounce) == 0;
	uint8_t status = bounced ? blk_serve(blk, &data_written) : VIRTIO_BLK_S_IOERR;
	if (data_written && shm_bounce_copy_back(chain, &bounce, data_written) < 0) {
		status = VIRTIO_BLK_S_IOERR;
		data_written = 0;
	}
	blk_answer(q, chain, status, data_written);
	shm_bounce_end(&bounce);
}

/* Has what was collected done. */
static void blk_submit(struct virtio_blk *blk, struct virtq *q)
{
	struct blk_batch *batch = blk->batch;
	if (!batch || batch->count == 0)
		return;
	blk->disk->ops->transfer(blk->disk, batch->transfers, batch->count);
	for (unsigned i = 0; i < batch->count; i++) {
		const struct virtq_chain *chain = &batch->requests[i].chain;
		const struct disk_transfer *transfer = &batch->transfers[i];
		blk_answer(q, chain, status_of(transfer->result),
			   transfer->result || transfer->write ? 0 : chain->writable_bytes - 1);
	}
	batch->count = 0;
}

/* Whether the chain is a read or write that was put among others. */
static bool blk_collect(struct virtio_blk *blk, const struct virtq_chain *chain)
{
	struct blk_batch *batch = blk->batch;
	struct blk_request_header header;
	if (!batch)
		return false;
	iov_copy_out(virtq_readable(chain), chain->readable_count, 0, &header, sizeof(header));
	const uint32_t type = le32_get(header.type);
	if (type != VIRTIO_BLK_T_IN && type != VIRTIO_BLK_T_OUT)
		return false;
	const unsigned i = batch->count;
	if (!blk_parse_transfer(blk, chain, le64_get(header.sector), type == VIRTIO_BLK_T_OUT, batch->requests[i].payload,
				&batch->transfers[i]) ||
	    batch->transfers[i].count == 0)
		return false;
	batch->requests[i].chain = *chain;
	batch->count++;
	return true;
}

/* Waits for what was done before, and is charged with what is asked now. Discarded bytes cost nothing but an operation. */
static void blk_throttle(struct virtio_blk *blk, struct virtq *q, const struct virtq_chain *chain)
{
	if (!throttle_is_on(&blk->throttle))
		return;
	const uint64_t wait_ns = throttle_wait_ns(&blk->throttle, throttle_now_ns());
	if (wait_ns) {
		/* The driver hears of what is ready, and not of all at the end. */
		blk_submit(blk, q);
		virtio_device_notify_driver(&blk->dev, 0);
		throttle_sleep(wait_ns);
	}
	throttle_charge(&blk->throttle, (uint64_t)chain->readable_bytes + chain->writable_bytes, throttle_now_ns());
}

static bool blk_handle(struct virtio_device *dev, struct virtq *q, struct virtq_chain *chain)
{
	struct virtio_blk *blk = (struct virtio_blk *)dev;
	/* Without a whole header there is no request, without a writable byte no way to answer: the chain just goes back. */
	if (chain->readable_bytes < sizeof(struct blk_request_header) || chain->writable_bytes < 1) {
		virtq_push(q, chain->head, 0);
		return true;
	}
	blk_throttle(blk, q, chain);
	if (!chain->shm && blk_collect(blk, chain)) {
		if (blk->batch->count == DISK_TRANSFERS_MAX)
			blk_submit(blk, q);
		return true;
	}
	/* Anything else comes after what was asked for before it. */
	blk_submit(blk, q);
	if (chain->shm) {
		blk_serve_bounced(blk, q);
		return true;
	}
	uint32_t data_written = 0;
	const uint8_t status = blk_serve(blk, &data_written);
	blk_answer(q, chain, status, data_written);
	return true;
}

static int blk_activate(struct virtio_device *dev)
{
	(void)dev;
	return 0;
}

static void blk_reset(struct virtio_device *dev)
{
	(void)dev; /* requests are served to their end within notify: none is in flight */
}

static void blk_notify(struct virtio_device *dev, unsigned index)
{
	struct virtio_blk *blk = (struct virtio_blk *)dev;
	virtio_device_drain(dev, index, &blk->chain, blk_handle);
	if (!blk->batch || blk->batch->count == 0)
		return;
	blk_submit(blk, &dev->queues[index]);
	virtio_device_notify_driver(dev, index);
}

static const struct virtio_device_ops blk_ops = {
	.name = "virtio-blk",
	.device_id = VIRTIO_ID_BLOCK,
	.queue_count = 1,
	.queue_size_max = { QUEUE_SIZE },
	.activate = blk_activate,
	.reset = blk_reset,
	.notify = blk_notify,
	.takes_shm = true,
};

int virtio_blk_create(struct loop *loop, const struct guest_mem *mem, struct disk *disk, struct virtio_blk **result)
{
	struct virtio_blk *blk = calloc(1, sizeof(*blk));
	if (!blk)
		return -ENOMEM;
	blk->disk = disk;
	blk->batch = disk->ops->transfer ? calloc(1, sizeof(*blk->batch)) : NULL;
	if (disk->ops->transfer && !blk->batch) {
		free(blk);
		return -ENOMEM;
	}
	blk->config = (struct virtio_blk_config){
		.capacity = htole64(disk->size_bytes / DISK_SECTOR_BYTES),
		.seg_max = htole32(SEG_MAX),
		.blk_size = htole32(DISK_SECTOR_BYTES),
		/* The file systems here have blocks of 4 KiB. */
		.physical_block_exp = 3,
		.max_discard_sectors = htole32(RANGE_SECTORS_MAX),
		.max_discard_seg = htole32(RANGE_SEGMENTS_MAX),
		.discard_sector_alignment = htole32(8),
		.max_write_zeroes_sectors = htole32(RANGE_SECTORS_MAX),
		.max_write_zeroes_seg = htole32(RANGE_SEGMENTS_MAX),
		.write_zeroes_may_unmap = 1,
	};
	blk->dev = (struct virtio_device){
		.ops = &blk_ops,
		.loop = loop,
		.mem = mem,
		.device_features = 1ull << VIRTIO_BLK_F_SEG_MAX | 1ull << VIRTIO_BLK_F_BLK_SIZE | 1ull << VIRTIO_BLK_F_FLUSH |
				   1ull << VIRTIO_BLK_F_TOPOLOGY,
		.config = &blk->config,
		.config_bytes = sizeof(blk->config),
	};
	if (disk->read_only)
		blk->dev.device_features |= 1ull << VIRTIO_BLK_F_RO;
	else
		blk->dev.device_features |= 1ull << VIRTIO_BLK_F_DISCARD | 1ull << VIRTIO_BLK_F_WRITE_ZEROES;
	*result = blk;
	return 0;
}

void virtio_blk_set_limit(struct virtio_blk *blk, const struct throttle_limit *limit)
{
	throttle_init(&blk->throttle, limit);
}

void virtio_blk_destroy(struct virtio_blk *blk)
{
	if (blk)
		free(blk->batch);
	free(blk);
}

void virtio_blk_get_stats(const struct virtio_blk *blk, struct virtio_blk_stats *stats)
{
	*stats = (struct virtio_blk_stats){
		.reads = atomic_load_explicit(&blk->reads, memory_order_relaxed),
		.read_bytes = atomic_load_explicit(&blk->read_bytes, memory_order_relaxed),
		.writes = atomic_load_explicit(&blk->writes, memory_order_relaxed),
		.written_bytes = atomic_load_explicit(&blk->written_bytes, memory_order_relaxed),
	};
}

struct virtio_device *virtio_blk_device(struct virtio_blk *blk)
{
	return &blk->dev;
}
