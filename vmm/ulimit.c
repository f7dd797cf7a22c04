/* Limits of resources; see ulimit.h. */
#include "vmm/ulimit.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static const struct {
	const char *name;
	int resource;
} names[] = {
	{ "core", RLIMIT_CORE },         { "cpu", RLIMIT_CPU },
	{ "data", RLIMIT_DATA },         { "fsize", RLIMIT_FSIZE },
	{ "locks", RLIMIT_LOCKS },       { "memlock", RLIMIT_MEMLOCK },
	{ "msgqueue", RLIMIT_MSGQUEUE }, { "nice", RLIMIT_NICE },
	{ "nofile", RLIMIT_NOFILE },     { "nproc", RLIMIT_NPROC },
	{ "rss", RLIMIT_RSS },           { "rtprio", RLIMIT_RTPRIO },
	{ "rttime", RLIMIT_RTTIME },     { "sigpending", RLIMIT_SIGPENDING },
	{ "stack", RLIMIT_STACK },
};

/* The `length` bytes at `text`. */
static int parse_value(const char *text, size_t length, uint64_t *value)
{
	char copy[24], *end;
	if (length >= sizeof(copy))
		return -EINVAL;
	memcpy(copy, text, length);
	copy[length] = '\0';
	if (!strcmp(copy, "-1") || !strcmp(copy, "unlimited")) {
		*value = UINT64_MAX;
		return 0;
	}
	if (!isdigit((unsigned char)*copy))
		return -EINVAL;
	errno = 0;
	*value = strtoull(copy, &end, 10);
	return *end || errno ? -EINVAL : 0;
}

static int find_resource(const char *name, size_t length, int *resource)
{
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strlen(names[i].name) != length || memcmp(names[i].name, name, length) != 0)
			continue;
		*resource = names[i].resource;
		return 0;
	}
	return -EINVAL;
}

int ulimit_parse(const char *argument, struct session_limit *limit, struct error *err)
{
	struct session_limit parsed;
	const size_t name_length = strcspn(argument, "=");
	if (find_resource(argument, name_length, &parsed.resource) < 0)
		return error_set(
		    err, -EINVAL,
		    "--ulimit '%s': give NAME=SOFT[:HARD] with one of the names core, cpu, data, fsize, locks, memlock, "
		    "msgqueue, nice, nofile, nproc, rss, rtprio, rttime, sigpending, stack",
		    argument);
	const char *soft = argument + name_length + (argument[name_length] == '=');
	const size_t soft_length = strcspn(soft, ":");
	const char *hard = soft[soft_length] ? soft + soft_length + 1 : soft;
	if (parse_value(soft, soft_length, &parsed.soft) < 0 ||
	    parse_value(hard, hard == soft ? soft_length : strlen(hard), &parsed.hard) < 0)
		return error_set(err, -EINVAL, "--ulimit '%s': give numbers, NAME=SOFT[:HARD]; -1 is no limit", argument);
	if (parsed.soft > parsed.hard)
		return error_set(err, -EINVAL, "--ulimit '%s': the soft limit is above the hard one", argument);
	*limit = parsed;
	return 0;
}
