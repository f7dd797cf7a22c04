/* EXEC of vmm/remote.h: a frame and descriptors become a session. The frame is hostile input. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/remote_server_internal.h"

/* The strings are in the client's body. */
struct request {
	struct remote_exec exec;
	const char *workdir, *user;
	const char **argv; /* owned: argc + 1 */
	const char **env; /* owned: the machine's own variables, the client's, a terminal's, NULL */
};

static const char *take_string(const char **at, const char *end)
{
	const char *string = *at;
	const char *zero = memchr(string, 0, (size_t)(end - string));
	if (!zero)
		return NULL;
	*at = zero + 1;
	return string;
}

static bool same_name(const char *first, const char *second)
{
	const size_t length = strcspn(first, "=");
	return length == strcspn(second, "=") && !memcmp(first, second, length);
}

static bool is_in(const char *const *list, size_t count, const char *variable)
{
	for (size_t i = 0; i < count; i++)
		if (same_name(list[i], variable))
			return true;
	return false;
}

/* The client's variables come over the machine's own; a terminal is one that every image knows, as with docker. */
static bool merge_env(struct request *request, const char *const *base, const char *const *given, size_t given_count)
{
	size_t base_count = 0, count = 0;
	while (base && base[base_count])
		base_count++;
	request->env = calloc(base_count + given_count + 2, sizeof(*request->env));
	if (!request->env)
		return false;
	for (size_t i = 0; i < base_count; i++)
		if (!is_in(given, given_count, base[i]))
			request->env[count++] = base[i];
	for (size_t i = 0; i < given_count; i++)
		request->env[count++] = given[i];
	if ((le32_get(request->exec.flags) & REMOTE_EXEC_TERMINAL) && !is_in(request->env, count, "TERM="))
		request->env[count++] = "TERM=xterm";
	return true;
}

static int parse_strings(struct request *request, const char *at, const char *end, const char *const *base_env)
{
	const uint32_t argc = le32_get(request->exec.argc), envc = le32_get(request->exec.envc);
	if (!argc || argc > AGENT_STRINGS_MAX || envc > AGENT_STRINGS_MAX - argc)
		return -EINVAL;
	request->workdir = take_string(&at, end);
	request->user = request->workdir ? take_string(&at, end) : NULL;
	if (!request->user)
		return -EINVAL;
	const char **given = calloc((size_t)envc + 1, sizeof(*given));
	request->argv = calloc((size_t)argc + 1, sizeof(*request->argv));
	int result = given && request->argv ? 0 : -ENOMEM;
	for (uint32_t i = 0; result == 0 && i < argc; i++)
		if (!(request->argv[i] = take_string(&at, end)))
			result = -EINVAL;
	for (uint32_t i = 0; result == 0 && i < envc; i++)
		if (!(given[i] = take_string(&at, end)) || !strchr(given[i], '='))
			result = -EINVAL;
	if (result == 0 && at != end)
		result = -EINVAL;
	if (result == 0 && !merge_env(request, base_env, given, envc))
		result = -ENOMEM;
	free(given);
	return result;
}

int remote_exec_start(struct remote_client *client, session_ended ended, struct error *err)
{
	const struct remote_server_config *config = &client->server->config;
	const char *body = (const char *)client->body;
	struct request request = { .workdir = NULL };

	if (client->body_used < sizeof(request.exec))
		return error_set(err, -EINVAL, "malformed EXEC: too short");
	memcpy(&request.exec, body, sizeof(request.exec));
	const uint32_t flags = le32_get(request.exec.flags);
	const bool terminal = flags & REMOTE_EXEC_TERMINAL, has_stdin = flags & REMOTE_EXEC_STDIN;
	if (client->fd_count != (has_stdin ? 1u : 0u) + (terminal ? 1u : 2u))
		return error_set(err, -EINVAL, "malformed EXEC: %u descriptors", client->fd_count);
	int result = parse_strings(&request, body + sizeof(request.exec), body + client->body_used, config->env);
	if (result == 0) {
		const int *fd = client->fds + (has_stdin ? 1 : 0);
		const struct session_spec spec = {
			.argv = request.argv,
			.env = request.env,
			.workdir = *request.workdir ? request.workdir : config->workdir,
			.user = *request.user ? request.user : config->user,
			.limits = config->limits,
			.limit_count = config->limit_count,
			.terminal = terminal,
			.given = true,
			.rows = le16_get(request.exec.rows),
			.columns = le16_get(request.exec.columns),
			.stdin_fd = has_stdin ? client->fds[0] : -1,
			.stdout_fd = fd[0],
			.stderr_fd = terminal ? -1 : fd[1],
		};
		result = session_exec(config->session, &spec, ended, client, &client->session, err);
	} else {
		error_set(err, result, "malformed EXEC: %s", strerror(-result));
	}
	free(request.argv);
	free(request.env);
	return result;
}
