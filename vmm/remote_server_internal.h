/*
 * What the server's files share: remote_server.c (clients come and go), remote_frame.c (their bytes become requests), remote_request.c
 * (what is done about them, and answers), remote_exec.c (what EXEC asks for).
 */
#ifndef TRVMM_VMM_REMOTE_SERVER_INTERNAL_H
#define TRVMM_VMM_REMOTE_SERVER_INTERNAL_H

#include "vmm/remote_server.h"

struct remote_client {
	struct remote_server *server; /* borrowed */
	struct remote_client *next; /* younger ones come first */
	struct loop_source source; /* the connection: owned */
	uint8_t header[sizeof(struct remote_header)];
	size_t header_used;
	uint8_t *body; /* owned; grows as it comes */
	size_t body_size, body_used;
	int fds[REMOTE_DESCRIPTORS_MAX]; /* owned; came with the frame that is being read */
	unsigned fd_count;
	struct session *session; /* owned: the command of EXEC; NULL: none */
	bool has_run; /* EXEC was asked for */
};

struct remote_server {
	struct loop *loop;
	struct remote_server_config config;
	struct loop_source listener;
	uid_t uid; /* whose machine this is */
	int spare_fd; /* given up to take, and turn away, a client when there are no descriptors left */
	struct remote_client *clients; /* owned */
	unsigned client_count;
};

/* ---- remote_server.c ---- */

/* Its connection is closed, its command is killed. */
void remote_client_destroy(struct remote_client *client);

/* ---- remote_frame.c ---- */

/* One read, and what is to be done when a request is complete. Returns false when there is no more to read now, or the client is gone. */
bool remote_client_read(struct remote_client *client);

/* What of a frame has come is forgotten, its descriptors are closed. */
void remote_client_next_frame(struct remote_client *client);

/* ---- remote_request.c ---- */

/* Does what the complete frame in `client` asks for. Returns false when that was the end of the client. */
bool remote_client_serve(struct remote_client *client);

/* Tells the client why, and destroys it. */
void remote_client_refuse(struct remote_client *client, const char *why);

/* ---- remote_exec.c ---- */

/* Starts what the frame in `client` asks for. Returns 0, or -errno with one line for the client. */
int remote_exec_start(struct remote_client *client, session_ended ended, struct error *err);

#endif
