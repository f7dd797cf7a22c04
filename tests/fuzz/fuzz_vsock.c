/*
 * libFuzzer target: everything that a guest, and the host programs at the other end, may do to virtio-vsock.
 *
 * The input is a list of actions, each a byte and its arguments: packets built from a few likely values, so that they meet
 * connections; headers and descriptors of raw bytes; rx buffers, reset, host programs that write, read and go. The device's own
 * assertions, the sanitizers and "it comes to rest" are what is checked.
 */
#define DRV_TX_BYTES (512u << 10)
#include "tests/fuzz/input.h"
#include "tests/unit/vsock_driver.h"

#define HOSTS 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct drv drv;
static int hosts[HOSTS];
static unsigned host_count;

static void forget_host(unsigned index)
{
	if (hosts[index] >= 0)
		close(hosts[index]);
	hosts[index] = -1;
}

/* Port 2000: sockets, pipes, files and nothing, by turns. */
static int accept_various(void *data, uint32_t port, struct vsock_ends *ends)
{
	struct vsock_ends made = { .read_fd = -1, .write_fd = -1 };
	int pair[2];

	(void)port;
	if (host_count == HOSTS)
		return -ECONNREFUSED;
	switch (take32(data, 1) % 5) {
	case 0:
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0) {
			made.read_fd = made.write_fd = pair[1];
			hosts[host_count++] = pair[0];
		}
		break;
	case 1:
		if (pipe2(pair, O_NONBLOCK | O_CLOEXEC) == 0) {
			fcntl(pair[0], F_SETPIPE_SZ, 4096);
			made.write_fd = pair[1];
			hosts[host_count++] = pair[0];
		}
		break;
	case 2:
		if (pipe2(pair, O_CLOEXEC) == 0) {
			made.read_fd = pair[0];
			hosts[host_count++] = pair[1];
			fcntl(pair[1], F_SETFL, O_NONBLOCK);
		}
		break;
	case 3:
		made.read_fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
		made.write_fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
		break;
	default:
		break;
	}
	*ends = made;
	return 0;
}

/* In place of unix.c, without files or programs: port 2001 is a seqpacket socket. */
int vsock_unix_accept(struct virtio_vsock *vsock, uint16_t type, uint32_t port, struct vsock_ends *ends)
{
	int pair[2];

	(void)vsock;
	if (type != VSOCK_TYPE_SEQPACKET || port != 2001 || host_count == HOSTS ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
		return -ECONNREFUSED;
	ends->read_fd = ends->write_fd = pair[1];
	hosts[host_count++] = pair[0];
	return 0;
}

uint64_t vsock_unix_expire(struct virtio_vsock *vsock, uint64_t now_ns)
{
	(void)vsock;
	(void)now_ns;
	return 0;
}

void vsock_unix_destroy(struct virtio_vsock *vsock)
{
	(void)vsock;
}

static void some_packet(struct input *in)
{
	static const uint32_t lengths[] = { 0, 1, 5, 100, 4096, 30000, 65536, UINT32_MAX };
	static const uint64_t cids[] = { DRV_CID, DRV_CID, VSOCK_HOST_CID, UINT64_MAX };
	const uint32_t what = take32(in, 3);
	struct drv_packet *packet = drv_packet(&drv, (uint16_t)(what & 15), 5000 + (what >> 4 & 3), what >> 6 & 1 ? 2001 : 2000);
	uint32_t cuts[4], at = 0;

	packet->type = what >> 6 & 1 ? VSOCK_TYPE_SEQPACKET : VSOCK_TYPE_STREAM;
	packet->flags = what >> 7 & 3;
	packet->len = lengths[what >> 9 & 7];
	if ((what >> 12 & 15) == 15) {
		packet->src_cid = cids[take32(in, 1) & 3];
		packet->dst_cid = cids[take32(in, 1) & 3];
		packet->type = (uint16_t)take32(in, 2);
	}
	if (what >> 16 & 1)
		packet->buf_alloc = take32(in, 4);
	if (what >> 17 & 1)
		packet->fwd_cnt = take32(in, 4);
	const unsigned count = what >> 18 & 3;
	for (unsigned i = 0; i < count; i++)
		cuts[i] = at += 1 + take32(in, 1);
	const uint32_t bytes = packet->len > 65536 ? 10 : packet->len;
	const uint32_t held = (what >> 20 & 7) == 7 ? bytes / 2 : bytes;
	unsigned fitting = 0;
	while (fitting < count && cuts[fitting] < sizeof(struct vsock_hdr) + held)
		fitting++;
	if (drv.queues[VSOCK_QUEUE_TX].in_flight < 40)
		drv_queue_split(&drv, packet, held, cuts, fitting);
}

/* A descriptor of raw bytes, and where it points to. */
static void raw_chain(struct input *in, unsigned queue)
{
	const unsigned index = take32(in, 1);
	const gpa_t addr = (in->left & 1) ? drv.tx_area + take32(in, 2) : take32(in, 4);
	uint8_t header[64];

	for (unsigned i = 0; i < sizeof(header); i++)
		header[i] = (uint8_t)take32(in, 1);
	memcpy(drv_ptr(&drv, drv.tx_area), header, sizeof(header));
	drv_put_desc(&drv, queue, index, addr, take32(in, 2), (uint16_t)(take32(in, 1) & 7), (uint16_t)take32(in, 1));
	if (drv.queues[queue].in_flight < DRV_QUEUE_SIZE)
		drv_publish(&drv, queue, (uint16_t)index);
}

static void host_action(struct input *in)
{
	static uint8_t buffer[65536];
	const uint32_t what = take32(in, 2);
	const int fd = host_count ? hosts[(what & 255) % host_count] : -1;

	switch (what >> 8 & 7) {
	case 0:
	case 1:
	case 2:
		(void)!write(fd, buffer, 1u << (what >> 11 & 15));
		break;
	case 3:
	case 4:
		(void)!read(fd, buffer, sizeof(buffer));
		break;
	case 5:
		shutdown(fd, SHUT_WR);
		break;
	case 6:
		if (host_count)
			forget_host((what & 255) % host_count);
		break;
	default:
		if (host_count < HOSTS) {
			int pair[2];
			if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0) {
				const struct vsock_ends ends = { .read_fd = pair[1], .write_fd = pair[1] };
				hosts[host_count++] = pair[0];
				virtio_vsock_connect(drv.vsock, 5000, ends, NULL, NULL);
			}
		}
		break;
	}
}

