/* Threads with small stacks. */
#ifndef TRVMM_BASE_THREAD_H
#define TRVMM_BASE_THREAD_H

#include <pthread.h>

/*
 * Starts fn(arg) on a new thread with a stack of 1 MiB: a default one is so large that the kernel backs it with a huge page at the first
 * touch, 2 MiB for a few hundred bytes. Returns 0 or -errno.
 */
int thread_start(pthread_t *thread, void *(*fn)(void *arg), void *arg);

#endif
