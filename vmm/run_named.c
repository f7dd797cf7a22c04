/* What a run does more when it has a name (--name) or goes on by itself (-d): registry, log, other processes' requests. */
#include "vmm/run_named.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "vmm/command.h"
#include "vmm/detach.h"
#include "vmm/keeper.h"
#include "vmm/registry.h"
#include "vmm/remote_server.h"

struct named {
	struct detach detach;
	struct registry_claim claim;
	bool claimed;
	bool started; /* the command runs, or has run */
	int stdout_fd, stderr_fd; /* owned: the log's pipes; -1 unless detached */
	int statm_fd; /* owned: /proc/self/statm, for the figures */
	struct command command; /* owned: what EXEC inherits */
	struct remote_server *server;
};

int run_named_begin(struct run *run, struct error *err)
{
	if (!run->options->name && !run->options->detach)
		return 0;
	struct named *named = calloc(1, sizeof(*named));
	if (!named)
		return error_set(err, -ENOMEM, "out of memory");
	named->stdout_fd = named->stderr_fd = -1;
	const int result = run->options->detach ? detach_fork(&named->detach, err) : 0;
	if (result < 0)
		free(named);
	else
		run->named = named;
	return result;
}

/* The command as people see it: words that need it in quotes, cut when it is long. */
static void describe_command(const struct options *options, char *text, size_t size)
{
	char word[128];
	size_t used = 0;
	text[0] = '\0';
	if (options->entrypoint)
		used = (size_t)snprintf(text, size, "%s ",
					error_quote(word, sizeof(word), options->entrypoint, strlen(options->entrypoint)));
	for (const char *const *at = options->command; *at && used < size; at++) {
		error_quote(word, sizeof(word), *at, strlen(*at));
		const char *quote = !*word || strchr(word, ' ') ? "'" : "";
		used += (size_t)snprintf(text + used, size - used, "%s%s%s%s", quote, word, quote, at[1] ? " " : "");
	}
	if (!used)
		snprintf(text, size, "(the image's own)");
}

int run_named_claim(struct run *run, struct error *err)
{
	const struct options *options = run->options;
	struct named *named = run->named;
	if (!named)
		return 0;
	struct registry_info info = {
		.pid = getpid(),
		.started_s = time(NULL),
		.detached = options->detach,
		.remove = options->remove,
		.cpus = options->cpus,
		.memory_bytes = options->memory_bytes,
	};
	describe_command(options, info.command, sizeof(info.command));
	const int result = registry_claim(&named->claim, options->name, &info, err);
	named->claimed = result == 0;
	named->statm_fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	return result;
}

const struct registry_claim *run_named_registry(const struct run *run)
{
	return run->named && run->named->claimed ? &run->named->claim : NULL;
}

void run_named_kept(struct run *run, int stdout_fd, int stderr_fd)
{
	struct named *named = run->named;
	if (!named)
		return;
	named->stdout_fd = stdout_fd;
	named->stderr_fd = stderr_fd;
	/* The state's stays with us as well: its lock says that we live. */
	close(named->claim.folder_fd);
	close(named->claim.root_fd);
	named->claim.folder_fd = named->claim.root_fd = -1;
}

void run_named_streams(struct run *run, struct session_spec *spec)
{
	if (!run->named || !run->options->detach)
		return;
	spec->stdin_fd = -1;
	spec->stdout_fd = run->named->stdout_fd;
	spec->stderr_fd = run->named->stderr_fd;
}

bool run_named_keep_command(struct run *run, const struct command *command)
{
	if (run->named)
		run->named->command = *command;
	return run->named;
}

/* ---- what others ask for ----------------------------------------------------------------------------------------------------- */

static void on_kill(void *data, int number)
{
	struct run *run = data;
	if (number == SIGKILL)
		run_finish(run, 128 + SIGKILL);
	session_signal(run->session, number);
}

static uint64_t resident_bytes(int statm_fd)
{
	char text[128] = "";
	const ssize_t n = pread(statm_fd, text, sizeof(text) - 1, 0);
	/* The second number. */
	const char *space = n > 0 ? strchr(text, ' ') : NULL;
	return space ? strtoull(space, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

static void on_figures(void *data, struct remote_figures *figures)
{
	const struct run *run = data;
	struct virtio_blk_stats blk = { 0 };
	struct virtio_vsock_stats vsock;
	struct fs_counters fs;
	struct timespec used = { 0 };
	if (run->blk)
		virtio_blk_get_stats(run->blk, &blk);
	shares_counters(&run->shares, &fs);
	virtio_vsock_get_stats(run->vsock, &vsock);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
	*figures = (struct remote_figures){
		.cpu_ns = le64_make(machine_cpu_ns(run->machine)),
		.process_cpu_ns = le64_make((uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec),
		.memory_bytes = le64_make(run->options->memory_bytes),
		.resident_bytes = le64_make(resident_bytes(run->named->statm_fd)),
		.blk_reads = le64_make(blk.reads),
		.blk_read_bytes = le64_make(blk.read_bytes),
		.blk_writes = le64_make(blk.writes),
		.blk_written_bytes = le64_make(blk.written_bytes),
		.fs_requests = le64_make(fs.requests),
		.fs_read_bytes = le64_make(fs.read_bytes),
		.fs_written_bytes = le64_make(fs.write_bytes),
		.fs_errors = le64_make(fs.errors),
		.fs_nodes = le64_make(fs.nodes),
		.fs_descriptors = le64_make(fs.descriptors),
		.vsock_connections = le64_make(vsock.connections),
		.vsock_to_guest_bytes = le64_make(vsock.to_guest_bytes),
		.vsock_from_guest_bytes = le64_make(vsock.from_guest_bytes),
	};
}

int run_named_serve(struct run *run, struct error *err)
{
	struct named *named = run->named;
	if (!named)
		return 0;
	const struct remote_server_config config = {
		.listen_fd = named->claim.listen_fd,
		.session = run->session,
		.env = named->command.env,
		.workdir = named->command.workdir,
		.user = named->command.user,
		.limits = run->options->limits,
		.limit_count = run->options->limit_count,
		.kill = on_kill,
		.figures = on_figures,
		.data = run,
	};
	const int result = remote_server_create(run->loop, &config, &named->server);
	/* The session has its own ways to the log; but stderr_fd is for what we say ourselves. */
	if (named->stdout_fd >= 0)
		close(named->stdout_fd);
	named->stdout_fd = -1;
	return result < 0 ? error_set(err, result, "the socket of a named machine: %s", strerror(-result)) : 0;
}

/* ---- start and end ----------------------------------------------------------------------------------------------------------- */

bool run_named_is_waited_for(const struct run *run)
{
	return run->named && run->options->detach && !run->named->started;
}

void run_named_started(struct run *run)
{
	if (run_named_is_waited_for(run))
		detach_let_go(&run->named->detach, run->named->claim.name, run->named->stderr_fd);
	if (run->named)
		run->named->started = true;
}

void run_named_end(struct run *run, int code, const char *text)
{
	struct named *named = run->named;
	/* One that did not start has told its caller why, and is not heard of again. */
	const bool keep = named && run->options->detach && named->started && !run->options->remove;
	if (run->keeper) {
		keeper_end(run->keeper, code, text, keep);
		run->keeper = NULL;
	} else if (named && named->claimed) {
		const struct registry_end end = { .exit_code = code, .ended_s = time(NULL) };
		registry_release(&named->claim, &end, keep);
	}
	if (named)
		named->claimed = false;
}
