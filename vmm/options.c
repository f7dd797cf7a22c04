/* The command line; see options.h. */
#include "vmm/options.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest/agent/protocol.h"
#include "vmm/env_file.h"
#include "vmm/host.h"
#include "vmm/layout.h"
#include "vmm/ports.h"
#include "vmm/registry.h"
#include "vmm/session.h"
#include "vmm/tmpfs.h"
#include "vmm/ulimit.h"

#define DEFAULT_MEMORY_BYTES (256ull << 20)
#define LEAST_MEMORY_BYTES (32ull << 20)
#define LEAST_DISK_BYTES (1ull << 20)
#define MOST_DISK_BYTES (16ull << 40)
#define DEFAULT_BOOT_TIMEOUT_S 60
#define DEFAULT_PATH "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

enum option_id {
	OPT_KERNEL = 256,
	OPT_LAYERS,
	OPT_ADD,
	OPT_MAX_LAYER_SIZE,
	OPT_MEMORY,
	OPT_CPUS,
	OPT_DISK_SIZE,
	OPT_HOSTNAME,
	OPT_APPEND,
	OPT_BOOT,
	OPT_TIMEOUT,
	OPT_BOOT_TIMEOUT,
	OPT_CONSOLE,
	OPT_NO_KVM_CHECK,
	OPT_TIMELINE,
	OPT_ENTRYPOINT,
	OPT_RW_DISK,
	OPT_DISK_FEATURES,
	OPT_DISK,
	OPT_ENV_FILE,
	OPT_ULIMIT,
	OPT_READ_ONLY,
	OPT_TMPFS,
	OPT_NAME,
	OPT_RM,
	OPT_VSOCK,
	OPT_VERSION,
	OPT_HELP = 'h',
	OPT_DETACH = 'd',
	OPT_ENV = 'e',
	OPT_WORKDIR = 'w',
	OPT_USER = 'u',
	OPT_INTERACTIVE = 'i',
	OPT_TERMINAL = 't',
	OPT_PUBLISH = 'p',
};

/* One row for each option: what getopt needs and what --help says. */
static const struct option_row table[] = {
	{ OPT_KERNEL, "kernel", "FILE", "bzImage or ELF vmlinux (default: trvmm's own guest kernel)" },
	{ OPT_LAYERS, "layers", "A[,B...]", "layers or images, bottom first; repeatable (default: a busybox root)" },
	{ OPT_ADD, "add", "HOST:GUEST", "put a file or directory of this host there, on top of the layers; repeatable" },
	{ OPT_MAX_LAYER_SIZE, "max-layer-size", "SIZE", "what a compressed layer may inflate to (default: 64G)" },
	{ OPT_MEMORY, "memory", "SIZE", "memory of the guest (default: 256M)" },
	{ OPT_CPUS, "cpus", "N", "processors of the guest, 1 to 8 (default: 1)" },
	{ OPT_DISK_SIZE, "disk-size", "SIZE", "size of the root disk (default: its contents and generous free space)" },
	{ OPT_RW_DISK, "rw-disk", "FILE", "keep what the guest writes to the root disk in FILE, for the next run" },
	{ OPT_DISK_FEATURES, "disk-features", "LIST", "has_journal, metadata_csum for the root disk; ^has_journal for a kept one" },
	{ OPT_DISK, "disk", "SPEC[:ro]", "one more disk: a file, nbd://..., or layers=A[,B...]; repeatable" },
	{ OPT_READ_ONLY, "read-only", NULL, "nobody can write to the root disk" },
	{ OPT_TMPFS, "tmpfs", "DIR[:size=S]", "a file system in the guest's memory there; repeatable" },
	{ OPT_ENV, "env", "K=V", "environment of the command; K alone takes the caller's value; repeatable" },
	{ OPT_ENV_FILE, "env-file", "FILE", "such variables, one a line; those of --env come over them; repeatable" },
	{ OPT_ENTRYPOINT, "entrypoint", "COMMAND", "run this instead of the image's entrypoint" },
	{ OPT_WORKDIR, "workdir", "DIR", "working directory of the command (default: /)" },
	{ OPT_USER, "user", "USER[:GROUP]", "user of the command, names or numbers (default: root)" },
	{ OPT_ULIMIT, "ulimit", "NAME=S[:HARD]", "a limit of resources, as nofile=1024:4096; repeatable" },
	{ OPT_HOSTNAME, "hostname", "NAME", "host name of the guest (default: trvmm)" },
	{ OPT_INTERACTIVE, "interactive", NULL, "pass stdin to the command; always done, accepted for docker's sake" },
	{ OPT_TERMINAL, "tty", NULL, "give the command a terminal" },
	{ OPT_NAME, "name", "NAME", "a name, for trvmm exec, kill, stats and others" },
	{ OPT_DETACH, "detach", NULL, "print the name when the command has started, and go on without the caller" },
	{ OPT_RM, "rm", NULL, "with -d: keep neither exit status nor logs when it has ended" },
	{ OPT_PUBLISH, "publish", "[ADDR:]PORT:PORT", "a TCP port here leads to one on 127.0.0.1 of the guest; repeatable" },
	{ OPT_VSOCK, "vsock", "PATH", "a Unix socket for the guest's vsock: CONNECT PORT here, PATH_PORT for the guest" },
	{ OPT_TIMEOUT, "timeout", "SECONDS", "end the command after this time: TERM, then KILL; exit 124" },
	{ OPT_BOOT_TIMEOUT, "boot-timeout", "SECONDS", "how long the guest may take to start (default: 60)" },
	{ OPT_CONSOLE, "console", NULL, "show the guest kernel's console on stderr" },
	{ OPT_APPEND, "append", "TEXT", "more words for the kernel command line" },
	{ OPT_BOOT, "boot", "PROTOCOL", "linux64 or pvh (default: linux64; pvh for a kernel that has only that entry)" },
	{ OPT_NO_KVM_CHECK, "no-kvm-check", NULL, "start even where KVM is software only" },
	{ OPT_TIMELINE, "timeline", "FILE", "write there when each stage of the start was reached" },
	{ OPT_VERSION, "version", NULL, "print the version" },
	{ OPT_HELP, "help", NULL, "print this help" },
};
#define TABLE_ROWS (sizeof(table) / sizeof(table[0]))

