/*
 * Messages with descriptors (SCM_RIGHTS). packet_send() and packet_receive() are for messages of a fixed length between processes of ours
 * on a SOCK_SEQPACKET socket: one message is one packet.
 */
#ifndef TRVMM_BASE_PACKET_H
#define TRVMM_BASE_PACKET_H

#include <stddef.h>
#include <sys/socket.h>

#define PACKET_DESCRIPTORS_MAX 4u

union packet_ancillary {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(PACKET_DESCRIPTORS_MAX * sizeof(int))];
};

/*
 * Puts `fd_count` descriptors (at most PACKET_DESCRIPTORS_MAX; 0: none), which stay the caller's, into the header of a message that
 * sendmsg() is to send. `ancillary` has to live until then.
 */
void packet_attach(struct msghdr *header, union packet_ancillary *ancillary, const int *fds, unsigned fd_count);

/* Sends `length` bytes and `fd_count` descriptors (at most PACKET_DESCRIPTORS_MAX), which stay the caller's. Returns 0 or -errno. */
int packet_send(int socket, const void *bytes, size_t length, const int *fds, unsigned fd_count);

/*
 * Receives a message of exactly `length` bytes. `fds` has room for *fd_count descriptors; then *fd_count is how many came, owned by the
 * caller and closed by exec. NULL, for both: descriptors are not received. Returns 1, 0 at the end of the connection, or -errno: -EPROTO
 * for a message of another length, whose descriptors are there all the same.
 */
int packet_receive(int socket, void *bytes, size_t length, int *fds, unsigned *fd_count);

#endif
