/* `trvmm ps [-a] [-q] [--json]`: the named machines of this user. */
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <time.h>

#include "vmm/cli/cli.h"
#include "vmm/cli/machines.h"
#include "vmm/registry.h"

/* "5 s", "3 min", "2 h", "4 d" */
static void format_age(int64_t since_s, char *text, size_t size)
{
	const int64_t age = (int64_t)time(NULL) - since_s;
	if (age < 120)
		snprintf(text, size, "%lld s", (long long)(age > 0 ? age : 0));
	else if (age < 7200)
		snprintf(text, size, "%lld min", (long long)(age / 60));
	else if (age < 172800)
		snprintf(text, size, "%lld h", (long long)(age / 3600));
	else
		snprintf(text, size, "%lld d", (long long)(age / 86400));
}

static void print_row(const struct registry_entry *entry)
{
	char age[32], status[64], memory[32];
	const bool running = entry->status == REGISTRY_RUNNING;
	format_age(running ? entry->info.started_s : entry->end.ended_s, age, sizeof(age));
	if (running)
		snprintf(status, sizeof(status), "up %s", age);
	else
		snprintf(status, sizeof(status), "exited (%d) %s ago", entry->end.exit_code, age);
	snprintf(memory, sizeof(memory), "%lluM", (unsigned long long)(entry->info.memory_bytes >> 20));
	printf("%-16s %-24s %4u %8s %8d  %s\n", entry->name, status, entry->info.cpus, memory, (int)entry->info.pid,
	       entry->info.command);
}

static json_t *make_object(const struct registry_entry *entry)
{
	const bool running = entry->status == REGISTRY_RUNNING;
	json_t *object = json_pack(
	    "{s:s, s:s, s:i, s:I, s:b, s:i, s:I, s:s}", "name", entry->name, "status", running ? "running" : "exited", "pid",
	    (int)entry->info.pid, "started", (json_int_t)entry->info.started_s, "detached", entry->info.detached, "cpus",
	    (int)entry->info.cpus, "memory_bytes", (json_int_t)entry->info.memory_bytes, "command", entry->info.command);
	if (object && !running) {
		json_object_set_new(object, "exit_code", json_integer(entry->end.exit_code));
		json_object_set_new(object, "ended", json_integer(entry->end.ended_s));
		if (entry->end.text[0])
			json_object_set_new(object, "error", json_string(entry->end.text));
	}
	return object;
}

static const struct option_row options[] = {
	{ 'a', "all", NULL, "also those that have ended and were kept" },
	{ 'q', "quiet", NULL, "names only" },
	{ 256, "json", NULL, "all that is known, as JSON" },
};
static const struct cli_command command = {
	.usage = "ps [OPTIONS]",
	.summary = "List the named machines of this user.",
	.options = options,
	.option_count = sizeof(options) / sizeof(options[0]),
};

int cli_ps(int argc, char **argv)
{
	struct registry_entry *entries;
	struct error err = { "" };
	bool all = false, quiet = false, json = false;
	const char *value;
	size_t count;
	int id;

	optind = 0;
	while ((id = cli_next_option(argc, argv, &command, &value)) != -1) {
		if (id == 0)
			return EXIT_TRVMM;
		all |= id == 'a';
		quiet |= id == 'q';
		json |= id == 256;
	}
	if (optind != argc)
		return cli_usage(&command);
	if (registry_list(&entries, &count, &err) < 0)
		return cli_fail("ps", &err);
	json_t *array = json ? json_array() : NULL;
	if (!json && !quiet)
		printf("%-16s %-24s %4s %8s %8s  %s\n", "NAME", "STATUS", "CPUS", "MEMORY", "PID", "COMMAND");
	for (size_t i = 0; i < count; i++) {
		if (!all && entries[i].status != REGISTRY_RUNNING)
			continue;
		if (json)
			json_array_append_new(array, make_object(&entries[i]));
		else if (quiet)
			puts(entries[i].name);
		else
			print_row(&entries[i]);
	}
	if (json) {
		json_dumpf(array, stdout, JSON_INDENT(2));
		putchar('\n');
		json_decref(array);
	}
	registry_list_free(entries, count);
	return 0;
}
