/* What runs in the guest; see command.h. */
#include "vmm/command.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static size_t list_length(const char *const *list)
{
	size_t length = 0;
	while (list && list[length])
		length++;
	return length;
}

static const char **list_append(const char **to, const char *const *list)
{
	while (list && *list)
		*to++ = *list++;
	return to;
}

static int resolve_argv(const struct options *options, const struct image_config *image, struct command *command, struct error *err)
{
	const char *const entrypoint_option[] = { options->entrypoint, NULL };
	const char *const *before = options->entrypoint ? entrypoint_option : (const char *const *)image->entrypoint;
	const char *const *rest = options->command;
	if (!rest[0] && !options->entrypoint)
		rest = (const char *const *)image->command;
	const size_t length = list_length(before) + list_length(rest);
	if (length == 0)
		return error_set(err, -EINVAL, "no command, and none in the layers; give one: trvmm [OPTIONS] -- COMMAND [ARG...]");
	command->argv = calloc(length + 1, sizeof(*command->argv));
	if (!command->argv)
		return error_set(err, -ENOMEM, "out of memory");
	list_append(list_append(command->argv, before), rest);
	return 0;
}

static bool same_name(const char *first, const char *second)
{
	const size_t length = strcspn(first, "=");
	return length == strcspn(second, "=") && !memcmp(first, second, length);
}

/* Whether the option's list says something about this variable; its PATH does only when it was given. */
static bool is_overridden(const struct options *options, const char *variable)
{
	for (size_t i = 0; i < options->env_count; i++)
		if (same_name(options->env[i], variable))
			return options->path_given || !same_name(variable, "PATH=");
	return false;
}

static int resolve_env(const struct options *options, const struct image_config *image, struct command *command, struct error *err)
{
	const size_t image_count = list_length((const char *const *)image->env);
	bool image_has_path = false;
	size_t count = 0;

	command->env = calloc(image_count + options->env_count + 2, sizeof(*command->env));
	if (!command->env)
		return error_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < image_count; i++) {
		if (is_overridden(options, image->env[i]))
			continue;
		image_has_path |= same_name(image->env[i], "PATH=");
		command->env[count++] = image->env[i];
	}
	for (size_t i = 0; i < options->env_count; i++)
		if (!image_has_path || !same_name(options->env[i], "PATH="))
			command->env[count++] = options->env[i];
	/* As docker says it, whatever the caller's is: every image knows this one. */
	bool has_term = false;
	for (size_t i = 0; i < count; i++)
		has_term |= same_name(command->env[i], "TERM=");
	if (options->terminal && !has_term)
		command->env[count++] = "TERM=xterm";
	return 0;
}

int command_resolve(const struct options *options, const struct image_config *image, struct command *command, struct error *err)
{
	struct command resolved = {
		.workdir = options->workdir ? options->workdir : image->working_dir,
		.user = options->user ? options->user : image->user,
	};
	int result = resolve_argv(options, image, &resolved, err);
	if (result == 0)
		result = resolve_env(options, image, &resolved, err);
	if (result < 0) {
		command_destroy(&resolved);
		return result;
	}
	*command = resolved;
	return 0;
}

void command_destroy(struct command *command)
{
	free(command->argv);
	free(command->env);
	command->argv = command->env = NULL;
}
