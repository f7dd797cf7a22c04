/* See packet.h. */
#include "base/packet.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>

void packet_attach(struct msghdr *header, union packet_ancillary *ancillary, const int *fds, unsigned fd_count)
{
	assert(fd_count <= PACKET_DESCRIPTORS_MAX);
	if (!fd_count)
		return;
	*ancillary = (union packet_ancillary){ .bytes = { 0 } };
	header->msg_control = ancillary->bytes;
	header->msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
	struct cmsghdr *c = CMSG_FIRSTHDR(header);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
	memcpy(CMSG_DATA(c), fds, fd_count * sizeof(int));
}

int packet_send(int socket, const void *bytes, size_t length, const int *fds, unsigned fd_count)
{
	union packet_ancillary ancillary;
	struct iovec iov = { (void *)(uintptr_t)bytes, length };
	struct msghdr header = { .msg_iov = &iov, .msg_iovlen = 1 };
	packet_attach(&header, &ancillary, fds, fd_count);
	ssize_t n;
	do
		n = sendmsg(socket, &header, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

int packet_receive(int socket, void *bytes, size_t length, int *fds, unsigned *fd_count)
{
	union packet_ancillary ancillary;
	struct iovec iov = { bytes, length };
	struct msghdr header = { .msg_iov = &iov, .msg_iovlen = 1 };
	if (fds) {
		assert(*fd_count <= PACKET_DESCRIPTORS_MAX);
		header.msg_control = ancillary.bytes;
		header.msg_controllen = CMSG_LEN(*fd_count * sizeof(int)); /* CMSG_SPACE has room for more */
		*fd_count = 0;
	}
	ssize_t n;
	do
		n = recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		return n < 0 ? -errno : 0;
	const struct cmsghdr *c = fds ? CMSG_FIRSTHDR(&header) : NULL;
	if (c && c->cmsg_type == SCM_RIGHTS) {
		*fd_count = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(c), *fd_count * sizeof(int));
	}
	return n == (ssize_t)length ? 1 : -EPROTO;
}
