/* From a member that a callback was given to the structure that holds it. */
#ifndef TRVMM_BASE_CONTAINER_H
#define TRVMM_BASE_CONTAINER_H

#include <stddef.h>

/* `member` of a `type` lies at `pointer`; evaluates to that `type *`. Another type of `pointer` than the member's does not compile. */
#define container_of(pointer, type, member)                                                                                        \
	((type *)(void *)((char *)(1 ? (pointer) : &((type *)0)->member) - offsetof(type, member)))

#endif
