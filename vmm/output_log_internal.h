/* The log's files, for those who write and read them; see output_log.h. */
#ifndef TRVMM_VMM_OUTPUT_LOG_INTERNAL_H
#define TRVMM_VMM_OUTPUT_LOG_INTERNAL_H

#include <assert.h>

#include "base/le.h"
#include "vmm/output_log.h"

#define OUTPUT_LOG_FILE "log"
#define OUTPUT_LOG_FILE_OLD "log.1"

struct output_log_record {
	le32 stream;
	le32 length;
	le64 time_ns;
};
static_assert(sizeof(struct output_log_record) == 16, "output_log.h");

#endif
