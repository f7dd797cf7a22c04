/* A file that is read while it is written; see growth_internal.h. */
#include "layers/growth_internal.h"

#include <fcntl.h>
#include <unistd.h>

void growth_init(struct growth *growth)
{
	*growth = (struct growth){ .fd = -1 };
	pthread_mutex_init(&growth->lock, NULL);
	pthread_cond_init(&growth->changed, NULL);
}

void growth_destroy(struct growth *growth)
{
	if (growth->fd >= 0)
		close(growth->fd);
	pthread_mutex_destroy(&growth->lock);
	pthread_cond_destroy(&growth->changed);
}

static void leave(struct growth *growth)
{
	pthread_cond_signal(&growth->changed);
	pthread_mutex_unlock(&growth->lock);
}

void growth_begin(struct growth *growth, int fd)
{
	if (!growth)
		return;
	pthread_mutex_lock(&growth->lock);
	/* Without a descriptor the layer is read when it is complete. */
	if (growth->fd < 0)
		growth->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	leave(growth);
}

void growth_advance(struct growth *growth, uint64_t bytes)
{
	if (!growth)
		return;
	pthread_mutex_lock(&growth->lock);
	growth->bytes += bytes;
	leave(growth);
}

void growth_end(struct growth *growth)
{
	if (!growth)
		return;
	pthread_mutex_lock(&growth->lock);
	growth->ended = true;
	leave(growth);
}

void growth_settle(struct growth *growth, bool failed)
{
	if (!growth)
		return;
	pthread_mutex_lock(&growth->lock);
	growth->ended = growth->settled = true;
	growth->failed = failed;
	leave(growth);
}

bool growth_is_begun(struct growth *growth)
{
	pthread_mutex_lock(&growth->lock);
	while (growth->fd < 0 && !growth->settled)
		pthread_cond_wait(&growth->changed, &growth->lock);
	const bool begun = growth->fd >= 0;
	pthread_mutex_unlock(&growth->lock);
	return begun;
}

uint64_t growth_wait(struct growth *growth, uint64_t bytes, uint64_t *grown)
{
	pthread_mutex_lock(&growth->lock);
	while (growth->bytes < bytes && !growth->ended)
		pthread_cond_wait(&growth->changed, &growth->lock);
	*grown = growth->bytes;
	const uint64_t size = growth->ended ? growth->bytes : GROWTH_UNKNOWN_BYTES;
	pthread_mutex_unlock(&growth->lock);
	return size;
}

bool growth_is_settled(struct growth *growth)
{
	pthread_mutex_lock(&growth->lock);
	while (!growth->settled)
		pthread_cond_wait(&growth->changed, &growth->lock);
	const bool well = !growth->failed;
	pthread_mutex_unlock(&growth->lock);
	return well;
}
