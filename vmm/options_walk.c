/* From words to options, by getopt; see options_internal.h. */
#include "vmm/options_internal.h"

#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

void grammar_add(struct grammar *grammar, const struct option_row *row)
{
	assert(grammar->count < 2 * OPTIONS_TABLE_ROWS_MAX);
	grammar->rows[grammar->count++] = row;
}

/* What was wrong with the option that getopt did not like. Its letter or id is in optopt; 0: a long one that is unknown or ambiguous. */
static int complain(int argc, char **argv, const struct grammar *grammar, int kind, struct error *err)
{
	for (size_t i = 0; i < grammar->count; i++) {
		if (grammar->rows[i]->id != optopt)
			continue;
		if (kind == ':')
			return error_set(err, -EINVAL, "option '--%s' needs a value; see trvmm --help", grammar->rows[i]->name);
		return error_set(err, -EINVAL, "option '--%s' takes no value; see trvmm --help", grammar->rows[i]->name);
	}
	/* A letter may stand amid others, so that getopt is not behind their word yet. */
	const char letter[] = { '-', (char)optopt, '\0' };
	const char *text = optopt ? letter : optind > 0 && optind <= argc ? argv[optind - 1] : "";
	char quoted[256];
	error_quote(quoted, sizeof(quoted), text, strlen(text));
	return error_set(err, -EINVAL, "unknown or ambiguous option '%s'; see trvmm --help", quoted);
}

int options_walk(int argc, char **argv, const struct grammar *grammar, const char *order, option_taker *take, void *data,
		 struct error *err)
{
	struct option longs[2 * OPTIONS_TABLE_ROWS_MAX + 1] = { { NULL, 0, NULL, 0 } };
	char shorts[6 * OPTIONS_TABLE_ROWS_MAX + 3];

	sprintf(shorts, "%s:", order);
	for (size_t i = 0; i < grammar->count; i++) {
		const struct option_row *row = grammar->rows[i];
		const int argument = !row->argument			? no_argument
				     : option_argument_is_optional(row) ? optional_argument
									: required_argument;
		longs[i] = (struct option){ row->name, argument, NULL, row->id };
		if (row->id < 256)
			sprintf(shorts + strlen(shorts), "%c%s", row->id, row->argument ? ":" : "");
	}
	opterr = 0;
	optind = 0; /* forget an earlier parse, even one that ended within a word */
	for (;;) {
		const int id = getopt_long(argc, argv, shorts, longs, NULL);
		if (id == -1)
			return 0;
		if (id == '?' || id == ':')
			return complain(argc, argv, grammar, id, err);
		const int result = take(data, id, optarg, err);
		if (result < 0)
			return result;
	}
}
