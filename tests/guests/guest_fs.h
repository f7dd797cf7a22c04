/* A driver of virtio-fs that sends what it is told: FUSE requests as bytes, several at a time. */
#ifndef TRVMM_TESTS_GUESTS_GUEST_FS_H
#define TRVMM_TESTS_GUESTS_GUEST_FS_H

#include <linux/fuse.h>

#include "tests/guests/guest.h"

#define FS_HIPRIO 0u
#define FS_REQUEST 1u
#define FS_QUEUE_SIZE 128u
#define FS_SLOTS 40u /* requests at a time; slot i has descriptors 3 * i and on */
#define FS_BODY_BYTES 1024u
#define FS_ANSWER_BYTES 4096u

/* What fs_call() returns besides errno values, which are negative. */
#define FS_LOST 1 /* it did not come back */
#define FS_EMPTY 2 /* it came back with nothing written */
#define FS_BROKEN 3 /* lengths of header and used ring differ, or the unique number is another */

struct fs_slot {
	struct fuse_in_header header;
	uint8_t body[FS_BODY_BYTES];
	struct fuse_out_header answer;
	uint8_t out[FS_ANSWER_BYTES];
};
extern struct fs_slot fs_slots[FS_SLOTS];
extern struct device fs;

/* Starts the device with both queues; no request was made. */
bool fs_start(void);
/* ... and does FUSE_INIT. */
bool fs_start_mounted(void);
int fs_init(void);

/* Writes a request to a slot: header and body. `unique` is the slot's number and a count. */
void fs_prepare(unsigned slot, uint32_t opcode, uint64_t node, const void *body, uint32_t body_bytes);
/* Gives it to the device: header and body in one readable part, header and `out_bytes` in one writable part. */
void fs_submit(unsigned slot, uint32_t body_bytes, uint32_t out_bytes);
/* What slot's answer says, when its chain came back with `length`. */
int fs_result(unsigned slot, uint32_t length);

/* One request in slot 0, waited for. The answer's body is in fs_slots[0].out. */
int fs_call(uint32_t opcode, uint64_t node, const void *body, uint32_t body_bytes);
/* The same with arguments and one name behind them. */
int fs_call_name(uint32_t opcode, uint64_t node, const void *arguments, uint32_t arguments_bytes, const char *name);

/* The root can be asked for its attributes: the device and the server work. */
bool fs_works(void);

/* Where the window is, a shared memory region; 0: there is none. */
uint64_t fs_window(uint64_t *bytes);

/* SETUPMAPPING of a node's file at an offset of the window, as Linux does it. */
int fs_map(uint64_t node, uint64_t offset, uint64_t length, uint64_t flags, uint64_t at);
/* REMOVEMAPPING that says `count` and has one. */
int fs_unmap(uint32_t count, uint64_t at, uint64_t length);

/* LOOKUP of a name in the root. Returns the node, or 0. */
uint64_t fs_lookup(const char *name);

#endif
