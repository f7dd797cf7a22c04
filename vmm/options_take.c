/* What each option of a run does; see options_internal.h. */
#include "vmm/options_internal.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/host.h"
#include "vmm/layout.h"
#include "vmm/limits.h"
#include "vmm/registry.h"
#include "vmm/share.h"

#define LEAST_MEMORY_BYTES (32ull << 20)
#define INIT_DEFAULT "/sbin/init"
#define PIDS_MAX (4u << 20) /* Linux's limit of process numbers */
#define LEAST_DISK_BYTES (1ull << 20)
#define LEAST_DISK_QUOTA_BYTES (1ull << 20)
#define MOST_DISK_BYTES (16ull << 40)

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

static int set_root(struct options *options, const char *argument, struct error *err)
{
	if (!*argument)
		return error_set(err, -EINVAL, "--root '': give a directory");
	free(options->root);
	options->root = NULL;
	const int result = share_absolute_path(argument, &options->root);
	return result < 0 ? error_set(err, -EINVAL, "--root '%s': %s", argument, strerror(-result)) : 0;
}

int options_take(void *data, int id, const char *argument, struct error *err)
{
	struct options *options = data;
	switch (id) {
	case OPT_KERNEL:
		options->kernel = argument;
		return 0;
	case OPT_MODULES:
		options->modules = argument;
		return 0;
	case OPT_LAYERS:
		return options_add_layers(options, argument, err);
	case OPT_ADD:
		return options_add_host_file(options, argument, err);
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
		return options_add_disk(options, argument, err);
	case OPT_ENTRYPOINT:
		if (!*argument)
			return error_set(err, -EINVAL, "--entrypoint '': give a command");
		options->entrypoint = argument;
		return 0;
	case OPT_ENV:
		options->path_given |= !strncmp(argument, "PATH=", 5);
		return options_add_env(options, argument, err);
	case OPT_ENV_FILE:
		return options_add_env_file(options, argument, err);
	case OPT_WORKDIR:
		options->workdir = argument;
		return 0;
	case OPT_USER:
		options->user = argument;
		return 0;
	case OPT_ULIMIT:
		return options_add_limit(options, argument, err);
	case OPT_READ_ONLY:
		options->read_only = true;
		return 0;
	case OPT_VOLUME:
		return options_add_share(options, argument, err);
	case OPT_ROOT:
		return set_root(options, argument, err);
	case OPT_TMPFS:
		return options_add_tmpfs(options, argument, err);
	case OPT_PIDS_LIMIT:
		return parse_count("pids-limit", argument, 1, PIDS_MAX, &options->pids_max, err);
	case OPT_INIT:
		options->init = argument ? argument : INIT_DEFAULT;
		if (options->init[0] != '/')
			return error_set(err, -EINVAL, "--init='%s': give an absolute path in the image", argument);
		return 0;
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
		return options_add_port(options, argument, err);
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
	case OPT_CPU_QUOTA:
		return limits_parse_cpu(argument, LAYOUT_CPUS_MAX, &options->cpu_thousandths, err);
	case OPT_DISK_QUOTA:
		if (options_parse_size(argument, &options->disk_quota_bytes) < 0 ||
		    options->disk_quota_bytes < LEAST_DISK_QUOTA_BYTES)
			return error_set(err, -EINVAL, "--disk-quota '%s': give a size from 1M on", argument);
		return 0;
	case OPT_IO_LIMIT:
		return limits_parse_io(argument, &options->io_limit, err);
	case OPT_NO_SANDBOX:
		options->no_sandbox = true;
		return 0;
	case OPT_SANDBOX_LOG:
		options->sandbox_log = true;
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
