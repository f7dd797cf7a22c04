/*
 * Messages of a fixed length with descriptors (SCM_RIGHTS), between processes of ours on a SOCK_SEQPACKET socket: one message is one packet.
 */
#ifndef TRVMM_BASE_PACKET_H
#define TRVMM_BASE_PACKET_H

#include <stddef.h>

#define PACKET_DESCRIPTORS_MAX 4u

/* Sends `length` bytes and `fd_count` descriptors (at most PACKET_DESCRIPTORS_MAX), which stay the caller's. Returns 0 or -errno. */
int packet_send(int socket, const void *bytes, size_t length, const int *fds, unsigned fd_count);

/*
 * Receives a message of exactly `length` bytes. `fds` has room for *fd_count descriptors; then *fd_count is how many came, owned by the
 * caller and closed by exec. NULL, for both: descriptors are not received. Returns 1, 0 at the end of the connection, or -errno: -EPROTO
 * for a message of another length, whose descriptors are there all the same.
 */
int packet_receive(int socket, void *bytes, size_t length, int *fds, unsigned *fd_count);

#endif
