/* One run; see run.h. The wiring of all parts is here and in machine_attach(). */
#include "vmm/run.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/thread.h"
#include "devices/virtio-blk/disk_ext4.h"
#include "guest/agent/protocol.h"
#include "vmm/cli/cli.h"
#include "vmm/command.h"
#include "vmm/host.h"
#include "vmm/initramfs.h"
#include "vmm/reaper.h"
#include "vmm/run_internal.h"
#include "vmm/run_named.h"
#include "vmm/share.h"
#include "vmm/terminal.h"
#include "vmm/timeline.h"

/*
 * What every kernel hears: its console; a panic resets at once (which ends the VM), by a triple fault. Each word costs the guest some
 * 0.1 ms.
 */
#define CMDLINE "console=ttyS0 panic=-1 reboot=t"
/* Inode tables are computed when they are read, so little of them is read ahead (the default is 32 blocks). */
#define DISK_FLAGS "inode_readahead_blks=8"
/*
 * A disk that ends with its guest is never mounted again, so nothing need be in order on it after a crash: no flushes, and with our kernel
 * deleted inodes are used again at once. Nor need Linux notice that it is damaged, for which it would make a tree of where the metadata of
 * all groups lies: a quarter of what large disks cost at a mount.
 */
#define DISK_FLAGS_NOT_KEPT DISK_FLAGS ",noblock_validity,nobarrier"
#define CMDLINE_DISK " root=/dev/vda rootfstype=ext4 init=" AGENT_PATH " rootflags="
#define CMDLINE_SHARE " root=" SHARES_ROOT_TAG " rootfstype=virtiofs init=" AGENT_PATH
#define CMDLINE_READ_WRITE " rw"
#define CMDLINE_READ_ONLY " ro"
#define CMDLINE_QUIET " loglevel=1" /* panics are heard */
/* One processor: the kernel need not replace its lock prefixes, which takes milliseconds. */
#define CMDLINE_ONE_CPU " noreplace-smp"
/* Several: no comparing of their clocks, which KVM keeps equal. */
#define CMDLINE_MANY_CPUS " tsc=reliable"
/* Memory above 4 GiB: no bounce buffer of 64 MiB, since no device here needs it. */
#define CMDLINE_HIGH_MEMORY " swiotlb=noforce"
/* Files that are mapped: a machine check is for the processor that it happens on alone. */
#define CMDLINE_DAX " mce=0"
/*
 * Kernels that are not ours may have drivers that wait for a keyboard controller, test their timer, or test their ciphers, for which
 * Debian's takes 0.7 of 2 seconds.
 */
#define CMDLINE_FOREIGN " no_timer_check cryptomgr.notests i8042.noaux i8042.nokbd i8042.nopnp"

#define MESSAGE_MS 1000

static struct run the_run; /* lives as long as the process */

static void on_ready(void *data)
{
	struct run *run = data;
	run->ready = true;
	timeline_mark("agent ready");
	loop_remove(run->loop, &run->boot_timer);
	close(run->boot_timer.fd);
}

/* The marks of a guest that lies harm nobody but the reader of the timeline. */
static void on_times(void *data, const struct agent_times *times)
{
	const struct run *run = data;
	const int64_t init_ns = machine_time_of(run->machine, le64_get(times->init));
	if (!init_ns)
		return;
	timeline_mark_at("init", init_ns);
	timeline_mark_at("command's exec", machine_time_of(run->machine, le64_get(times->exec)));
	timeline_mark_at("command exits", machine_time_of(run->machine, le64_get(times->exited)));
}

static void on_started(void *data)
{
	struct run *run = data;
	if (run->ports)
		ports_start(run->ports);
	run_named_started(run);
}

static int open_kernel(struct run *run, struct error *err)
{
	char *fallback = NULL;
	const struct options *options = run->options;
	const char *path = options->kernel;
	if (!path) {
		const char *name = shares_map_files(options->shares, options->share_count) ? "vmlinux-dax" : "vmlinux";
		path = fallback = data_file(name);
		if (!path)
			return error_set(err, -ENOENT, "the guest kernel %s is not installed; run make, or give --kernel FILE",
					 name);
	}
	const int result = kernel_image_open(path, "", &run->kernel, err);
	free(fallback);
	return result;
}

/* Requests of the disk block on the host's storage, so they get a thread of their own. */
static void *blk_thread(void *data)
{
	const struct run *run = data;
	sandbox_enter(disk_thread_kind(run->root.tree));
	loop_run(run->blk_loop);
	return NULL;
}

