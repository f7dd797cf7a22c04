/*
 * Clients of a named machine: how they come and go; see remote.h.
 *
 * What a client costs is bounded: one frame, three descriptors and one command at a time, ROUNDS reads before others have their turn. When
 * there is no room for one more, the one that has been here longest without a command makes room.
 */
#include "vmm/remote_server.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/container.h"
#include "vmm/remote_server_internal.h"
#include "vmm/sandbox.h"

#define ROUNDS 16
#define UNMAPPED_UID 65534u

void remote_client_destroy(struct remote_client *client)
{
	struct remote_server *server = client->server;
	struct remote_client **link = &server->clients;
	while (*link != client)
		link = &(*link)->next;
	*link = client->next;
	server->client_count--;
	loop_remove(server->loop, &client->source);
	close(client->source.fd);
	session_destroy(client->session);
	remote_client_next_frame(client);
	free(client);
}

static void client_ready(struct loop_source *source, uint32_t events)
{
	struct remote_client *client = container_of(source, struct remote_client, source);
	(void)events;
	for (unsigned i = 0; i < ROUNDS; i++)
		if (!remote_client_read(client))
			return;
}

/*
 * In the sandbox's user namespace all but our own number are one, that of nobody. As the folder of the socket lets in nobody but its owner
 * and root, this is root.
 */
static bool is_welcome(const struct remote_server *server, int fd)
{
	struct ucred peer;
	socklen_t length = sizeof(peer);
	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 &&
	       (peer.uid == server->uid || peer.uid == 0 || (server->uid != 0 && sandbox_is_closed() && peer.uid == UNMAPPED_UID));
}

static void make_room(struct remote_server *server)
{
	struct remote_client *oldest = NULL;
	for (struct remote_client *client = server->clients; client; client = client->next)
		if (!client->session)
			oldest = client;
	if (oldest)
		remote_client_refuse(oldest, "the machine has too many clients");
}

static void client_create(struct remote_server *server, int fd)
{
	struct remote_client *client = calloc(1, sizeof(*client));
	if (!client) {
		close(fd);
		return;
	}
	*client = (struct remote_client){ .server = server,
					  .next = server->clients,
					  .source = { .fd = fd, .events = EPOLLIN, .ready = client_ready } };
	server->clients = client;
	server->client_count++;
	if (loop_add(server->loop, &client->source) < 0)
		remote_client_destroy(client);
	else if (server->client_count > REMOTE_CLIENTS_MAX)
		remote_client_refuse(client, "the machine has too many clients");
}

static void listener_ready(struct loop_source *source, uint32_t events)
{
	struct remote_server *server = container_of(source, struct remote_server, listener);
	(void)events;
	int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0 && (errno == EMFILE || errno == ENFILE) && server->spare_fd >= 0) {
		/* One that is not accepted would wake us for ever. */
		close(server->spare_fd);
		fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0)
			close(fd);
		server->spare_fd = fcntl(source->fd, F_DUPFD_CLOEXEC, 0);
		return;
	}
	if (fd < 0)
		return;
	if (!is_welcome(server, fd)) {
		close(fd);
		return;
	}
	if (server->client_count >= REMOTE_CLIENTS_MAX)
		make_room(server);
	client_create(server, fd);
}

int remote_server_create(struct loop *loop, const struct remote_server_config *config, struct remote_server **made)
{
	struct remote_server *server = calloc(1, sizeof(*server));
	if (!server)
		return -ENOMEM;
	server->loop = loop;
	server->config = *config;
	server->listener = (struct loop_source){ .fd = config->listen_fd, .events = EPOLLIN, .ready = listener_ready };
	server->uid = geteuid();
	server->spare_fd = fcntl(config->listen_fd, F_DUPFD_CLOEXEC, 0);
	const int result = server->spare_fd < 0 ? -errno : loop_add(loop, &server->listener);
	if (result < 0) {
		if (server->spare_fd >= 0)
			close(server->spare_fd);
		free(server);
		return result;
	}
	*made = server;
	return 0;
}

void remote_server_destroy(struct remote_server *server)
{
	if (!server)
		return;
	for (struct remote_client *client = server->clients, *next; client; client = next) {
		next = client->next;
		remote_client_destroy(client);
	}
	loop_remove(server->loop, &server->listener);
	close(server->spare_fd);
	free(server);
}
