/* What subcommands on named machines share; see machines.h. */
#include "vmm/cli/machines.h"

#include <getopt.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "vmm/cli/cli.h"

#define OPTIONS_MAX 8

int cli_next_option(int argc, char **argv, const struct cli_option *options, unsigned count, bool stop_at_word, const char **value)
{
	struct option longs[OPTIONS_MAX + 1] = { { NULL, 0, NULL, 0 } };
	char shorts[2 * OPTIONS_MAX + 4] = "", quoted[128];
	strcpy(shorts, stop_at_word ? "+:" : ":");
	for (unsigned i = 0; i < count && i < OPTIONS_MAX; i++) {
		longs[i] =
		    (struct option){ options[i].name, options[i].has_value ? required_argument : no_argument, NULL, options[i].id };
		if (options[i].id < 256)
			sprintf(shorts + strlen(shorts), "%c%s", options[i].id, options[i].has_value ? ":" : "");
	}
	opterr = 0;
	const int id = getopt_long(argc, argv, shorts, longs, NULL);
	*value = optarg;
	if (id != '?' && id != ':')
		return id;
	const char letter[] = { '-', (char)optopt, '\0' };
	const char *word = optopt && optopt < 256 ? letter : argv[optind - 1];
	error_quote(quoted, sizeof(quoted), word, strlen(word));
	message(id == ':' ? "%s: option '%s' needs a value; see trvmm --help" : "%s: unknown option '%s'; see trvmm --help",
		argv[0], quoted);
	return 0;
}

int cli_fail(const char *command, const struct error *err)
{
	message("%s: %s", command, err->text);
	return EXIT_TRVMM;
}

int cli_usage(const char *usage)
{
	message("usage: trvmm %s", usage);
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
