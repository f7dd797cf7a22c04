/*
 * Who serves which port of the host, connections that start at the host, and the one timer of the device.
 *
 * The timer runs for connects that the guest has not answered, for host programs that have not finished their CONNECT line and for
 * connections that wait for credit (credit.c). While none of these exist it is not armed.
 */
#include "base/container.h"
#include "devices/virtio-vsock/vsock_internal.h"

#include <errno.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

/* ---- timeouts ---------------------------------------------------------------------------------------------------------------- */

uint64_t vsock_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void vsock_expire(struct virtio_vsock *vsock)
{
	const uint64_t now = vsock_now_ns();
	struct vsock_conn *conn;

	vsock->timer_deadline_ns = 0;
	while ((conn = LIST_FIRST_OF(&vsock->connecting, struct vsock_conn, connecting_link)) && conn->deadline_ns <= now) {
		/* The guest may answer yet; it hears then that nobody waits. */
		if (conn->pending & PENDING_REQUEST)
			conn_kill(conn, -ETIMEDOUT);
		else
			conn_reset(conn, -ETIMEDOUT);
	}
	const uint64_t next[] = { conn ? conn->deadline_ns : 0, credit_probe_all(vsock, now), vsock_unix_expire(vsock, now) };
	for (unsigned i = 0; i < sizeof(next) / sizeof(next[0]); i++)
		if (next[i])
			vsock_timer_at(vsock, next[i]);
}

static void vsock_timer_ready(struct loop_source *source, uint32_t events)
{
	struct virtio_vsock *vsock = container_of(source, struct virtio_vsock, timer);
	uint64_t expirations;

	(void)events;
	if (read(source->fd, &expirations, sizeof(expirations)) != (ssize_t)sizeof(expirations))
		return;
	vsock_enter(vsock);
	vsock_expire(vsock);
	vsock_leave(vsock);
}

/* ---- the limit --------------------------------------------------------------------------------------------------------------- */

void virtio_vsock_set_limit(struct virtio_vsock *vsock, const struct throttle_limit *limit)
{
	throttle_init(&vsock->throttle, limit);
}

bool vsock_is_throttled(struct virtio_vsock *vsock)
{
	if (!throttle_is_on(&vsock->throttle))
		return false;
	const uint64_t now_ns = vsock_now_ns(), wait_ns = throttle_wait_ns(&vsock->throttle, now_ns);
	/* Without a timer there would be no going on. */
	return wait_ns && vsock_timer_at(vsock, now_ns + wait_ns) == 0;
}

void vsock_charge(struct virtio_vsock *vsock, uint64_t bytes)
{
	if (throttle_is_on(&vsock->throttle))
		throttle_charge(&vsock->throttle, bytes, vsock_now_ns());
}

int vsock_timer_create(struct virtio_vsock *vsock)
{
	if (vsock->timer.fd >= 0)
		return 0;
	vsock->timer.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (vsock->timer.fd < 0)
		return -errno;
	const int result = loop_add(vsock->dev.loop, &vsock->timer);
	if (result < 0) {
		close(vsock->timer.fd);
		vsock->timer.fd = -1;
	}
	return result;
}

int vsock_timer_at(struct virtio_vsock *vsock, uint64_t deadline_ns)
{
	if (vsock->timer_deadline_ns && vsock->timer_deadline_ns <= deadline_ns)
		return 0;
	const int result = vsock_timer_create(vsock);
	if (result < 0)
		return result;
	const struct itimerspec when = {
		.it_value = { .tv_sec = (time_t)(deadline_ns / 1000000000u), .tv_nsec = (long)(deadline_ns % 1000000000u) },
	};
	if (timerfd_settime(vsock->timer.fd, TFD_TIMER_ABSTIME, &when, NULL) < 0)
		return -errno;
	vsock->timer_deadline_ns = deadline_ns;
	return 0;
}

void vsock_timer_init(struct virtio_vsock *vsock)
{
	vsock->timer = (struct loop_source){ .fd = -1, .events = EPOLLIN, .ready = vsock_timer_ready };
}

void vsock_timer_destroy(struct virtio_vsock *vsock)
{
	if (vsock->timer.fd < 0)
		return;
	loop_remove(vsock->dev.loop, &vsock->timer);
	close(vsock->timer.fd);
	vsock->timer.fd = -1;
}

/* ---- services and connects --------------------------------------------------------------------------------------------------- */

int virtio_vsock_listen(struct virtio_vsock *vsock, uint32_t first, uint32_t last, vsock_accept accept, void *data)
{
	if (first > last)
		return -EINVAL;
	for (unsigned i = 0; i < vsock->service_count; i++)
		if (first <= vsock->services[i].last && last >= vsock->services[i].first)
			return -EEXIST;
	if (vsock->service_count == VSOCK_SERVICES_MAX)
		return -ENOSPC;
	vsock->services[vsock->service_count++] = (struct vsock_service){ first, last, accept, data };
	return 0;
}

const struct vsock_service *vsock_find_service(const struct virtio_vsock *vsock, uint32_t port)
{
	for (unsigned i = 0; i < vsock->service_count; i++)
		if (port >= vsock->services[i].first && port <= vsock->services[i].last)
			return &vsock->services[i];
	return NULL;
}

/* A host port that no connection to `guest_port` uses. There are more ports than connections. */
static uint32_t ephemeral_port(struct virtio_vsock *vsock, uint32_t guest_port)
{
	for (;;) {
		const uint32_t port = vsock->next_host_port;
		vsock->next_host_port = port >= UINT32_MAX - 1 ? VSOCK_EPHEMERAL_FIRST : port + 1;
		if (!conn_find(vsock, port, guest_port))
			return port;
	}
}

static int connect_guest(struct virtio_vsock *vsock, uint16_t type, uint32_t guest_port, const struct vsock_ends *ends,
			 vsock_done done, void *data, bool greets)
{
	const uint64_t deadline = vsock_now_ns() + VSOCK_TIMEOUT_NS;
	const int result = vsock_timer_at(vsock, deadline);

	if (result < 0) {
		vsock_ends_close(ends);
		return result;
	}
	const uint32_t host_port = ephemeral_port(vsock, guest_port);
	struct vsock_conn *conn = conn_create(vsock, type, host_port, guest_port, VSOCK_CONNECTING, ends);
	if (!conn)
		return -errno;
	conn->done = done;
	conn->done_data = data;
	conn->greets = greets;
	conn->deadline_ns = deadline;
	list_append(&vsock->connecting, &conn->connecting_link);
	vsock_enter(vsock);
	conn_pend(conn, PENDING_REQUEST);
	vsock_leave(vsock);
	return 0;
}

int virtio_vsock_connect(struct virtio_vsock *vsock, uint32_t guest_port, struct vsock_ends ends, vsock_done done, void *data)
{
	return connect_guest(vsock, VSOCK_TYPE_STREAM, guest_port, &ends, done, data, false);
}

void vsock_connect_client(struct virtio_vsock *vsock, uint16_t type, uint32_t guest_port, int fd)
{
	const struct vsock_ends ends = { .read_fd = fd, .write_fd = fd };

	connect_guest(vsock, type, guest_port, &ends, NULL, NULL, true);
}
