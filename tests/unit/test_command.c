/* The command line's word over the image's configuration. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "vmm/command.h"

static char *words_entry[] = { (char[]){ "/entry" }, (char[]){ "-x" }, NULL };
static char *words_cmd[] = { (char[]){ "image" }, (char[]){ "cmd" }, NULL };
static char *words_env[] = { (char[]){ "PATH=/image" }, (char[]){ "A=image" }, (char[]){ "AB=image" }, NULL };

static struct image_config image_of(char **entrypoint, char **command)
{
	return (struct image_config){ .env = words_env, .entrypoint = entrypoint, .command = command, .working_dir = (char[]){ "/w" },
				      .user = (char[]){ "u" } };
}

/* Joins a list with spaces and compares. */
static void expect_list(const char *const *list, const char *wanted)
{
	char joined[512] = "";
	for (; *list; list++) {
		strcat(joined, *list);
		if (list[1])
			strcat(joined, " ");
	}
	cr_expect_str_eq(joined, wanted);
}

static void resolve(const char *const *arguments, const struct image_config *image, int wanted, const char *argv, const char *env)
{
	char *line[16] = { (char[]){ "trvmm" } };
	int count = 1;
	struct options options;
	struct command command;
	struct error err = { "" };
	for (; *arguments; arguments++)
		line[count++] = strdup(*arguments);
	cr_assert_eq(options_parse(count, line, &options, &err), 0, "%s", err.text);
	cr_assert_eq(command_resolve(&options, image, &command, &err), wanted);
	if (wanted == 0) {
		expect_list(command.argv, argv);
		if (env)
			expect_list(command.env, env);
		command_destroy(&command);
	} else {
		cr_expect(strstr(err.text, "no command"));
	}
	options_destroy(&options);
	while (--count)
		free(line[count]);
}

#define ARGUMENTS(...) (const char *const[]) { "--layers", "x", __VA_ARGS__, NULL }

Test(command, entrypoint_comes_before_the_command)
{
	const struct image_config image = image_of(words_entry, words_cmd);
	resolve(ARGUMENTS("--", "a", "b"), &image, 0, "/entry -x a b", NULL);
}

Test(command, without_one_the_image_has_its_own)
{
	const struct image_config both = image_of(words_entry, words_cmd);
	const struct image_config entry = image_of(words_entry, NULL), cmd = image_of(NULL, words_cmd);
	resolve(ARGUMENTS("--"), &both, 0, "/entry -x image cmd", NULL);
	resolve(ARGUMENTS("--"), &entry, 0, "/entry -x", NULL);
	resolve(ARGUMENTS("--"), &cmd, 0, "image cmd", NULL);
}

Test(command, entrypoint_option_replaces_both)
{
	const struct image_config image = image_of(words_entry, words_cmd);
	resolve(ARGUMENTS("--entrypoint", "/mine"), &image, 0, "/mine", NULL);
	resolve(ARGUMENTS("--entrypoint", "/mine", "--", "a"), &image, 0, "/mine a", NULL);
}

Test(command, nothing_to_run_is_an_error)
{
	const struct image_config image = { NULL };
	resolve(ARGUMENTS("--"), &image, -EINVAL, NULL, NULL);
}

Test(command, variables_of_the_image_unless_given)
{
	const struct image_config image = image_of(NULL, words_cmd), none = { NULL };
	resolve(ARGUMENTS("--env", "A=option", "--", "c"), &image, 0, "c", "PATH=/image AB=image A=option");
	resolve(ARGUMENTS("--env", "PATH=/option", "--", "c"), &image, 0, "c", "A=image AB=image PATH=/option");
	resolve(ARGUMENTS("-t", "--", "c"), &image, 0, "c", "PATH=/image A=image AB=image TERM=xterm");
	resolve(ARGUMENTS("-t", "--env", "TERM=x", "--", "c"), &image, 0, "c", "PATH=/image A=image AB=image TERM=x");
	resolve(ARGUMENTS("--", "c"), &none, 0, "c", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
}
