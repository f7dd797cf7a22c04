/* What clients ask for (remote.h), and the answers. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "vmm/remote_server_internal.h"

#define EXIT_TRVMM 125

/* ---- answers ----------------------------------------------------------------------------------------------------------------- */

/* Returns false when the client does not take it: then there is no use in keeping it. */
static bool answer(struct remote_client *client, enum remote_type type, const void *body, size_t length, const char *text)
{
	size_t text_length = strlen(text);
	if (text_length > REMOTE_ANSWER_MAX - length)
		text_length = REMOTE_ANSWER_MAX - length;
	struct remote_header header = { le32_make(REMOTE_MAGIC), le32_make(REMOTE_VERSION), le32_make(type),
					le32_make((uint32_t)(length + text_length)) };
	struct iovec iov[3] = { { &header, sizeof(header) },
				{ (void *)(uintptr_t)body, length },
				{ (void *)(uintptr_t)text, text_length } };
	const struct msghdr message = { .msg_iov = iov, .msg_iovlen = 3 };
	return sendmsg(client->source.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) ==
	       (ssize_t)(sizeof(header) + length + text_length);
}

void remote_client_refuse(struct remote_client *client, const char *why)
{
	(void)answer(client, REMOTE_REFUSED, NULL, 0, why);
	remote_client_destroy(client);
}

static void answer_ended(struct remote_client *client, int exit_code, const char *text)
{
	const struct remote_ended ended = { le32_make((uint32_t)exit_code) };
	(void)answer(client, REMOTE_ENDED, &ended, sizeof(ended), text);
	remote_client_destroy(client);
}

static void on_session_ended(void *data, const struct session_result *result)
{
	const struct session_result copy = *result; /* it goes with the session */
	answer_ended(data, copy.exit_code, copy.err.text);
}

/* ---- requests ---------------------------------------------------------------------------------------------------------------- */

/* Each returns false when it has destroyed the client. */

static bool serve_exec(struct remote_client *client)
{
	struct error err = { "" };
	if (client->has_run) {
		remote_client_refuse(client, "one connection runs one command");
		return false;
	}
	client->has_run = true;
	const int result = remote_exec_start(client, on_session_ended, &err);
	if (result == -EINVAL)
		remote_client_refuse(client, err.text);
	else if (result < 0)
		answer_ended(client, EXIT_TRVMM, err.text);
	return result == 0;
}

static bool get_signal(const struct remote_client *client, int *number)
{
	struct remote_signal body;
	if (client->body_used != sizeof(body))
		return false;
	memcpy(&body, client->body, sizeof(body));
	const uint32_t value = le32_get(body.signal);
	*number = (int)value;
	return value >= 1 && value <= 64;
}

static bool serve_signal(struct remote_client *client)
{
	int number;
	if (!get_signal(client, &number)) {
		remote_client_refuse(client, "malformed SIGNAL");
		return false;
	}
	if (client->session)
		session_signal(client->session, number);
	return true;
}

static bool serve_window(struct remote_client *client)
{
	struct remote_window body;
	if (client->body_used != sizeof(body)) {
		remote_client_refuse(client, "malformed WINDOW");
		return false;
	}
	memcpy(&body, client->body, sizeof(body));
	if (client->session)
		session_resize(client->session, le16_get(body.rows), le16_get(body.columns));
	return true;
}

static bool serve_kill(struct remote_client *client)
{
	const struct remote_server_config *config = &client->server->config;
	int number;
	if (!get_signal(client, &number)) {
		remote_client_refuse(client, "malformed KILL");
		return false;
	}
	/* First the answer: there may be no time for it afterwards. */
	const bool taken = answer(client, REMOTE_DONE, NULL, 0, "");
	config->kill(config->data, number);
	if (!taken)
		remote_client_destroy(client);
	return taken;
}

static bool serve_stats(struct remote_client *client)
{
	const struct remote_server *server = client->server;
	struct remote_figures figures = { 0 };
	uint64_t sessions = 0;
	server->config.figures(server->config.data, &figures);
	for (const struct remote_client *other = server->clients; other; other = other->next)
		sessions += other->session != NULL;
	figures.sessions = le64_make(sessions);
	const bool taken = answer(client, REMOTE_FIGURES, &figures, sizeof(figures), "");
	if (!taken)
		remote_client_destroy(client);
	return taken;
}

bool remote_client_serve(struct remote_client *client)
{
	struct remote_header header;
	memcpy(&header, client->header, sizeof(header));
	switch (le32_get(header.type)) {
	case REMOTE_EXEC:
		return serve_exec(client);
	case REMOTE_SIGNAL:
		return serve_signal(client);
	case REMOTE_WINDOW:
		return serve_window(client);
	case REMOTE_KILL:
		return serve_kill(client);
	case REMOTE_STATS:
		return serve_stats(client);
	default:
		remote_client_refuse(client, "unknown request");
		return false;
	}
}