/* The last moment before the guest runs: nobody has anything to do any more that threads do not do now. */
static void on_starting(void *data)
{
	(void)data;
	/* The guest can fill what stderr holds, and then say things that we have to complain of. */
	message_wait_at_most(MESSAGE_MS);
	sandbox_enter(SANDBOX_LOOP);
	timeline_mark("sandbox closed");
}

static int attach_root_disk(struct run *run, struct error *err)
{
	run->blk_loop = loop_create();
	if (!run->blk_loop)
		return error_set(err, -errno, "epoll: %s", strerror(errno));
	const int result = virtio_blk_create(run->blk_loop, machine_mem(run->machine), run->root.disk, &run->blk);
	if (result < 0)
		return error_set(err, result, "creating the root disk's device: %s", strerror(-result));
	virtio_blk_set_limit(run->blk, &run->options->io_limit);
	return machine_attach(run->machine, virtio_blk_device(run->blk), err);
}

static int attach_devices(struct run *run, struct error *err)
{
	const struct guest_mem *mem = machine_mem(run->machine);
	int result = run->options->root ? 0 : attach_root_disk(run, err);
	if (result < 0)
		return result;
	result = virtio_vsock_create(run->loop, mem, VSOCK_GUEST_CID, &run->vsock);
	if (result < 0)
		return error_set(err, result, "creating the vsock device: %s", strerror(-result));
	virtio_vsock_set_limit(run->vsock, &run->options->io_limit);
	result = run_serve_vsock(run, err);
	if (result == 0)
		result = machine_attach(run->machine, virtio_vsock_device(run->vsock), err);
	if (result == 0)
		result = extra_disks_attach(&run->extra_disks, run->machine, &run->options->io_limit, err);
	return result < 0 ? result : shares_attach(&run->shares, run->machine, &run->options->io_limit, err);
}

/* A guest that gathers writes has to let go of them before its machine ends. */
static bool has_writeback_share(const struct options *options)
{
	for (size_t i = 0; i < options->share_count; i++)
		if (options->shares[i].writeback)
			return true;
	return false;
}

/* What a guest has changed by mappings of files in shares, but those that are the host's own, is written back when its processes end. */
static bool has_writable_share(const struct options *options)
{
	for (size_t i = 0; i < options->share_count; i++)
		if (!options->shares[i].read_only && options->shares[i].dax != FS_DAX_ALWAYS)
			return true;
	return options->root && !options->read_only;
}

static int make_session(struct run *run, struct error *err)
{
	const struct options *options = run->options;
	struct command command;
	int result = command_resolve(options, &run->root.image, &command, err);
	if (result < 0)
		return result;
	struct session_spec spec = {
		.argv = command.argv,
		.env = command.env,
		.hostname = options->hostname,
		.workdir = command.workdir,
		.user = command.user,
		.init = options->init,
		.pids_max = options->pids_max,
		.limits = options->limits,
		.limit_count = options->limit_count,
		.tmpfs = options->tmpfs,
		.tmpfs_count = options->tmpfs_count,
		.terminal = options->terminal,
		.shares = run->shares.mounts,
		.share_count = run->shares.mount_count,
		.sync = options->rw_disk || extra_disks_are_kept(&run->extra_disks) || has_writeback_share(options),
		.end_others = has_writable_share(options),
		.proxy = options->port_count > 0,
		.start_later = true,
		.started = on_started,
		.times = options->timeline ? on_times : NULL,
		.stdin_fd = STDIN_FILENO,
		.stdout_fd = STDOUT_FILENO,
		.stderr_fd = STDERR_FILENO,
	};
	run_window_size(&spec.rows, &spec.columns);
	run_named_streams(run, &spec);
	result = session_create(run->loop, run->vsock, &spec, on_ready, run_session_ended, run, &run->session, err);
	if (!run_named_keep_command(run, &command))
		command_destroy(&command);
	/* The session has its own way to our stdin: whoever writes there is to notice when the command closes it. */
	const int null = result < 0 || options->terminal ? -1 : open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		close(null);
	}
	return result;
}

static const char *disk_flags(const struct options *options)
{
	return options->rw_disk ? DISK_FLAGS : DISK_FLAGS_NOT_KEPT;
}

/* It mounts the root, as the command line asks of other kernels. */
static int build_initramfs(const struct run *run, struct cpio *archive, struct error *err)
{
	const struct options *options = run->options;
	const struct initramfs_root disk = { "/dev/vda", "ext4", AGENT_PATH, disk_flags(options) };
	const struct initramfs_root share = { SHARES_ROOT_TAG, "virtiofs", AGENT_PATH, "" };
	const struct initramfs_spec spec = {
		.modules = options->modules,
		.release = run->kernel.release,
		.root = options->root ? share : disk,
		.read_only = options->read_only,
		.shares = options->root || options->share_count,
	};
	return initramfs_build(&spec, archive, err);
}

