/* Which options there are, and what --help says of them; see options_internal.h. */
#include "vmm/options_internal.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

const struct option_row options_table[] = {
	{ OPT_KERNEL, "kernel", "FILE", "bzImage or ELF vmlinux (default: trvmm's own guest kernel)" },
	{ OPT_MODULES, "modules", "DIR", "the kernel's drivers are modules, in this /lib/modules/VERSION" },
	{ OPT_LAYERS, "layers", "A[,B...]", "layers or images, bottom first; repeatable (default: a busybox root)" },
	{ OPT_ADD, "add", "HOST:GUEST", "put a file or directory of this host there, on top of the layers; repeatable" },
	{ OPT_MAX_LAYER_SIZE, "max-layer-size", "SIZE", "what a compressed layer may inflate to (default: 64G)" },
	{ OPT_MEMORY, "memory", "SIZE", "memory of the guest (default: 256M)" },
	{ OPT_CPUS, "cpus", "N", "processors of the guest, 1 to 8 (default: 1)" },
	{ OPT_CPU_QUOTA, "cpu-quota", "N", "processor time of the guest, as 0.5 of one processor (default: all of --cpus)" },
	{ OPT_DISK_SIZE, "disk-size", "SIZE", "size of the root disk (default: its contents and generous free space)" },
	{ OPT_RW_DISK, "rw-disk", "FILE", "keep what the guest writes to the root disk in FILE, for the next run" },
	{ OPT_DISK_FEATURES, "disk-features", "LIST", "has_journal, metadata_csum for the root disk; ^has_journal for a kept one" },
	{ OPT_DISK, "disk", "SPEC[:ro]", "one more disk: a file, nbd://..., or layers=A[,B...]; repeatable" },
	{ OPT_VOLUME, "volume", "HOST:GUEST[:ro]",
	  "a directory or file of this host there; :cache=none|auto|always[,writeback], :dax" },
	{ OPT_ROOT, "root", "DIR", "the root is this directory of the host itself, in place of a disk" },
	{ OPT_DISK_QUOTA, "disk-quota", "SIZE", "what the guest may change of each disk of layers; more is an I/O error" },
	{ OPT_IO_LIMIT, "io-limit", "bytes=S,ops=N",
	  "a second for each disk and for vsock, burst=SECONDS of it at once (default: 1)" },
	{ OPT_READ_ONLY, "read-only", NULL, "nobody can write to the root disk" },
	{ OPT_TMPFS, "tmpfs", "DIR[:size=S]", "a file system in the guest's memory there; repeatable" },
	{ OPT_ENV, "env", "K=V", "environment of the command; K alone takes the caller's value; repeatable" },
	{ OPT_ENV_FILE, "env-file", "FILE", "such variables, one a line; those of --env come over them; repeatable" },
	{ OPT_ENTRYPOINT, "entrypoint", "COMMAND", "run this instead of the image's entrypoint" },
	{ OPT_WORKDIR, "workdir", "DIR", "working directory of the command (default: /)" },
	{ OPT_USER, "user", "USER[:GROUP]", "user of the command, names or numbers (default: root)" },
	{ OPT_ULIMIT, "ulimit", "NAME=S[:HARD]", "a limit of resources, as nofile=1024:4096; repeatable" },
	{ OPT_PIDS_LIMIT, "pids-limit", "N", "how many processes and threads the command and those of trvmm exec may be" },
	{ OPT_INIT, "init", "[=PATH]", "run the image's own init as process 1, beside the command (default: /sbin/init)" },
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
	{ OPT_NO_SANDBOX, "no-sandbox", NULL, "do not confine trvmm: whatever breaks out of the guest may do what you may" },
	{ OPT_SANDBOX_LOG, "sandbox-log", NULL, "name the system call that the sandbox ends trvmm for" },
	{ OPT_TIMELINE, "timeline", "FILE", "write there when each stage of the start was reached" },
	{ OPT_VERSION, "version", NULL, "print the version" },
	{ OPT_HELP, "help", NULL, "print this help" },
};
const size_t options_table_rows = sizeof(options_table) / sizeof(options_table[0]);
static_assert(sizeof(options_table) / sizeof(options_table[0]) <= OPTIONS_TABLE_ROWS_MAX, "a grammar has room for the table");

bool options_describes_root_disk(int id)
{
	return id == OPT_LAYERS || id == OPT_ADD || id == OPT_MAX_LAYER_SIZE || id == OPT_DISK_SIZE || id == OPT_RW_DISK ||
	       id == OPT_DISK_FEATURES;
}

bool option_argument_is_optional(const struct option_row *row)
{
	return row->argument && !strncmp(row->argument, "[=", 2);
}

void option_row_print(const struct option_row *row)
{
	char left[48], with_argument[40];
	const bool separate = row->argument && !option_argument_is_optional(row);
	snprintf(with_argument, sizeof(with_argument), "--%s%s%s", row->name, separate ? " " : "", row->argument ? row->argument : "");
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
	      "       trvmm ps|logs|stats|wait|kill|rm        list machines; see and end them; each of these knows --help\n"
	      "       trvmm proxy --tcp PORT --vsock PATH:PORT   a TCP port for a guest that speaks vsock itself\n"
	      "       trvmm doctor [--kernel FILE]            can this host run guests, and if not, what to do\n"
	      "       trvmm doctor --sandbox                  what confines trvmm on this host, and what does not\n"
	      "       trvmm cache ls|prune                    what the cache holds; remove what is not used\n"
	      "\n"
	      "Options:\n",
	      stdout);
	for (size_t i = 0; i < options_table_rows; i++)
		option_row_print(&options_table[i]);
	fputs("\n"
	      "Exit status: the command's own; 128 + n when signal n killed it; 127 not found, 126 not executable,\n"
	      "125 when trvmm itself failed, with one line on stderr that says why. See trvmm(1).\n",
	      stdout);
}

void options_print_disk_help(const struct option_row *own, size_t own_count)
{
	for (size_t i = 0; i < options_table_rows; i++)
		if (options_describes_root_disk(options_table[i].id))
			option_row_print(&options_table[i]);
	for (size_t i = 0; i < own_count; i++)
		option_row_print(&own[i]);
}
