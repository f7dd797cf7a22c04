/* `trvmm cache ls [--json]` and `trvmm cache prune [--all] [--older-than DAYS]`: what the cache holds, and removing it. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/error.h"
#include "layers/cache.h"
#include "vmm/cli/cli.h"

#define DAY_S 86400
#define DEFAULT_DAYS 30

struct contents {
	struct cache cache;
	struct cache_entry *entries; /* owned */
	size_t count;
};

/* Returns false after saying why. */
static bool open_contents(struct contents *contents)
{
	struct error err = { "" };
	if (cache_open(&contents->cache, NULL, &err) < 0) {
		message("%s", err.text);
		return false;
	}
	const int ret = cache_list(&contents->cache, &contents->entries, &contents->count);
	if (ret < 0) {
		message("cannot read the cache %s: %s", contents->cache.path, strerror(-ret));
		cache_close(&contents->cache);
		return false;
	}
	return true;
}

static void close_contents(struct contents *contents)
{
	free(contents->entries);
	cache_close(&contents->cache);
}

static const char *size_text(uint64_t bytes, char text[32])
{
	static const char *const units[] = { "B", "kB", "MB", "GB", "TB" };
	double size = (double)bytes;
	unsigned unit = 0;
	while (size >= 1000 && unit < 4) {
		size /= 1000;
		unit++;
	}
	snprintf(text, 32, unit && size < 100 ? "%.1f %s" : "%.0f %s", size, units[unit]);
	return text;
}

static const char *time_text(int64_t seconds, char text[32])
{
	const time_t when = (time_t)seconds;
	struct tm tm;
	if (!localtime_r(&when, &tm) || !strftime(text, 32, "%Y-%m-%d %H:%M", &tm))
		strcpy(text, "?");
	return text;
}

/* ---- ls ---------------------------------------------------------------------------------------------------------------------- */

/* The small files that only spare looking: one line for all of a kind. */
static bool is_memory(const struct cache_entry *entry)
{
	return strcmp(entry->kind, "images") == 0 || strcmp(entry->kind, "digests") == 0;
}

static void print_line(const char *kind, uint64_t bytes, int64_t last_use_s, const char *what, bool in_use)
{
	char size[32], used[32];
	printf("%-8s %8s  %-16s  %s%s\n", kind, size_text(bytes, size), time_text(last_use_s, used), what,
	       in_use ? "  (in use)" : "");
}

static void print_text(const struct contents *contents)
{
	uint64_t total = 0;
	char size[32];
	if (contents->count)
		printf("%-8s %8s  %-16s  %s\n", "KIND", "SIZE", "LAST USE", "NAME");
	for (size_t i = 0; i < contents->count;) {
		const struct cache_entry *first = &contents->entries[i];
		uint64_t bytes = 0;
		int64_t last_use_s = first->last_use_s;
		size_t end = i;
		do {
			bytes += contents->entries[end].bytes;
			if (contents->entries[end].last_use_s > last_use_s)
				last_use_s = contents->entries[end].last_use_s;
			end++;
		} while (is_memory(first) && end < contents->count && strcmp(contents->entries[end].kind, first->kind) == 0);
		char files[32];
		snprintf(files, sizeof(files), "%zu files", end - i);
		print_line(first->kind, bytes, last_use_s, end - i > 1 ? files : first->name, first->in_use);
		total += bytes;
		i = end;
	}
	printf("%s in %zu files in %s\n", size_text(total, size), contents->count, contents->cache.path);
}

/* Returns false when memory is out. */
static bool print_json(const struct contents *contents)
{
	json_t *list = json_array();
	bool good = list != NULL;
	for (size_t i = 0; i < contents->count && good; i++) {
		const struct cache_entry *entry = &contents->entries[i];
		json_t *object =
		    json_pack("{s:s, s:s, s:I, s:I, s:b}", "kind", entry->kind, "name", entry->name, "bytes",
			      (json_int_t)entry->bytes, "last_use", (json_int_t)entry->last_use_s, "in_use", entry->in_use);
		good = object && json_array_append_new(list, object) == 0;
	}
	/* Not by way of json_dumps(): jansson leaves bytes out when a string of its own cannot grow. */
	good = good && json_dumpf(list, stdout, JSON_INDENT(2)) == 0 && putchar('\n') != EOF;
	json_decref(list);
	return good;
}