/* The guest answers what the device asks, so that connections of the host open, too. */
static void guest_action(void)
{
	for (unsigned i = 0; i < 300 && drv_receive(&drv); i++) {
		if (drv.packet.op != VSOCK_OP_REQUEST || drv.queues[VSOCK_QUEUE_TX].in_flight >= 40)
			continue;
		drv_queue(&drv, drv_packet(&drv, VSOCK_OP_RESPONSE, drv.packet.dst_port, drv.packet.src_port));
	}
}

static void action(struct input *in)
{
	switch (take32(in, 1) % 16) {
	case 0:
	case 1:
	case 2:
	case 3:
	case 4:
		some_packet(in);
		break;
	case 5:
	case 6:
		drv_notify(&drv, VSOCK_QUEUE_TX);
		break;
	case 7:
		drv_notify(&drv, take32(in, 1) % 3);
		break;
	case 8:
	case 9:
		host_action(in);
		break;
	case 10:
	case 11:
		loop_round(drv.loop, 0);
		break;
	case 12:
		guest_action();
		break;
	case 13:
		raw_chain(in, take32(in, 1) % 3);
		break;
	case 14:
		drv.keep_rx = take32(in, 1) & 1;
		break;
	default:
		if (take32(in, 1) % 8 == 0) {
			drv_reset(&drv);
			drv_activate(&drv, take32(in, 1) & 1);
		}
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { .at = data, .left = size };

	drv_init(&drv);
	memset(drv.ram, 0, DRV_RAM_BYTES); /* the same input does the same */
	drv.hostile = true;
	drv.dev->device_features = VSOCK_FEATURE_SEQPACKET;
	host_count = 0;
	const int listening = virtio_vsock_listen(drv.vsock, 2000, 2000, accept_various, &in);
	assert(listening == 0);
	drv.vsock->first_cnt = take32(&in, 4);
	drv.vsock->grant_shift = take32(&in, 1) & 7; /* 2 KiB, with which backlogs are soon full */
	drv.rx_buffer_bytes = 1 + take32(&in, 2) % DRV_RX_BUFFER;
	drv_activate(&drv, take32(&in, 1) & 1);
	while (in.left)
		action(&in);
	const bool rests = drv_settle(&drv);
	assert(rests);
	drv_destroy(&drv);
	for (unsigned i = 0; i < host_count; i++)
		forget_host(i);
	return 0;
}