static int boot(struct run *run, struct error *err)
{
	const struct options *options = run->options;
	enum boot_protocol protocol = BOOT_LINUX64;
	struct cpio initramfs = { .bytes = NULL };
	char *cmdline;
	int result;

	if (options->boot == BOOT_CHOICE_PVH ||
	    (options->boot == BOOT_CHOICE_AUTO && !run->kernel.entry_loaded && run->kernel.pvh_entry))
		protocol = BOOT_PVH;
	if (asprintf(&cmdline, "%s%s%s%s%s%s%s%s%s%s%s", CMDLINE, options->root ? CMDLINE_SHARE : CMDLINE_DISK,
		     options->root ? "" : disk_flags(options), options->read_only ? CMDLINE_READ_ONLY : CMDLINE_READ_WRITE,
		     options->console ? "" : CMDLINE_QUIET,
		     options->cpus == 1 ? CMDLINE_ONE_CPU : CMDLINE_MANY_CPUS,
		     options->memory_bytes > GUEST_MEM_HOLE_START ? CMDLINE_HIGH_MEMORY : "",
		     shares_map_files(options->shares, options->share_count) ? CMDLINE_DAX : "",
		     options->kernel ? CMDLINE_FOREIGN : "", options->append ? " " : "",
		     options->append ? options->append : "") < 0)
		return error_set(err, -ENOMEM, "out of memory");
	result = options->modules ? build_initramfs(run, &initramfs, err) : 0;
	run->kernel.initrd = initramfs.bytes;
	run->kernel.initrd_bytes = initramfs.length;
	if (result == 0)
		result = machine_boot(run->machine, &run->kernel, protocol, cmdline, err);
	run->kernel.initrd = NULL;
	run->kernel.initrd_bytes = 0;
	cpio_destroy(&initramfs);
	free(cmdline);
	return result;
}

/* What goes into the guest's memory, and onto its disk. All that needs no VM. */
static int prepare_guest(struct run *run, struct error *err)
{
	int result = run->options->root ? 0 : root_disk_open(run->options, ROOT_DISK_RUN, &run->root, err);
	if (result == 0 && run->options->disk_quota_bytes && run->root.disk)
		disk_ext4_set_quota(run->root.disk, run->options->disk_quota_bytes);
	if (result == 0)
		result = shares_open(run->options, &run->shares, err);
	if (result == 0)
		result = extra_disks_open(run->options, &run->extra_disks, err);
	timeline_mark("disk planned");
	if (result == 0)
		result = attach_devices(run, err);
	if (result == 0)
		result = make_session(run, err);
	timeline_mark("devices attached");
	if (result == 0)
		result = boot(run, err);
	timeline_mark("kernel loaded");
	return result;
}

struct preparation {
	struct run *run;
	int done_fd;
	int result;
	struct error err;
};

static void *prepare_guest_thread(void *arg)
{
	struct preparation *preparation = arg;
	preparation->result = prepare_guest(preparation->run, &preparation->err);
	(void)!eventfd_write(preparation->done_fd, 1);
	return NULL;
}

/* Inflating layers may take minutes, in which nobody takes signals from their descriptor yet. */
static void wait_for_preparation(struct preparation *preparation, pthread_t thread)
{
	static const int ending[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };
	struct pollfd fds[2] = { { .fd = preparation->done_fd, .events = POLLIN },
				 { .fd = preparation->run->signals.fd, .events = POLLIN } };
	while (poll(fds, 2, -1) < 0 || !fds[0].revents) {
		sigset_t pending;
		sigpending(&pending);
		for (size_t i = 0; i < sizeof(ending) / sizeof(ending[0]); i++)
			if (sigismember(&pending, ending[i]) == 1)
				run_finish(preparation->run, 128 + ending[i]);
		/* Others are for the command: they wait for it. */
		if (fds[1].revents)
			fds[1].fd = -1;
	}
	pthread_join(thread, NULL);
}

/*
 * Creating the VM is mostly sleep, preparing the guest is mostly work, so they overlap. The VM is made here and the work is done on a new
 * thread, because that way round the sleep begins first also where both share one processor.
 */
static int prepare_vm_and_guest(struct run *run, struct error *err)
{
	struct preparation preparation = { .run = run, .done_fd = eventfd(0, EFD_CLOEXEC) };
	pthread_t thread;
	if (preparation.done_fd < 0)
		return error_set(err, -errno, "eventfd: %s", strerror(errno));
	int result = thread_start(&thread, prepare_guest_thread, &preparation);
	if (result < 0)
		return error_set(err, result, "starting a thread: %s", strerror(-result));
	result = machine_create_vm(run->machine, err);
	timeline_mark("VM created");
	wait_for_preparation(&preparation, thread);
	close(preparation.done_fd);
	if (preparation.result == 0)
		return result;
	*err = preparation.err;
	return preparation.result;
}