/* The options that say what is on the root disk: `trvmm disk ...` has them too. */
static bool describes_root_disk(int id)
{
	return id == OPT_LAYERS || id == OPT_ADD || id == OPT_MAX_LAYER_SIZE || id == OPT_DISK_SIZE || id == OPT_RW_DISK ||
	       id == OPT_DISK_FEATURES;
}

static void print_row(const struct option_row *row)
{
	char left[48], with_argument[40];
	snprintf(with_argument, sizeof(with_argument), "--%s%s%s", row->name, row->argument ? " " : "",
		 row->argument ? row->argument : "");
	if (row->id < 256)
		snprintf(left, sizeof(left), "-%c, %s", row->id, with_argument);
	else
		snprintf(left, sizeof(left), "    %s", with_argument);
	printf("  %-30s %s\n", left, row->help);
}

void options_print_help(void)
{
	fputs("Usage: trvmm [OPTIONS] [--] COMMAND [ARG...]   run COMMAND in a new microVM\n"
	      "       trvmm [OPTIONS] --layers IMAGE          run the image's own command\n"
	      "       trvmm disk export|inspect [OPTIONS]     look at the disk that a run would have; see trvmm disk --help\n"
	      "       trvmm exec [-i] [-t] NAME COMMAND...    run another command in the machine NAME\n"
	      "       trvmm cp [-a] NAME:PATH PATH            copy files out of the machine NAME; into it the other way round\n"
	      "       trvmm ps|logs|stats|wait|kill|rm        list machines; see and end them\n"
	      "       trvmm proxy --tcp PORT --vsock PATH:PORT   a TCP port for a guest that speaks vsock itself\n"
	      "       trvmm doctor [--kernel FILE]            can this host run guests, and if not, what to do\n"
	      "       trvmm cache ls|prune                    what the cache holds; remove what is not used\n"
	      "\n"
	      "Options:\n",
	      stdout);
	for (size_t i = 0; i < TABLE_ROWS; i++)
		print_row(&table[i]);
	fputs("\n"
	      "Exit status: the command's own; 128 + n when signal n killed it; 127 not found, 126 not executable,\n"
	      "125 when trvmm itself failed, with one line on stderr that says why. See trvmm(1).\n",
	      stdout);
}

void options_print_disk_help(const struct option_row *own, size_t own_count)
{
	for (size_t i = 0; i < TABLE_ROWS; i++)
		if (describes_root_disk(table[i].id))
			print_row(&table[i]);
	for (size_t i = 0; i < own_count; i++)
		print_row(&own[i]);
}

