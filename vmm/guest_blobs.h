/* Executables for the guest, part of this program: what ext4gen places there as AGENT_PATH and COPY_PROGRAM. */
#ifndef TRVMM_VMM_GUEST_BLOBS_H
#define TRVMM_VMM_GUEST_BLOBS_H

#include <stdint.h>

extern const uint8_t agent_blob[];
extern const uint64_t agent_blob_bytes;
extern const uint8_t copy_blob[];
extern const uint64_t copy_blob_bytes;

#endif