static int prepare(struct run *run, int kvm_fd, struct error *err)
{
	const struct options *options = run->options;
	const struct machine_config config = {
		.memory_bytes = options->memory_bytes,
		.cpus = options->cpus,
		/* Less than one thousandth is what none of them gets. */
		.cpu_thousandths = options->cpu_thousandths ? (options->cpu_thousandths + options->cpus - 1) / options->cpus : 0,
		.shm = shares_map_files(options->shares, options->share_count),
		.pc = options->kernel != NULL,
		.console_fd = options->console ? STDERR_FILENO : -1,
		.starting = on_starting,
		.ended = run_machine_ended,
		.data = run,
	};
	/* Before there are threads, which inherit the blocked signals. */
	int result = run_watch_signals(run, err);
	if (result == 0)
		result = run_named_claim(run, err);
	if (result == 0)
		result = run_start_keeper(run, err);
	if (result == 0)
		result = run_open_ports(run, err);
	if (result == 0)
		result = machine_create(kvm_fd, &config, run->loop, &run->machine, err);
	if (result == 0)
		result = prepare_vm_and_guest(run, err);
	if (result == 0)
		result = run_named_serve(run, err);
	if (result == 0)
		result = run_add_timer(run, &run->boot_timer, options->boot_timeout_s, run_boot_timed_out, err);
	if (result == 0 && options->timeout_s)
		result = run_add_timer(run, &run->timeout_timer, options->timeout_s, run_command_timed_out, err);
	return result;
}

/* All up to the end of the process. Returns only when it could not be started. */
static int start(struct run *run, struct error *err)
{
	const struct options *options = run->options;
	pthread_t thread;

	int result = open_kernel(run, err);
	if (result < 0)
		return result;
	const int kvm_fd = host_open_kvm(err);
	if (kvm_fd < 0)
		return kvm_fd;
	if (!options->no_kvm_check && !host_has_hardware_virtualization())
		return error_set(
		    err, -ENOTSUP,
		    "the processor shows neither VMX nor SVM: this /dev/kvm is software only and cannot run Linux guests; "
		    "use a machine with hardware virtualization, or enable nested virtualization for this VM");
	run->loop = loop_create();
	if (!run->loop)
		return error_set(err, -errno, "epoll: %s", strerror(errno));
	result = prepare(run, kvm_fd, err);
	if (result < 0)
		return result;
	if (options->terminal && (result = terminal_set_raw(STDIN_FILENO)) < 0)
		return error_set(err, result, "--tty: %s", strerror(-result));
	close(kvm_fd);
	result = run_close_sandbox(run, err);
	timeline_mark("process confined");
	if (result < 0)
		return result;
	result = session_start_streams(run->session);
	if (result == 0)
		result = run->blk ? thread_start(&thread, blk_thread, run) : 0;
	if (result < 0)
		return error_set(err, result, "starting a thread: %s", strerror(-result));
	result = extra_disks_start(&run->extra_disks, err);
	if (result == 0)
		result = shares_start(&run->shares, err);
	if (result < 0)
		return result;
	reaper_start();
	if (options->timeline)
		(void)machine_watch_time(run->machine);
	result = machine_start(run->machine, err);
	timeline_mark("vCPUs started");
	if (result == 0)
		result = loop_run(run->loop);
	terminal_restore();
	return result < 0 ? error_set(err, result, "%s", strerror(-result)) : 0;
}

int run(const struct options *options, struct error *err)
{
	struct run *run = &the_run;

	timeline_mark("options parsed");
	*run = (struct run){ .options = options, .kernel = { .fd = -1 }, .timeline_fd = -1 };
	/* One heap for all threads: for those of others the C library would look into /proc, which will not be there. */
	mallopt(M_ARENA_MAX, 1);
	if (options->terminal && !isatty(STDIN_FILENO))
		return error_set(err, -ENOTTY, "--tty: stdin is no terminal");
	if (options->timeline && (run->timeline_fd = timeline_open(options->timeline)) < 0)
		return error_set(err, run->timeline_fd, "--timeline '%s': %s", options->timeline, strerror(-run->timeline_fd));
	int result = run_named_begin(run, err);
	if (result == 0)
		result = start(run, err);
	if (result < 0)
		run_named_end(run, EXIT_TRVMM, err->text);
	return result;
}
