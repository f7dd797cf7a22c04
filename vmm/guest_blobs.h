/*
 * Executables for the guest, part of this program: what the root folder has there as AGENT_NAME and COPY_NAME.
 *
 * Each has a slot of fixed size, with zeroes behind it, which an ELF file does not mind: the disk is laid out alike whatever they are,
 * and a disk that is kept goes on with those of the next version.
 */
#ifndef TRVMM_VMM_GUEST_BLOBS_H
#define TRVMM_VMM_GUEST_BLOBS_H

/* Another size is another layout, to which no disk belongs that was kept with this one. */
#define BLOB_SLOT_BYTES 0x20000

#ifndef __ASSEMBLER__
#include <stdint.h>

extern const uint8_t agent_blob[BLOB_SLOT_BYTES];
extern const uint8_t copy_blob[BLOB_SLOT_BYTES];
#endif

#endif