static int list(int argc, char **argv)
{
	struct contents contents;
	const bool json = argc == 2 && strcmp(argv[1], "--json") == 0;
	if (argc > 1 && !json) {
		message("cache ls takes --json and nothing else");
		return EXIT_TRVMM;
	}
	if (!open_contents(&contents))
		return EXIT_TRVMM;
	bool good = true;
	if (json)
		good = print_json(&contents);
	else
		print_text(&contents);
	if (!good)
		message("out of memory");
	close_contents(&contents);
	return good ? 0 : EXIT_TRVMM;
}

/* ---- prune ------------------------------------------------------------------------------------------------------------------- */

/* Returns false after saying why. `days` -1: all. */
static bool parse_prune(int argc, char **argv, long *days)
{
	*days = DEFAULT_DAYS;
	for (int i = 1; i < argc; i++) {
		const char *const word = argv[i], *value = NULL;
		char *end = NULL;
		if (strcmp(word, "--all") == 0) {
			*days = -1;
			continue;
		}
		if (strncmp(word, "--older-than=", 13) == 0)
			value = word + 13;
		else if (strcmp(word, "--older-than") == 0 && i + 1 < argc)
			value = argv[++i];
		if (!value && strcmp(word, "--older-than") == 0) {
			message("cache prune --older-than: give a number of days");
			return false;
		}
		if (!value) {
			char quoted[100];
			message("cache prune takes --all and --older-than DAYS, not '%s'",
				error_quote(quoted, sizeof(quoted), word, strlen(word)));
			return false;
		}
		errno = 0;
		*days = strtol(value, &end, 10);
		if (errno || end == value || *end || *days < 0 || *days > 100000) {
			char quoted[100];
			message("--older-than '%s': give a number of days",
				error_quote(quoted, sizeof(quoted), value, strlen(value)));
			return false;
		}
	}
	return true;
}

/* Returns whether all went well. */
static bool remove_entries(const struct contents *contents, long days)
{
	const int64_t now = time(NULL);
	uint64_t freed = 0;
	size_t removed = 0, busy = 0;
	bool good = true;
	char size[32];
	for (size_t i = 0; i < contents->count; i++) {
		const struct cache_entry *entry = &contents->entries[i];
		if (days >= 0 && now - entry->last_use_s < days * DAY_S)
			continue;
		const int ret = cache_remove(&contents->cache, entry);
		if (ret > 0) {
			removed++;
			freed += entry->bytes;
		} else if (ret == 0) {
			busy++;
		} else if (ret != -ENOENT) {
			message("cannot remove %s/%s/%s: %s", contents->cache.path, entry->kind, entry->name, strerror(-ret));
			good = false;
		}
	}
	printf("removed %zu files, %s", removed, size_text(freed, size));
	if (busy)
		printf("; kept %zu in use", busy);
	putchar('\n');
	return good;
}

static int prune(int argc, char **argv)
{
	struct contents contents;
	long days;
	if (!parse_prune(argc, argv, &days) || !open_contents(&contents))
		return EXIT_TRVMM;
	const bool good = remove_entries(&contents, days);
	close_contents(&contents);
	return good ? 0 : EXIT_TRVMM;
}

int cli_cache(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "ls") == 0)
		return list(argc - 1, argv + 1);
	if (argc > 1 && strcmp(argv[1], "prune") == 0)
		return prune(argc - 1, argv + 1);
	message("cache takes ls [--json], or prune [--all] [--older-than DAYS]");
	return EXIT_TRVMM;
}
