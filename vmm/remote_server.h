/* The machine's side of vmm/remote.h: clients, their frames, their commands. All on the loop of the vsock device. */
#ifndef TRVMM_VMM_REMOTE_SERVER_H
#define TRVMM_VMM_REMOTE_SERVER_H

#include "base/loop.h"
#include "vmm/remote.h"
#include "vmm/session.h"

#define REMOTE_CLIENTS_MAX 256u

struct remote_server_config {
	int listen_fd; /* borrowed; does not block */
	struct session *session; /* borrowed: the machine's own command */
	const char *const *env; /* borrowed, as the next two: what commands get that say nothing else */
	const char *workdir, *user; /* NULL: the agent's default */
	const struct session_limit *limits; /* borrowed, for all commands */
	size_t limit_count;
	void (*kill)(void *data, int signal); /* 1 to 64. May not return */
	void (*figures)(void *data, struct remote_figures *figures); /* fills in all but `sessions` */
	void *data;
};

struct remote_server;

/* Serves clients from now on. Returns 0 or -errno. */
int remote_server_create(struct loop *loop, const struct remote_server_config *config, struct remote_server **server);

/* Lets go of all clients, whose commands are killed. Before the main session is destroyed. NULL is allowed. */
void remote_server_destroy(struct remote_server *server);

#endif
