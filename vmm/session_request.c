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

static void request_add_string(struct session_request *request, const char *string)
{
	request_add(request, string, strlen(string) + 1);
}

static void request_add_limits(struct session_request *request, const struct session_spec *spec)
{
	for (size_t i = 0; i < spec->limit_count; i++) {
		const struct agent_limit limit = { .resource = le32_make((uint32_t)spec->limits[i].resource),
						   .soft = le64_make(spec->limits[i].soft),
						   .hard = le64_make(spec->limits[i].hard) };
		request_add(request, &limit, sizeof(limit));
	}
}

/* What is mounted: its strings, as they stand behind all others. */
static size_t mount_bytes(const struct session_spec *spec)
{
	size_t bytes = 0;
	for (size_t i = 0; i < spec->tmpfs_count; i++)
		bytes += strlen(spec->tmpfs[i].folder) + strlen(spec->tmpfs[i].data) + 2;
	for (size_t i = 0; i < spec->share_count; i++) {
		const struct session_share *share = &spec->shares[i];
		bytes += strlen(share->tag) + strlen(share->place) + (share->file ? strlen(share->file) : 0) + 3;
	}
	return bytes;
}

static void request_add_mounts(struct session_request *request, const struct session_spec *spec)
{
	for (size_t i = 0; i < spec->tmpfs_count; i++) {
		request_add_string(request, spec->tmpfs[i].folder);
		request_add_string(request, spec->tmpfs[i].data);
	}
	for (size_t i = 0; i < spec->share_count; i++) {
		request_add_string(request, spec->shares[i].tag);
		request_add_string(request, spec->shares[i].place);
		request_add_string(request, spec->shares[i].file ? spec->shares[i].file : "");
	}
}

static uint32_t dax_shares(const struct session_spec *spec)
{
	uint32_t bits = 0;
	for (size_t i = 0; i < spec->share_count; i++)
		bits |= (uint32_t)spec->shares[i].dax << i;
	return bits;
}

static uint32_t read_only_shares(const struct session_spec *spec)
{
	uint32_t bits = 0;
	for (size_t i = 0; i < spec->share_count; i++)
		bits |= (uint32_t)spec->shares[i].read_only << i;
	return bits;
}

int session_request_build(struct session_request *request, uint32_t number, const struct session_spec *spec, struct error *err)
{
	/* Another session leaves the host name as it is. */
	const char *hostname = spec->hostname ? spec->hostname : number ? "" : "trvmm";
	const char *workdir = spec->workdir ? spec->workdir : "";
	const char *user = spec->user ? spec->user : "";
	const char *init = spec->init ? spec->init : "";
	size_t bytes = sizeof(struct agent_run) + strlen(hostname) + strlen(workdir) + strlen(user) + strlen(init) + 4;
	const uint32_t argc = count_strings(spec->argv, &bytes), envc = count_strings(spec->env, &bytes);

	bytes += spec->limit_count * sizeof(struct agent_limit);
	bytes += mount_bytes(spec);

	*request = (struct session_request){ 0 };
	if (!argc)
		return error_set(err, -EINVAL, "there is no command");
	if (strlen(hostname) > 64)
		return error_set(err, -EINVAL, "the host name is longer than the 64 bytes that Linux takes");
	if (spec->limit_count > AGENT_LIMITS_MAX)
		return error_set(err, -EINVAL, "%zu limits of resources; there are %u", spec->limit_count, AGENT_LIMITS_MAX);
	if (spec->tmpfs_count > (number ? 0 : AGENT_TMPFS_MAX))
		return error_set(err, -EINVAL, "%zu tmpfs; at most %u", spec->tmpfs_count, number ? 0 : AGENT_TMPFS_MAX);
	if (spec->share_count > (number ? 0 : AGENT_SHARES_MAX))
		return error_set(err, -EINVAL, "%zu shares; at most %u", spec->share_count, number ? 0 : AGENT_SHARES_MAX);
	if (bytes > AGENT_BODY_MAX || argc > AGENT_STRINGS_MAX || envc > AGENT_STRINGS_MAX - argc)
		return error_set(err, -E2BIG, "command and environment are too long: %u strings, %zu bytes; at most %u and %u",
				 argc + envc, bytes, AGENT_STRINGS_MAX, AGENT_BODY_MAX);
	request->body = malloc(bytes);
	if (!request->body)
		return error_set(err, -ENOMEM, "out of memory");
	const uint32_t flags = (spec->stdin_fd >= 0 ? AGENT_RUN_STDIN : 0) | (spec->terminal ? AGENT_RUN_TERMINAL : 0) |
			       (spec->sync ? AGENT_RUN_SYNC : 0) | (spec->proxy ? AGENT_RUN_PROXY : 0) |
			       (spec->times ? AGENT_RUN_TIMES : 0) | (spec->end_others ? AGENT_RUN_END_OTHERS : 0);
	const struct agent_run run = { .session = le32_make(number),
				       .flags = le32_make(flags),
				       .rows = le16_make(spec->rows),
				       .columns = le16_make(spec->columns),
				       .argc = le32_make(argc),
				       .envc = le32_make(envc),
				       .limit_count = le32_make((uint32_t)spec->limit_count),
				       .tmpfs_count = le32_make((uint32_t)spec->tmpfs_count),
				       .pids_max = le32_make(spec->pids_max),
				       .share_count = le32_make((uint32_t)spec->share_count),
				       .read_only_shares = le32_make(read_only_shares(spec)),
				       .dax_shares = le32_make(dax_shares(spec)) };
	request_add(request, &run, sizeof(run));
	request_add_limits(request, spec);
	request_add_string(request, hostname);
	request_add_string(request, workdir);
	request_add_string(request, user);
	request_add_string(request, init);
	for (uint32_t i = 0; i < argc; i++)
		request_add_string(request, spec->argv[i]);
	for (uint32_t i = 0; i < envc; i++)
		request_add_string(request, spec->env[i]);
	request_add_mounts(request, spec);
	return 0;
}
