/*
 * What a detached machine writes to its stdout and stderr, kept in its folder and bounded: two files, `log` and the older `log.1`, which
 * together hold at least the last OUTPUT_LOG_FILE_BYTES and at most twice that.
 *
 * A file is a row of records, in the order in which the bytes arrived:
 *
 *    0        4        8              16
 *    | stream | length | time         | length bytes |      le32, le32, le64: nanoseconds since the epoch
 *
 * Each is written by one call. A record that is cut short was being written when the process was killed, or the storage was full.
 */
#ifndef TRVMM_VMM_OUTPUT_LOG_H
#define TRVMM_VMM_OUTPUT_LOG_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

#define OUTPUT_LOG_FILE_BYTES (4u << 20)
#define OUTPUT_LOG_RECORD_MAX 65536u

enum output_log_stream { OUTPUT_LOG_STDOUT = 1, OUTPUT_LOG_STDERR = 2 };

/* ---- the machine's side ---- */

struct output_log;

/*
 * Makes the log in `folder_fd` (borrowed) and starts a thread that fills it from two pipes, whose ends for writing are returned (owned by
 * the caller, CLOEXEC, blocking). What the storage does not take is dropped: nobody who writes there is held up for good. The thread
 * inherits the caller's signal mask. Returns 0 or -errno with one line.
 */
int output_log_start(int folder_fd, struct output_log **log, int *stdout_fd, int *stderr_fd, struct error *err);

/* Stores what is in the pipes now, and ends the thread. Does not wait for those who hold an end for writing. NULL is allowed. */
void output_log_finish(struct output_log *log);

/* ---- readers ---- */

struct output_log_reader {
	int folder_fd; /* borrowed */
	int fd; /* owned; -1: there is no log yet */
	uint64_t offset;
	long skip_lines; /* still to be left out */
};

/* Begins with the oldest record; `lines` >= 0: with the last that many lines of both streams together. Returns 0 or -errno. */
int output_log_open(struct output_log_reader *reader, int folder_fd, long lines);
void output_log_close(struct output_log_reader *reader);

/*
 * The next bytes of one stream, into `bytes` of OUTPUT_LOG_RECORD_MAX. Returns how many, 0 when there are no more by now, or -errno:
 * -EBADMSG for a file that is no log.
 */
ssize_t output_log_next(struct output_log_reader *reader, enum output_log_stream *stream, uint8_t *bytes);

#endif
