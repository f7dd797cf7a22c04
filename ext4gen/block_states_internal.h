/*
 * The state of each block of a copy-on-write disk: two bits a block, in chunks of 64 Ki blocks (256 MiB) that are allocated as they are
 * touched. A chunk that is all BASE or all ZERO takes no memory, so a guest may discard terabytes and pays for none.
 *
 * A map that is kept on disk is written in sectors of 1024 blocks, 64 of them a chunk; which ones have changed is remembered here.
 */
#ifndef TRVMM_EXT4GEN_BLOCK_STATES_INTERNAL_H
#define TRVMM_EXT4GEN_BLOCK_STATES_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "ext4gen/cow.h"

enum {
	STATES_PER_WORD = 32, /* lowest bits first */
	STATES_PER_CHUNK = 65536,
	STATES_WORDS_PER_CHUNK = STATES_PER_CHUNK / STATES_PER_WORD,
	STATES_PER_SECTOR = 1024,
	STATES_WORDS_PER_SECTOR = STATES_PER_SECTOR / STATES_PER_WORD,
	STATES_SECTORS_PER_CHUNK = STATES_PER_CHUNK / STATES_PER_SECTOR,
};

struct block_states {
	uint64_t **chunks; /* owned; NULL: all blocks BASE, a mark of block_states.c: all ZERO */
	uint64_t *changed; /* owned; a bit for each sector of a chunk. NULL: not asked for */
	uint64_t chunk_count;
	bool any_changed;
};

/* All blocks BASE. `track`: remember what changes. Returns 0 or -ENOMEM. */
int block_states_init(struct block_states *states, uint64_t blocks, bool track);
void block_states_free(struct block_states *states);

/* Tells the state of `block` and how many blocks from there on have it, at most `max` (which is more than 0). */
uint64_t block_states_run(const struct block_states *states, uint64_t block, uint64_t max, enum cow_state *state);

int block_states_set(struct block_states *states, uint64_t block, uint64_t count, enum cow_state state);

/* One sector's words, to and from the map. Loading does not count as a change. Returns 0 or -ENOMEM. */
void block_states_get_sector(const struct block_states *states, uint64_t sector, uint64_t words[STATES_WORDS_PER_SECTOR]);
int block_states_load_sector(struct block_states *states, uint64_t sector, const uint64_t words[STATES_WORDS_PER_SECTOR]);

#endif
