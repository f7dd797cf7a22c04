/* Ways into the guest that a run opens on the host: -p and --vsock. See run_internal.h. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guest/agent/protocol.h"
#include "vmm/keeper.h"
#include "vmm/run_internal.h"
#include "vmm/run_named.h"

_Static_assert(PORTS_CLIENTS_MAX <= AGENT_PROXIED_MAX, "the agent never has to let a client wait");

static void way_closed(void *data)
{
	ports_way_leave(data);
}

/* The device has the other end of the pair, and passes on what is written before the guest has accepted. */
static int open_to_agent(void *data, struct ports_way *way)
{
	struct run *run = data;
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	const struct vsock_ends ends = { .read_fd = pair[1],
					 .write_fd = pair[1],
					 .closed = way_closed,
					 .closed_data = way,
					 .host_reset = &way->client_reset,
					 /* The agent says the end of each direction before it closes both, unless they broke. */
					 .guest_reset = &way->guest_reset };
	const int result = virtio_vsock_connect(run->vsock, AGENT_PORT_PROXY, ends, NULL, NULL);
	if (result == 0) {
		way->users++;
		return pair[0];
	}
	close(pair[0]);
	return result;
}

int run_open_ports(struct run *run, struct error *err)
{
	const struct options *options = run->options;
	if (!options->port_count)
		return 0;
	int result = ports_create(run->loop, open_to_agent, run, &run->ports, err);
	for (size_t i = 0; i < options->port_count && result == 0; i++) {
		result = ports_add(run->ports, &options->ports[i], err);
		if (result < 0)
			error_prefix(err, result, "--publish");
	}
	return result;
}

/* ---- what has a name outside ------------------------------------------------------------------------------------------------- */

int run_start_keeper(struct run *run, struct error *err)
{
	const struct options *options = run->options;
	int stdout_fd = -1, stderr_fd = -1;
	const struct keeper_spec spec = {
		.claim = run_named_registry(run),
		.log = options->detach,
		.vsock_path = options->vsock,
	};
	if (!spec.claim && !spec.vsock_path)
		return 0;
	const int result = keeper_start(&spec, &run->keeper, &stdout_fd, &stderr_fd, err);
	if (result == 0)
		run_named_kept(run, stdout_fd, stderr_fd);
	return result;
}

static int connect_port(void *data, bool seqpacket, uint32_t port)
{
	return keeper_connect(data, seqpacket, port);
}

int run_serve_vsock(struct run *run, struct error *err)
{
	const char *path = run->options->vsock;
	const int result = path ? virtio_vsock_serve_unix(run->vsock, path, err) : 0;
	if (result < 0 || !path)
		return result;
	keeper_owns_vsock(run->keeper);
	virtio_vsock_set_connector(run->vsock, connect_port, run->keeper);
	return 0;
}