int options_parse_size(const char *text, uint64_t *bytes)
{
	char *end;
	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	errno = 0;
	uint64_t value = strtoull(text, &end, 10);
	if (errno)
		return -EINVAL;
	static const char units[] = "KMGT";
	unsigned shift = 0;
	const char *unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
	if (unit) {
		shift = 10 * (unsigned)(unit - units + 1);
		end++;
		if (!strcmp(end, "iB") || !strcmp(end, "B") || !strcmp(end, "b"))
			end = strchr(end, '\0');
	}
	if (*end || (shift && value >> (64 - shift)))
		return -EINVAL;
	*bytes = value << shift;
	return 0;
}

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

static int add_disk(struct options *options, const char *argument, struct error *err)
{
	if (!*argument)
		return error_set(err, -EINVAL, "--disk '': give a file, or layers=FILE[,FILE...]");
	char *copy = strdup(argument);
	if (copy && list_append(&options->disks, &options->disk_count, copy) == 0)
		return 0;
	free(copy);
	return error_set(err, -ENOMEM, "out of memory");
}

static int add_port(struct options *options, const char *argument, struct error *err)
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

static int add_host_file(struct options *options, const char *argument, struct error *err)
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

static int add_env(struct options *options, const char *argument, struct error *err)
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

/* What --env set counts more than what is in files, wherever it stood. */
static int merge_file_env(struct options *options, struct error *err)
{
	const size_t given_count = options->env_count;
	for (size_t i = 0; i < options->file_env_count; i++) {
		char *variable = options->file_env[i];
		const bool is_path = !strncmp(variable, "PATH=", 5);
		options->file_env[i] = NULL;
		if (is_path ? options->path_given : find_variable(options->env, given_count, variable, strcspn(variable, "=")) != NULL) {
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

/* The last of one kind counts. */
static int add_limit(struct options *options, const char *argument, struct error *err)
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

static int add_tmpfs(struct options *options, const char *argument, struct error *err)
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

static int parse_count(const char *name, const char *text, unsigned least, unsigned most, unsigned *count, struct error *err)
{
	char *end;
	errno = 0;
	const unsigned long value = strtoul(text, &end, 10);
	if (!isdigit((unsigned char)*text) || *end || errno || value < least || value > most)
		return error_set(err, -EINVAL, "--%s '%s': give a number from %u to %u", name, text, least, most);
	*count = (unsigned)value;
	return 0;
}

static int parse_memory(struct options *options, const char *text, struct error *err)
{
	uint64_t bytes;
	if (options_parse_size(text, &bytes) < 0)
		return error_set(err, -EINVAL, "--memory '%s': give a size such as 256M or 2G", text);
	if (bytes < LEAST_MEMORY_BYTES)
		return error_set(err, -EINVAL, "--memory '%s': a guest needs at least %lluM", text, LEAST_MEMORY_BYTES >> 20);
	const uint64_t total = host_memory_total();
	if (total && bytes > total)
		return error_set(err, -EINVAL, "--memory '%s': this host has %lluM", text, (unsigned long long)(total >> 20));
	options->memory_bytes = bytes & ~0xfffffull; /* whole MiB */
	return 0;
}

static int parse_disk_size(struct options *options, const char *text, struct error *err)
{
	if (options_parse_size(text, &options->disk_bytes) < 0)
		return error_set(err, -EINVAL, "--disk-size '%s': give a size such as 20G", text);
	if (options->disk_bytes < LEAST_DISK_BYTES || options->disk_bytes > MOST_DISK_BYTES)
		return error_set(err, -EINVAL, "--disk-size '%s': give a size from 1M to 16T", text);
	return 0;
}

/* As mke2fs -O has them: a comma between two, ^ in front of one that is not wanted. */
static int parse_disk_features(struct options *options, const char *text, struct error *err)
{
	for (const char *at = text;; at++) {
		const size_t length = strcspn(at, ",");
		const bool wanted = *at != '^';
		const char *name = at + !wanted;
		const size_t name_length = length - !wanted;
		if (name_length == strlen("has_journal") && !strncmp(name, "has_journal", name_length))
			options->journal = wanted ? FEATURE_ON : FEATURE_OFF;
		else if (name_length == strlen("metadata_csum") && !strncmp(name, "metadata_csum", name_length))
			options->metadata_csum = wanted;
		else
			return error_set(err, -EINVAL,
					 "--disk-features '%s': give has_journal, metadata_csum, or both with a comma between",
					 text);
		at += length;
		if (!*at)
			return 0;
	}
}

static int parse_boot(struct options *options, const char *text, struct error *err)
{
	if (!strcmp(text, "linux64"))
		options->boot = BOOT_CHOICE_LINUX64;
	else if (!strcmp(text, "pvh"))
		options->boot = BOOT_CHOICE_PVH;
	else
		return error_set(err, -EINVAL, "--boot '%s': give linux64 or pvh", text);
	return 0;
}

static int take_option(void *data, int id, const char *argument, struct error *err)
{
	struct options *options = data;
	switch (id) {
	case OPT_KERNEL:
		options->kernel = argument;
		return 0;
	case OPT_LAYERS:
		return options_add_layers(options, argument, err);
	case OPT_ADD:
		return add_host_file(options, argument, err);
	case OPT_MAX_LAYER_SIZE:
		if (options_parse_size(argument, &options->max_layer_bytes) < 0 || !options->max_layer_bytes)
			return error_set(err, -EINVAL, "--max-layer-size '%s': give a size such as 20G", argument);
		return 0;
	case OPT_MEMORY:
		return parse_memory(options, argument, err);
	case OPT_CPUS:
		return parse_count("cpus", argument, 1, LAYOUT_CPUS_MAX, &options->cpus, err);
	case OPT_DISK_SIZE:
		return parse_disk_size(options, argument, err);
	case OPT_DISK_FEATURES:
		return parse_disk_features(options, argument, err);
	case OPT_RW_DISK:
		if (!*argument)
			return error_set(err, -EINVAL, "--rw-disk '': give a file");
		options->rw_disk = argument;
		return 0;
	case OPT_DISK:
		return add_disk(options, argument, err);
	case OPT_ENTRYPOINT:
		if (!*argument)
			return error_set(err, -EINVAL, "--entrypoint '': give a command");
		options->entrypoint = argument;
		return 0;
	case OPT_ENV:
		options->path_given |= !strncmp(argument, "PATH=", 5);
		return add_env(options, argument, err);
	case OPT_ENV_FILE:
		return env_file_read(argument, take_file_variable, options, err) < 0 ? -EINVAL : 0;
	case OPT_WORKDIR:
		options->workdir = argument;
		return 0;
	case OPT_USER:
		options->user = argument;
		return 0;
	case OPT_ULIMIT:
		return add_limit(options, argument, err);
	case OPT_READ_ONLY:
		options->read_only = true;
		return 0;
	case OPT_TMPFS:
		return add_tmpfs(options, argument, err);
	case OPT_HOSTNAME:
		if (strlen(argument) > 64 || !*argument)
			return error_set(err, -EINVAL, "--hostname '%s': give 1 to 64 bytes", argument);
		options->hostname = argument;
		return 0;
	case OPT_INTERACTIVE:
		return 0;
	case OPT_TERMINAL:
		options->terminal = true;
		return 0;
	case OPT_NAME:
		options->name = argument;
		return registry_check_name(argument, err) < 0 ? error_prefix(err, -EINVAL, "--name") : 0;
	case OPT_DETACH:
		options->detach = true;
		return 0;
	case OPT_RM:
		options->remove = true;
		return 0;
	case OPT_PUBLISH:
		return add_port(options, argument, err);
	case OPT_VSOCK:
		if (!*argument)
			return error_set(err, -EINVAL, "--vsock '': give a name for the Unix socket");
		options->vsock = argument;
		return 0;
	case OPT_TIMEOUT:
		return parse_count("timeout", argument, 1, 1000000, &options->timeout_s, err);
	case OPT_BOOT_TIMEOUT:
		return parse_count("boot-timeout", argument, 1, 1000000, &options->boot_timeout_s, err);
	case OPT_CONSOLE:
		options->console = true;
		return 0;
	case OPT_APPEND:
		options->append = argument;
		return 0;
	case OPT_BOOT:
		return parse_boot(options, argument, err);
	case OPT_TIMELINE:
		options->timeline = argument;
		return 0;
	case OPT_NO_KVM_CHECK:
		options->no_kvm_check = true;
		return 0;
	case OPT_VERSION:
		options->version = true;
		return 0;
	default:
		options->help = true;
		return 0;
	}
}

/* The options that a command line may have: rows of the table, and those of a subcommand. */
struct grammar {
	const struct option_row *rows[2 * TABLE_ROWS];
	size_t count;
};

static void grammar_add(struct grammar *grammar, const struct option_row *row)
{
	assert(grammar->count < 2 * TABLE_ROWS);
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

/* Tells `take` of each option in turn. `order`: "+" ends at the first word that is no option, "" collects such words at the end. */
static int walk_options(int argc, char **argv, const struct grammar *grammar, const char *order, option_taker *take, void *data,
			struct error *err)
{
	struct option longs[2 * TABLE_ROWS + 1] = { { NULL, 0, NULL, 0 } };
	char shorts[6 * TABLE_ROWS + 3];

	sprintf(shorts, "%s:", order);
	for (size_t i = 0; i < grammar->count; i++) {
		const struct option_row *row = grammar->rows[i];
		longs[i] = (struct option){ row->name, row->argument ? required_argument : no_argument, NULL, row->id };
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

static int set_defaults(struct options *options, struct error *err)
{
	*options = (struct options){ .memory_bytes = DEFAULT_MEMORY_BYTES, .cpus = 1, .boot_timeout_s = DEFAULT_BOOT_TIMEOUT_S };
	return add_env(options, DEFAULT_PATH, err);
}

int options_parse(int argc, char **argv, struct options *options, struct error *err)
{
	struct grammar grammar = { .count = 0 };

	int result = set_defaults(options, err);
	for (size_t i = 0; i < TABLE_ROWS; i++)
		grammar_add(&grammar, &table[i]);
	if (result == 0)
		result = walk_options(argc, argv, &grammar, "+", take_option, options, err);
	if (result == 0)
		result = merge_file_env(options, err);
	options->command = (const char *const *)argv + optind;
	if (result < 0 || options->help || options->version)
		return result;
	if (options->detach && options->terminal)
		return error_set(err, -EINVAL,
				 "--detach with --tty: nobody would be at that terminal; give one of them, and use trvmm exec -it");
	if (options->read_only && options->rw_disk)
		return error_set(err, -EINVAL, "--read-only with --rw-disk: there would be nothing to keep; give one of them");
	/* Layers may be an image, whose configuration says what to run. */
	if (!options->command[0] && (options->layer_count || options->entrypoint))
		return 0;
	if (!options->command[0])
		return error_set(err, -EINVAL, "no command; give one: trvmm [OPTIONS] -- COMMAND [ARG...], or see trvmm --help");
	if (!options->command[0][0])
		return error_set(err, -EINVAL, "the command is empty; give one: trvmm [OPTIONS] -- COMMAND [ARG...]");
	return 0;
}

/* Options that a subcommand shares with a run go to `options`, its own to `take`. */
struct disk_parse {
	struct options *options;
	option_taker *take;
	void *data;
};

static int take_disk_option(void *data, int id, const char *argument, struct error *err)
{
	const struct disk_parse *parse = data;
	return describes_root_disk(id) ? take_option(parse->options, id, argument, err)
				       : parse->take(parse->data, id, argument, err);
}

int options_parse_disk(int argc, char **argv, const struct option_row *own, size_t own_count, option_taker *take, void *data,
		       struct options *options, struct error *err)
{
	struct grammar grammar = { .count = 0 };
	struct disk_parse parse = { .options = options, .take = take, .data = data };

	int result = set_defaults(options, err);
	for (size_t i = 0; i < TABLE_ROWS; i++)
		if (describes_root_disk(table[i].id))
			grammar_add(&grammar, &table[i]);
	for (size_t i = 0; i < own_count; i++)
		grammar_add(&grammar, &own[i]);
	if (result == 0)
		result = walk_options(argc, argv, &grammar, "", take_disk_option, &parse, err);
	options->command = (const char *const *)argv + optind;
	return result;
}

void options_destroy(struct options *options)
{
	for (size_t i = 0; i < options->layer_count; i++)
		free(options->layers[i]);
	for (size_t i = 0; i < options->env_count; i++)
		free(options->env[i]);
	for (size_t i = 0; i < options->file_env_count; i++)
		free(options->file_env[i]);
	for (size_t i = 0; i < options->disk_count; i++)
		free(options->disks[i]);
	for (size_t i = 0; i < options->added_count; i++)
		free(options->added[i].host);
	for (size_t i = 0; i < options->tmpfs_count; i++)
		tmpfs_destroy(&options->tmpfs[i]);
	free(options->tmpfs);
	free(options->limits);
	options->tmpfs = NULL;
	options->limits = NULL;
	options->tmpfs_count = options->limit_count = 0;
	free(options->layers);
	free(options->added);
	free(options->env);
	free(options->file_env);
	free(options->disks);
	free(options->ports);
	options->layers = options->env = options->file_env = options->disks = NULL;
	options->added = NULL;
	options->ports = NULL;
	options->layer_count = options->added_count = options->env_count = options->file_env_count = options->disk_count = 0;
	options->port_count = 0;
}
