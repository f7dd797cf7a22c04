/* The bar; see progress_internal.h. */
#include "layers/progress_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define FIRST_NS 1000000000 /* what is over sooner needs no bar */
#define AGAIN_NS 100000000
#define BAR_WIDTH 30

static int64_t now_ns(void)
{
	struct timespec now;
	return clock_gettime(CLOCK_MONOTONIC_COARSE, &now) ? 0 : now.tv_sec * 1000000000ll + now.tv_nsec;
}

bool progress_begin(struct progress *progress, uint64_t total_bytes)
{
	const char *term = getenv("TERM");
	if (!isatty(STDERR_FILENO) || !term || strcmp(term, "dumb") == 0)
		return false;
	*progress = (struct progress){ .total_bytes = total_bytes ? total_bytes : 1, .next_ns = now_ns() + FIRST_NS };
	pthread_mutex_init(&progress->lock, NULL);
	return true;
}

/* One write, so that nothing comes between. Nothing can be done about a terminal that does not take it. */
static void put(const char *text)
{
	if (write(STDERR_FILENO, text, strlen(text)) < 0)
		return;
}

static void draw(struct progress *progress, uint64_t done)
{
	char line[160], bar[BAR_WIDTH + 1];
	const uint64_t total = progress->total_bytes, shown = done < total ? done : total;
	const unsigned filled = (unsigned)((double)shown / (double)total * BAR_WIDTH);
	memset(bar, '#', filled);
	memset(bar + filled, '.', BAR_WIDTH - filled);
	bar[BAR_WIDTH] = '\0';
	snprintf(line, sizeof(line), "\rtrvmm: inflating layers [%s] %llu of %llu MB\033[K", bar,
		 (unsigned long long)(shown / 1000000), (unsigned long long)(total / 1000000));
	put(line);
	progress->drawn = true;
}

void progress_add(struct progress *progress, uint64_t bytes)
{
	if (!progress)
		return;
	const uint64_t done = __atomic_add_fetch(&progress->done_bytes, bytes, __ATOMIC_RELAXED);
	const int64_t now = now_ns();
	/* Who comes while another one draws has nothing to add. */
	if (now < __atomic_load_n(&progress->next_ns, __ATOMIC_RELAXED) || pthread_mutex_trylock(&progress->lock))
		return;
	__atomic_store_n(&progress->next_ns, now + AGAIN_NS, __ATOMIC_RELAXED);
	draw(progress, done);
	pthread_mutex_unlock(&progress->lock);
}

void progress_end(struct progress *progress)
{
	if (!progress)
		return;
	if (progress->drawn)
		put("\r\033[K");
	pthread_mutex_destroy(&progress->lock);
}
