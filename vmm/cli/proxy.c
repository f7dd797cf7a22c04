/* `trvmm proxy --tcp [ADDR:]PORT --vsock PATH:PORT`: a TCP port of the host for a guest that speaks vsock itself. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "vmm/cli/cli.h"
#include "vmm/cli/machines.h"
#include "vmm/ports.h"

#define VSOCK_PORT_MAX (UINT32_MAX - 1) /* the last one means any */

enum { OPT_TCP = 256, OPT_VSOCK };

struct proxy {
	struct sockaddr_un address;
	bool complained;
};

/* A Unix socket connects at once, or never: its queue is full, or nobody is there. */
static int open_vsock(void *data, struct ports_way *way)
{
	struct proxy *proxy = data;
	(void)way; /* what a guest at the other end of a Unix socket resets, nobody says */
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)&proxy->address, sizeof(proxy->address)) == 0)
		return fd;
	const int error = errno;
	if (fd >= 0)
		close(fd);
	if (!proxy->complained)
		message("proxy: %s: %s; its clients are refused", proxy->address.sun_path, strerror(error));
	proxy->complained = true;
	return -error;
}

/* PATH:PORT; a path may have colons. */
static int parse_vsock(const char *text, struct proxy *proxy, uint32_t *port, struct error *err)
{
	const char *colon = strrchr(text, ':');
	*port = colon ? port_number_parse(colon + 1, VSOCK_PORT_MAX) : 0;
	if (!*port || colon == text)
		return error_set(err, -EINVAL, "--vsock '%s': give PATH:PORT, with a port from 1 to %u", text, VSOCK_PORT_MAX);
	const size_t length = (size_t)(colon - text);
	proxy->address.sun_family = AF_UNIX;
	if (length >= sizeof(proxy->address.sun_path))
		return error_set(err, -ENAMETOOLONG, "--vsock '%s': the path of a Unix socket has at most %zu bytes", text,
				 sizeof(proxy->address.sun_path) - 1);
	memcpy(proxy->address.sun_path, text, length);
	return 0;
}

static int serve(struct proxy *proxy, const struct port_rule *rule, struct error *err)
{
	struct ports *ports = NULL;
	struct loop *loop = loop_create();
	if (!loop)
		return error_set(err, -errno, "epoll: %s", strerror(errno));
	int result = ports_create(loop, open_vsock, proxy, &ports, err);
	if (result == 0)
		result = ports_add(ports, rule, err);
	if (result == 0) {
		ports_start(ports);
		result = loop_run(loop);
		error_set(err, result, "%s", strerror(-result));
	}
	ports_destroy(ports);
	loop_destroy(loop);
	return result;
}

static const struct option_row options[] = {
	{ OPT_TCP, "tcp", "[ADDR:]PORT", "where to listen (default address: 127.0.0.1)" },
	{ OPT_VSOCK, "vsock", "PATH:PORT", "a Unix socket in Firecracker's convention, and the port behind it" },
};
static const struct cli_command command = {
	.usage = "proxy --tcp [ADDR:]PORT --vsock PATH:PORT",
	.summary = "Lead TCP connections to a vsock port of a virtual machine.",
	.options = options,
	.option_count = sizeof(options) / sizeof(options[0]),
};

int cli_proxy(int argc, char **argv)
{
	struct proxy proxy = { .complained = false };
	struct port_rule rule = { .guest_port = 0 };
	struct error err = { "" };
	const char *value;
	int id, result = 0;

	optind = 0;
	while ((id = cli_next_option(argc, argv, &command, &value)) != -1) {
		if (id == 0)
			return EXIT_TRVMM;
		if (id == OPT_TCP && (result = port_address_parse(value, &rule.address, &err)) < 0)
			error_prefix(&err, result, "--tcp");
		else if (id == OPT_VSOCK)
			result = parse_vsock(value, &proxy, &rule.guest_port, &err);
		if (result < 0)
			return cli_fail("proxy", &err);
	}
	if (optind != argc || !rule.address.length || !rule.guest_port)
		return cli_usage(&command);
	signal(SIGPIPE, SIG_IGN);
	serve(&proxy, &rule, &err);
	return cli_fail("proxy", &err);
}
