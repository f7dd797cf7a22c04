/* Reading and hashing beside inflating; see feed_internal.h. */
#include "layers/feed_internal.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/thread.h"
#include "layers/progress_internal.h"

/* Fills one buffer. Returns false when there are no more. */
static bool fill_buffer(struct feed *feed)
{
	const uint64_t left = feed->from->length - feed->read_bytes;
	uint8_t *room = left ? ring_room(&feed->ring) : NULL;
	ssize_t n = 0;
	if (!room)
		return false;
	do {
		n = pread(feed->from->fd, room, left < RING_BUFFER_BYTES ? (size_t)left : RING_BUFFER_BYTES,
			  (off_t)(feed->from->offset + feed->read_bytes));
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		feed->code = error_set(&feed->err, -errno, "cannot read byte %llu: %s", (unsigned long long)feed->read_bytes,
				       strerror(errno));
	if (n <= 0)
		return false;
	if (feed->with_digest)
		SHA256_Update(&feed->sha256, room, (size_t)n);
	feed->read_bytes += (uint64_t)n;
	progress_add(feed->progress, (uint64_t)n);
	ring_put(&feed->ring, (size_t)n);
	return true;
}

static void *work(void *arg)
{
	struct feed *feed = arg;
	while (fill_buffer(feed))
		;
	ring_end(&feed->ring);
	return NULL;
}

int feed_begin(struct feed *feed, const struct file_range *from, bool with_digest, struct progress *progress)
{
	*feed = (struct feed){ .from = from, .progress = progress, .with_digest = with_digest };
	if (ring_create(&feed->ring))
		return -ENOMEM;
	SHA256_Init(&feed->sha256);
	return 0;
}

void feed_read_ahead(struct feed *feed)
{
	feed->threaded = thread_start(&feed->thread, work, feed) == 0;
}

int feed_next(struct feed *feed, const uint8_t **bytes, size_t *length, struct error *err)
{
	if (feed->taken)
		ring_give_back(&feed->ring);
	if (!feed->threaded && !fill_buffer(feed))
		ring_end(&feed->ring);
	*bytes = ring_next(&feed->ring, length);
	feed->taken = *bytes != NULL;
	return !feed->taken && feed->code ? error_set(err, feed->code, "%s", feed->err.text) : 0;
}

void feed_end(struct feed *feed, uint8_t *digest)
{
	ring_refuse(&feed->ring);
	if (feed->threaded)
		pthread_join(feed->thread, NULL);
	if (digest)
		SHA256_Final(digest, &feed->sha256);
	ring_destroy(&feed->ring);
}
