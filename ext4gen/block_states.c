/* Block states; see block_states_internal.h. */
#include "ext4gen/block_states_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Marks a chunk that is ZERO throughout. */
static uint64_t all_zero;

static uint64_t repeat_state(enum cow_state state)
{
	return (uint64_t)state * 0x5555555555555555u;
}

int block_states_init(struct block_states *states, uint64_t blocks, bool track)
{
	*states = (struct block_states){ .chunk_count = blocks / STATES_PER_CHUNK + (blocks % STATES_PER_CHUNK != 0) };
	states->chunks = calloc(states->chunk_count + 1, sizeof(*states->chunks));
	if (track)
		states->changed = calloc(states->chunk_count + 1, sizeof(*states->changed));
	if (states->chunks && (states->changed || !track))
		return 0;
	block_states_free(states);
	return -ENOMEM;
}

void block_states_free(struct block_states *states)
{
	for (uint64_t i = 0; states->chunks && i < states->chunk_count; i++)
		if (states->chunks[i] != &all_zero)
			free(states->chunks[i]);
	free(states->chunks);
	free(states->changed);
	*states = (struct block_states){ .chunks = NULL };
}

uint64_t block_states_run(const struct block_states *states, uint64_t block, uint64_t max, enum cow_state *state)
{
	const uint64_t *words = states->chunks[block / STATES_PER_CHUNK];
	const uint64_t first = block % STATES_PER_CHUNK;
	const uint64_t end = max < STATES_PER_CHUNK - first ? first + max : STATES_PER_CHUNK;
	if (!words || words == &all_zero) {
		*state = words ? COW_ZERO : COW_BASE;
		return end - first;
	}
	*state = words[first / STATES_PER_WORD] >> first % STATES_PER_WORD * 2 & 3;
	uint64_t at = first;
	while (at < end) {
		const uint64_t differs = (words[at / STATES_PER_WORD] ^ repeat_state(*state)) >> at % STATES_PER_WORD * 2;
		if (differs) {
			at += (uint64_t)__builtin_ctzll(differs) / 2;
			break;
		}
		at += STATES_PER_WORD - at % STATES_PER_WORD;
	}
	return (at < end ? at : end) - first;
}

/* The words of a chunk, which from now on has its own. NULL: no memory. */
static uint64_t *chunk_words(struct block_states *states, uint64_t chunk)
{
	uint64_t *words = states->chunks[chunk];
	if (words && words != &all_zero)
		return words;
	uint64_t *own = calloc(STATES_WORDS_PER_CHUNK, sizeof(*own));
	if (!own)
		return NULL;
	if (words)
		memset(own, 0xAA, STATES_WORDS_PER_CHUNK * sizeof(*own)); /* COW_ZERO throughout */
	states->chunks[chunk] = own;
	return own;
}

/* Notes that blocks [first, first + count) of a chunk are not as the map has them. */
static void mark_changed(struct block_states *states, uint64_t chunk, uint64_t first, uint64_t count)
{
	if (!states->changed)
		return;
	const uint64_t sector = first / STATES_PER_SECTOR, last = (first + count - 1) / STATES_PER_SECTOR;
	states->changed[chunk] |= ~(uint64_t)0 << sector & ~(uint64_t)0 >> (63 - last);
	states->any_changed = true;
}

static void set_whole_chunk(struct block_states *states, uint64_t chunk, uint64_t *words)
{
	uint64_t *before = states->chunks[chunk];
	if (before == words)
		return;
	mark_changed(states, chunk, 0, STATES_PER_CHUNK);
	if (before != &all_zero)
		free(before);
	states->chunks[chunk] = words;
}

int block_states_set(struct block_states *states, uint64_t block, uint64_t count, enum cow_state state)
{
	while (count) {
		const uint64_t chunk = block / STATES_PER_CHUNK, first = block % STATES_PER_CHUNK;
		const uint64_t take = count < STATES_PER_CHUNK - first ? count : STATES_PER_CHUNK - first;
		block += take;
		count -= take;
		if (take == STATES_PER_CHUNK && state != COW_WRITTEN) {
			set_whole_chunk(states, chunk, state == COW_ZERO ? &all_zero : NULL);
			continue;
		}
		if (!states->chunks[chunk] && state == COW_BASE)
			continue;
		uint64_t *words = chunk_words(states, chunk);
		if (!words)
			return -ENOMEM;
		for (uint64_t at = first; at < first + take;) {
			const uint64_t shift = at % STATES_PER_WORD;
			uint64_t n = STATES_PER_WORD - shift;
			if (n > first + take - at)
				n = first + take - at;
			const uint64_t mask = (n == STATES_PER_WORD ? ~(uint64_t)0 : ((uint64_t)1 << 2 * n) - 1) << 2 * shift;
			uint64_t *word = &words[at / STATES_PER_WORD];
			const uint64_t set = (*word & ~mask) | (repeat_state(state) & mask);
			if (set != *word)
				mark_changed(states, chunk, at, 1);
			*word = set;
			at += n;
		}
	}
	return 0;
}

void block_states_get_sector(const struct block_states *states, uint64_t sector, uint64_t words[STATES_WORDS_PER_SECTOR])
{
	const uint64_t *chunk = states->chunks[sector / STATES_SECTORS_PER_CHUNK];
	if (chunk && chunk != &all_zero)
		memcpy(words, chunk + sector % STATES_SECTORS_PER_CHUNK * STATES_WORDS_PER_SECTOR,
		       STATES_WORDS_PER_SECTOR * sizeof(*words));
	else
		memset(words, chunk ? 0xAA : 0, STATES_WORDS_PER_SECTOR * sizeof(*words));
}

int block_states_load_sector(struct block_states *states, uint64_t sector, const uint64_t words[STATES_WORDS_PER_SECTOR])
{
	uint64_t *chunk = chunk_words(states, sector / STATES_SECTORS_PER_CHUNK);
	if (!chunk)
		return -ENOMEM;
	memcpy(chunk + sector % STATES_SECTORS_PER_CHUNK * STATES_WORDS_PER_SECTOR, words,
	       STATES_WORDS_PER_SECTOR * sizeof(*words));
	return 0;
}
