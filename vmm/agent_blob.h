/* The agent's executable, part of this program: what ext4gen places in the guest as AGENT_PATH. */
#ifndef TRVMM_VMM_AGENT_BLOB_H
#define TRVMM_VMM_AGENT_BLOB_H

#include <stdint.h>

extern const uint8_t agent_blob[];
extern const uint64_t agent_blob_bytes;

#endif
