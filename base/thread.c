/* Threads with small stacks; see thread.h. */
#include "base/thread.h"

#define STACK_BYTES (1u << 20)

int thread_start(pthread_t *thread, void *(*fn)(void *arg), void *arg)
{
	pthread_attr_t attributes;
	int result = pthread_attr_init(&attributes);
	if (result)
		return -result;
	result = pthread_attr_setstacksize(&attributes, STACK_BYTES);
	if (!result)
		result = pthread_create(thread, &attributes, fn, arg);
	pthread_attr_destroy(&attributes);
	return -result;
}
