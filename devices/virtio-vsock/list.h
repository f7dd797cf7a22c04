/*
 * Lists of things that contain their links: circular, doubly linked, with the list itself as one more link. A link that is on
 * no list has a NULL `next`, so that whoever holds a thing knows whether it is listed, and memory of zeroes is a thing on no
 * list.
 */
#ifndef TRVMM_DEVICES_VIRTIO_VSOCK_LIST_H
#define TRVMM_DEVICES_VIRTIO_VSOCK_LIST_H

#include <stdbool.h>

#include "base/container.h"

struct vsock_link {
	struct vsock_link *next, *prev;
};

static inline void list_init(struct vsock_link *list)
{
	list->next = list->prev = list;
}

static inline bool list_empty(const struct vsock_link *list)
{
	return list->next == list;
}

static inline bool link_listed(const struct vsock_link *link)
{
	return link->next != NULL;
}

static inline void list_append(struct vsock_link *list, struct vsock_link *link)
{
	link->next = list;
	link->prev = list->prev;
	list->prev->next = link;
	list->prev = link;
}

/* Takes the link off its list, when it is on one. */
static inline void list_remove(struct vsock_link *link)
{
	if (!link_listed(link))
		return;
	link->prev->next = link->next;
	link->next->prev = link->prev;
	link->next = link->prev = NULL;
}

/* The first thing on a list, whose `member` is its link; or NULL. */
#define LIST_FIRST_OF(list, type, member) (list_empty(list) ? NULL : container_of((list)->next, type, member))

#endif
