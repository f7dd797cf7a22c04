/*
 * When the stages of a start were reached, for --timeline. Marks cost a clock reading each and are kept in a small table; nothing is
 * printed before the end. Those of the guest come as readings of its time stamp counter, which the machine can tell in our time.
 */
#ifndef TRVMM_VMM_TIMELINE_H
#define TRVMM_VMM_TIMELINE_H

#include <stdint.h>

/* Notes that `stage` (a string constant) is reached now. Any thread. */
void timeline_mark(const char *stage);
/* ... was reached at `ns` of CLOCK_MONOTONIC. */
void timeline_mark_at(const char *stage, int64_t ns);

/* Makes the file, at a time when files can be made. Returns a descriptor or -errno. */
int timeline_open(const char *path);

/* Writes a line `NANOSECONDS STAGE` for each mark, in CLOCK_MONOTONIC, and closes the file. Returns 0 or -errno. */
int timeline_write(int fd);

#endif
