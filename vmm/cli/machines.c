/* What subcommands on named machines share; see machines.h. */
#include "vmm/cli/machines.h"

#include <getopt.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/cli/cli.h"

#define OPTIONS_MAX 8

static const struct option_row help = { 'h', "help", NULL, "print this help" };

static void print_help(const struct cli_command *command)
{
	printf("Usage: trvmm %s\n\n%s\n\nOptions:\n", command->usage, command->summary);
	for (unsigned i = 0; i < command->option_count; i++)
		option_row_print(&command->options[i]);
	option_row_print(&help);
}

int cli_next_option(int argc, char **argv, const struct cli_command *command, const char **value)
{
	struct option longs[OPTIONS_MAX + 2] = { { "help", no_argument, NULL, 'h' } };
	char shorts[2 * OPTIONS_MAX + 6] = "", quoted[128];
	strcpy(shorts, command->stop_at_word ? "+:h" : ":h");
	for (unsigned i = 0; i < command->option_count && i < OPTIONS_MAX; i++) {
		const struct option_row *row = &command->options[i];
		longs[i + 1] = (struct option){ row->name, row->argument ? required_argument : no_argument, NULL, row->id };
		if (row->id < 256)
			sprintf(shorts + strlen(shorts), "%c%s", row->id, row->argument ? ":" : "");
	}
	opterr = 0;
	const int id = getopt_long(argc, argv, shorts, longs, NULL);
	*value = optarg;
	if (id == 'h') {
		print_help(command);
		exit(0);
	}
	if (id != '?' && id != ':')
		return id;
	const char letter[] = { '-', (char)optopt, '\0' };
	const char *word = optopt && optopt < 256 ? letter : argv[optind - 1];
	error_quote(quoted, sizeof(quoted), word, strlen(word));
	message(id == ':' ? "%s: option '%s' needs a value; see trvmm %s --help" : "%s: unknown option '%s'; see trvmm %s --help",
		argv[0], quoted, argv[0]);
	return 0;
}

int cli_fail(const char *command, const struct error *err)
{
	message("%s: %s", command, err->text);
	return EXIT_TRVMM;
}

int cli_usage(const struct cli_command *command)
{
	message("usage: trvmm %s", command->usage);
	return EXIT_TRVMM;
}

int cli_each_machine(const char *command, char **names, int (*one)(const char *name, void *data, struct error *err), void *data)
{
	int code = 0;
	for (; *names; names++) {
		struct error err = { "" };
		if (one(*names, data, &err) < 0)
			code = cli_fail(command, &err);
	}
	return code;
}
