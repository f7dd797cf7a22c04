/* Options that may be repeated; see options_internal.h. */
#include "vmm/options_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest/agent/protocol.h"
#include "vmm/env_file.h"
#include "vmm/ports.h"
#include "vmm/session.h"
#include "vmm/share.h"
#include "vmm/tmpfs.h"
#include "vmm/ulimit.h"

/* Appends to an owned list that keeps a NULL behind its end. */
static int list_append(char ***list, size_t *count, char *item)
{
	char **grown = realloc(*list, (*count + 2) * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	grown[(*count)++] = item;
	grown[*count] = NULL;
	*list = grown;
	return 0;
}

int options_add_layers(struct options *options, const char *argument, struct error *err)
{
	/* "A,B": as a comma may be part of a name, \, stands for one. */
	const char *at = argument;
	for (;;) {
		char *name = malloc(strlen(at) + 1);
		size_t length = 0;
		if (!name || list_append(&options->layers, &options->layer_count, name) < 0) {
			free(name);
			return error_set(err, -ENOMEM, "out of memory");
		}
		for (; *at && *at != ','; at++) {
			if (*at == '\\' && (at[1] == ',' || at[1] == '\\'))
				at++;
			name[length++] = *at;
		}
		name[length] = '\0';
		if (length == 0)
			return error_set(err, -EINVAL, "--layers '%s': an empty name; give FILE[,FILE...]", argument);
		if (!*at++)
			return 0;
	}
}

int options_add_disk(struct options *options, const char *argument, struct error *err)
{
	if (!*argument)
		return error_set(err, -EINVAL, "--disk '': give a file, or layers=FILE[,FILE...]");
	char *copy = strdup(argument);
	if (copy && list_append(&options->disks, &options->disk_count, copy) == 0)
		return 0;
	free(copy);
	return error_set(err, -ENOMEM, "out of memory");
}

int options_add_share(struct options *options, const char *argument, struct error *err)
{
	struct share share;
	if (options->share_count == AGENT_SHARES_MAX)
		return error_set(err, -EINVAL, "-v '%s': more than %u of them", argument, AGENT_SHARES_MAX);
	if (share_parse(argument, &share, err) < 0)
		return -EINVAL;
	struct share *grown = realloc(options->shares, (options->share_count + 1) * sizeof(*grown));
	if (!grown) {
		share_destroy(&share);
		return error_set(err, -ENOMEM, "out of memory");
	}
	grown[options->share_count++] = share;
	options->shares = grown;
	return 0;
}

int options_add_port(struct options *options, const char *argument, struct error *err)
{
	struct port_rule rule;
	if (port_rule_parse(argument, &rule, err) < 0)
		return error_prefix(err, -EINVAL, "--publish");
	if (options->port_count == PORTS_MAX)
		return error_set(err, -EINVAL, "--publish '%s': at most %u ports", argument, PORTS_MAX);
	struct port_rule *grown = realloc(options->ports, (options->port_count + 1) * sizeof(*grown));
	if (!grown)
		return error_set(err, -ENOMEM, "out of memory");
	grown[options->port_count++] = rule;
	options->ports = grown;
	return 0;
}

int options_add_host_file(struct options *options, const char *argument, struct error *err)
{
	char *host;
	struct layers_added added;
	const int result = layers_added_parse(argument, &host, &added.guest, err);
	if (result < 0)
		return result;
	struct layers_added *grown = realloc(options->added, (options->added_count + 1) * sizeof(*grown));
	if (!grown) {
		free(host);
		return error_set(err, -ENOMEM, "out of memory");
	}
	added.host = host;
	grown[options->added_count++] = added;
	options->added = grown;
	return 0;
}

/* The last of one kind counts. */
int options_add_limit(struct options *options, const char *argument, struct error *err)
{
	struct session_limit limit;
	size_t i = 0;
	if (ulimit_parse(argument, &limit, err) < 0)
		return -EINVAL;
	while (i < options->limit_count && options->limits[i].resource != limit.resource)
		i++;
	if (i == options->limit_count) {
		struct session_limit *grown = realloc(options->limits, (i + 1) * sizeof(*grown));
		if (!grown)
			return error_set(err, -ENOMEM, "out of memory");
		options->limits = grown;
		options->limit_count++;
	}
	options->limits[i] = limit;
	return 0;
}

int options_add_tmpfs(struct options *options, const char *argument, struct error *err)
{
	struct session_tmpfs tmpfs;
	if (options->tmpfs_count == AGENT_TMPFS_MAX)
		return error_set(err, -EINVAL, "--tmpfs '%s': more than %u of them", argument, AGENT_TMPFS_MAX);
	const int result = tmpfs_parse(argument, &tmpfs, err);
	if (result < 0)
		return result;
	struct session_tmpfs *grown = realloc(options->tmpfs, (options->tmpfs_count + 1) * sizeof(*grown));
	if (!grown) {
		tmpfs_destroy(&tmpfs);
		return error_set(err, -ENOMEM, "out of memory");
	}
	grown[options->tmpfs_count++] = tmpfs;
	options->tmpfs = grown;
	return 0;
}

/* Where a list has a variable of this name; NULL: it has none. */
static char **find_variable(char **list, size_t count, const char *name, size_t name_length)
{
	for (size_t i = 0; i < count; i++)
		if (!strncmp(list[i], name, name_length) && list[i][name_length] == '=')
			return &list[i];
	return NULL;
}

/* Sets K=V, in the place of an earlier K. Takes `variable`, NULL for one that there was no memory for. */
static int set_variable(char ***list, size_t *count, char *variable, struct error *err)
{
	char **earlier = variable ? find_variable(*list, *count, variable, strcspn(variable, "=")) : NULL;
	if (earlier) {
		free(*earlier);
		*earlier = variable;
		return 0;
	}
	if (variable && list_append(list, count, variable) == 0)
		return 0;
	free(variable);
	return error_set(err, -ENOMEM, "out of memory");
}

int options_add_env(struct options *options, const char *argument, struct error *err)
{
	const size_t name_length = strcspn(argument, "=");
	char *variable = NULL;
	if (name_length == 0)
		return error_set(err, -EINVAL, "--env '%s': give NAME=VALUE or NAME", argument);
	if (argument[name_length] == '=') {
		variable = strdup(argument);
	} else {
		const char *value = getenv(argument);
		if (!value)
			return 0; /* as docker does: what the caller does not have is not set */
		if (asprintf(&variable, "%s=%s", argument, value) < 0)
			variable = NULL;
	}
	return set_variable(&options->env, &options->env_count, variable, err);
}

static int take_file_variable(void *data, const char *variable, struct error *err)
{
	struct options *options = data;
	return set_variable(&options->file_env, &options->file_env_count, strdup(variable), err);
}

int options_add_env_file(struct options *options, const char *path, struct error *err)
{
	return env_file_read(path, take_file_variable, options, err) < 0 ? -EINVAL : 0;
}

int options_merge_env_files(struct options *options, struct error *err)
{
	const size_t given_count = options->env_count;
	for (size_t i = 0; i < options->file_env_count; i++) {
		char *variable = options->file_env[i];
		const bool is_path = !strncmp(variable, "PATH=", 5);
		options->file_env[i] = NULL;
		if (is_path ? options->path_given
			    : find_variable(options->env, given_count, variable, strcspn(variable, "=")) != NULL) {
			free(variable);
			continue;
		}
		options->path_given |= is_path;
		const int result = set_variable(&options->env, &options->env_count, variable, err);
		if (result < 0)
			return result;
	}
	return 0;
}
