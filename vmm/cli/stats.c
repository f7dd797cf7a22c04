/* `trvmm stats NAME [--json]`: what a machine has used and moved so far. */
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vmm/cli/cli.h"
#include "vmm/cli/machines.h"
#include "vmm/remote_client.h"

#define ANSWER_S 5

static const struct {
	const char *name; /* in JSON */
	size_t offset;
	const char *label;
} rows[] = {
#define ROW(field, label)                                                                                                          \
	{                                                                                                                          \
#field, offsetof(struct remote_figures, field), label                                                              \
	}
	ROW(cpu_ns, "processor time of the guest, ns"),
	ROW(process_cpu_ns, "processor time of the process, ns"),
	ROW(memory_bytes, "memory of the guest, bytes"),
	ROW(resident_bytes, "memory of the process that is resident, bytes"),
	ROW(blk_reads, "disk reads"),
	ROW(blk_read_bytes, "disk reads, bytes"),
	ROW(blk_writes, "disk writes"),
	ROW(blk_written_bytes, "disk writes, bytes"),
	ROW(fs_requests, "requests to shares"),
	ROW(fs_read_bytes, "reads from shares, bytes"),
	ROW(fs_written_bytes, "writes to shares, bytes"),
	ROW(fs_errors, "requests to shares with an error"),
	ROW(fs_nodes, "files of shares known now"),
	ROW(fs_descriptors, "descriptors for shares now"),
	ROW(vsock_connections, "vsock connections now"),
	ROW(vsock_to_guest_bytes, "vsock to the guest, bytes"),
	ROW(vsock_from_guest_bytes, "vsock from the guest, bytes"),
	ROW(sessions, "commands of trvmm exec now"),
#undef ROW
};
#define ROW_COUNT (sizeof(rows) / sizeof(rows[0]))

static uint64_t figure(const struct remote_figures *figures, size_t row)
{
	le64 value;
	memcpy(&value, (const char *)figures + rows[row].offset, sizeof(value));
	return le64_get(value);
}

static void print_figures(const struct remote_figures *figures, bool json)
{
	json_t *object = json ? json_object() : NULL;
	for (size_t i = 0; i < ROW_COUNT; i++) {
		if (json)
			json_object_set_new(object, rows[i].name, json_integer((json_int_t)figure(figures, i)));
		else
			printf("%-46s %20llu\n", rows[i].label, (unsigned long long)figure(figures, i));
	}
	if (json) {
		json_dumpf(object, stdout, JSON_INDENT(2));
		putchar('\n');
		json_decref(object);
	}
}

static const struct option_row options[] = {
	{ 256, "json", NULL, "as JSON" },
};
static const struct cli_command command = {
	.usage = "stats [OPTIONS] NAME",
	.summary = "Print what a machine has used and moved.",
	.options = options,
	.option_count = sizeof(options) / sizeof(options[0]),
};

int cli_stats(int argc, char **argv)
{
	struct registry_entry entry;
	struct remote_answer answer;
	struct remote_figures figures;
	struct error err = { "" };
	const char *value;
	bool json = false;
	int id;

	optind = 0;
	while ((id = cli_next_option(argc, argv, &command, &value)) != -1) {
		if (id == 0)
			return EXIT_TRVMM;
		json = true;
	}
	if (optind + 1 != argc)
		return cli_usage(&command);
	const int fd = remote_open(argv[optind], &entry, &err);
	if (fd < 0)
		return cli_fail("stats", &err);
	registry_entry_close(&entry);
	int result = remote_ask(fd, REMOTE_STATS, NULL, 0, REMOTE_FIGURES, ANSWER_S, &answer, &err);
	close(fd);
	if (result == 0 && answer.length != sizeof(figures))
		result = error_set(&err, -1, "the machine answers something else");
	if (result < 0)
		return cli_fail("stats", &err);
	memcpy(&figures, answer.body, sizeof(figures));
	print_figures(&figures, json);
	return 0;
}
