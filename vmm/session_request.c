/* What a session asks of the agent: the body of RUN (guest/agent/protocol.h), within its limits. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/session_internal.h"

static void request_add(struct session_request *request, const void *bytes, size_t length)
{
	memcpy(request->body + request->length, bytes, length);
	request->length += length;
}

static uint32_t count_strings(const char *const *list, size_t *bytes)
{
	uint32_t count = 0;
	for (; list && list[count] && count <= AGENT_STRINGS_MAX; count++)
		*bytes += strlen(list[count]) + 1;
	return count;
}

int session_request_build(struct session_request *request, uint32_t number, const struct session_spec *spec, struct error *err)
{
	/* Another session leaves the host name as it is. */
	const char *hostname = spec->hostname ? spec->hostname : number ? "" : "trvmm";
	const char *workdir = spec->workdir ? spec->workdir : "";
	const char *user = spec->user ? spec->user : "";
	size_t bytes = sizeof(struct agent_run) + strlen(hostname) + strlen(workdir) + strlen(user) + 3;
	const uint32_t argc = count_strings(spec->argv, &bytes), envc = count_strings(spec->env, &bytes);

	*request = (struct session_request){ 0 };
	if (!argc)
		return error_set(err, -EINVAL, "there is no command");
	if (strlen(hostname) > 64)
		return error_set(err, -EINVAL, "the host name is longer than the 64 bytes that Linux takes");
	if (bytes > AGENT_BODY_MAX || argc > AGENT_STRINGS_MAX || envc > AGENT_STRINGS_MAX - argc)
		return error_set(err, -E2BIG, "command and environment are too long: %u strings, %zu bytes; at most %u and %u",
				 argc + envc, bytes, AGENT_STRINGS_MAX, AGENT_BODY_MAX);
	request->body = malloc(bytes);
	if (!request->body)
		return error_set(err, -ENOMEM, "out of memory");
	const uint32_t flags = (spec->stdin_fd >= 0 ? AGENT_RUN_STDIN : 0) | (spec->terminal ? AGENT_RUN_TERMINAL : 0) |
			       (spec->sync ? AGENT_RUN_SYNC : 0);
	const struct agent_run run = { .session = le32_make(number), .flags = le32_make(flags), .rows = le16_make(spec->rows),
				       .columns = le16_make(spec->columns), .argc = le32_make(argc), .envc = le32_make(envc) };
	request_add(request, &run, sizeof(run));
	request_add(request, hostname, strlen(hostname) + 1);
	request_add(request, workdir, strlen(workdir) + 1);
	request_add(request, user, strlen(user) + 1);
	for (uint32_t i = 0; i < argc; i++)
		request_add(request, spec->argv[i], strlen(spec->argv[i]) + 1);
	for (uint32_t i = 0; i < envc; i++)
		request_add(request, spec->env[i], strlen(spec->env[i]) + 1);
	return 0;
}
