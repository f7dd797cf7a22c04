/* One run; see run.h. The wiring of all parts is here and in machine_attach(). */
#include "vmm/run.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/container.h"
#include "base/thread.h"
#include "devices/virtio-blk/virtio_blk.h"
#include "devices/virtio-vsock/virtio_vsock.h"
#include "guest/agent/protocol.h"
#include "vmm/cli/cli.h"
#include "vmm/command.h"
#include "vmm/extra_disks.h"
#include "vmm/host.h"
#include "vmm/machine.h"
#include "vmm/reaper.h"
#include "vmm/root_disk.h"
#include "vmm/session.h"
#include "vmm/terminal.h"
#include "vmm/timeline.h"

#define CONSOLE_LINES 24 /* a panic with its call trace */
#define KILL_AFTER_S 5 /* what --timeout leaves the command between TERM and the end */

/*
 * What every kernel hears: its console and disk; a panic resets at once (which ends the VM), by a triple fault. Inode tables are computed
 * when they are read, so little of them is read ahead (the default is 32 blocks). Each word costs the guest some 0.1 ms.
 */
#define CMDLINE                                                                                                                      \
	"console=ttyS0 panic=-1 reboot=t root=/dev/vda rootfstype=ext4 rw rootflags=inode_readahead_blks=8 init=" AGENT_PATH
#define CMDLINE_QUIET " loglevel=1" /* panics are heard */
/* One processor: the kernel need not replace its lock prefixes, which takes milliseconds. */
#define CMDLINE_ONE_CPU " noreplace-smp"
/* Several: no comparing of their clocks, which KVM keeps equal. */
#define CMDLINE_MANY_CPUS " tsc=reliable"
/* Memory above 4 GiB: no bounce buffer of 64 MiB, since no device here needs it. */
#define CMDLINE_HIGH_MEMORY " swiotlb=noforce"
/* Kernels that are not ours may have drivers that wait for a keyboard controller or test their timer. */
#define CMDLINE_FOREIGN " no_timer_check i8042.noaux i8042.nokbd i8042.nopnp"

struct run {
	const struct options *options;
	struct loop *loop;
	struct root_disk root;
	struct kernel_image kernel;
	struct machine *machine;
	struct loop *blk_loop;
	struct virtio_blk *blk;
	struct extra_disks extra_disks;
	struct virtio_vsock *vsock;
	struct session *session;
	struct loop_source signals;
	struct loop_source boot_timer, timeout_timer;
	unsigned interrupts; /* SIGINT and SIGTERM so far */
	bool ready, timed_out;
	char death[256]; /* how the guest ended by itself; empty: it runs */
};

static struct run the_run; /* lives as long as the process */

static void finish(int code) __attribute__((noreturn));

/* The end of the process is the end of the VM: nothing has to be taken down. Only after the machine was created. */
static void finish(int code)
{
	terminal_restore();
	if (the_run.options->timeline) {
		timeline_mark("exit");
		timeline_write(the_run.options->timeline);
	}
	reaper_exit(code, machine_vm_fd(the_run.machine));
}

/* ---- how it ends ---- */

static void print_console(struct run *run)
{
	char tail[4096];
	if (run->options->console || machine_console_tail(run->machine, CONSOLE_LINES, tail, sizeof(tail)) == 0)
		return;
	for (char *line = strtok(tail, "\n"); line; line = strtok(NULL, "\n"))
		message("  console: %s", line);
}

/* The agent's own last word, if that is on the console: it knows better than we do. Returns NULL when there is none. */
static char *agent_complaint(struct run *run)
{
	static char tail[4096];
	machine_console_tail(run->machine, CONSOLE_LINES, tail, sizeof(tail));
	char *at = strstr(tail, "trvmm-agent: ");
	if (at)
		at[strcspn(at, "\n")] = '\0';
	return at;
}

static void guest_died(struct run *run, const char *what) __attribute__((noreturn));

static void guest_died(struct run *run, const char *what)
{
	terminal_restore();
	const char *complaint = run->ready ? NULL : agent_complaint(run);
	const char *missing = run->ready || complaint ? NULL : kernel_image_missing_driver(&run->kernel);
	if (complaint) {
		message("%s", complaint);
	} else if (missing) {
		message("the guest did not start: the kernel lacks %s; build it in (=y, not =m)", missing);
	} else {
		message("%s: %s", run->ready ? "the guest ended before the command did" : "the guest did not start", what);
		print_console(run);
	}
	finish(EXIT_TRVMM);
}

/* A command that has exited may still have output on its way to us: the session ends when that is delivered, too. */
static void on_machine_ended(void *data, enum machine_end end, const char *detail)
{
	struct run *run = data;
	(void)end;
	snprintf(run->death, sizeof(run->death), "%s", detail);
	session_guest_gone(run->session, run->death);
}

static void on_session_ended(void *data, const struct session_result *result)
{
	struct run *run = data;
	timeline_mark("command ended");
	terminal_restore();
	if (run->timed_out)
		finish(EXIT_TIMEOUT);
	if (run->death[0] && result->exit_code == EXIT_TRVMM && result->err.text[0])
		guest_died(run, run->death);
	if (result->err.text[0])
		message("%s", result->err.text);
	finish(result->exit_code);
}

/* ---- signals and timers ---- */

static void arm(struct loop_source *timer, unsigned seconds)
{
	const struct itimerspec when = { .it_value.tv_sec = seconds };
	timerfd_settime(timer->fd, 0, &when, NULL);
}

static int add_timer(struct run *run, struct loop_source *timer, unsigned seconds, void (*ready)(struct loop_source *, uint32_t),
		     struct error *err)
{
	const int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	*timer = (struct loop_source){ .fd = fd, .events = EPOLLIN, .ready = ready };
	if (fd < 0)
		return error_set(err, -errno, "timerfd: %s", strerror(errno));
	arm(timer, seconds);
	const int result = loop_add(run->loop, timer);
	return result < 0 ? error_set(err, result, "epoll: %s", strerror(-result)) : 0;
}

static void boot_timed_out(struct loop_source *source, uint32_t events)
{
	struct run *run = container_of(source, struct run, boot_timer);
	char what[96];
	(void)events;
	snprintf(what, sizeof(what), "no word from its agent in %u s; see --boot-timeout and --console", run->options->boot_timeout_s);
	guest_died(run, what);
}

static void command_timed_out(struct loop_source *source, uint32_t events)
{
	struct run *run = container_of(source, struct run, timeout_timer);
	(void)events;
	if (run->timed_out || !run->ready)
		finish(EXIT_TIMEOUT);
	run->timed_out = true;
	session_signal(run->session, SIGTERM);
	arm(source, KILL_AFTER_S);
}

static void on_ready(void *data)
{
	struct run *run = data;
	run->ready = true;
	timeline_mark("agent ready");
	loop_remove(run->loop, &run->boot_timer);
	close(run->boot_timer.fd);
}

static void window_size(uint16_t *rows, uint16_t *columns)
{
	*rows = *columns = 0;
	if (terminal_get_size(STDIN_FILENO, rows, columns) < 0)
		terminal_get_size(STDOUT_FILENO, rows, columns);
}

static void on_signal(struct loop_source *source, uint32_t events)
{
	struct run *run = container_of(source, struct run, signals);
	struct signalfd_siginfo info;
	(void)events;

	if (read(source->fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return;
	const int signal = (int)info.ssi_signo;
	if (signal == SIGWINCH) {
		uint16_t rows, columns;
		window_size(&rows, &columns);
		session_resize(run->session, rows, columns);
		return;
	}
	/* The first one asks the command, the second one ends the VM, whatever the guest does. */
	if ((signal == SIGINT || signal == SIGTERM) && ++run->interrupts > 1)
		finish(128 + signal);
	session_signal(run->session, signal);
}

/* Blocks the signals that are forwarded, in this thread and all that it will start, and takes them from a descriptor. */
static int watch_signals(struct run *run, struct error *err)
{
	sigset_t set;
	sigemptyset(&set);
	const int forwarded[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2 };
	for (size_t i = 0; i < sizeof(forwarded) / sizeof(forwarded[0]); i++)
		sigaddset(&set, forwarded[i]);
	if (run->options->terminal)
		sigaddset(&set, SIGWINCH);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	/* A broken pipe is an error of that write, not the end of trvmm. */
	signal(SIGPIPE, SIG_IGN);
	run->signals = (struct loop_source){ .fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK), .events = EPOLLIN, .ready = on_signal };
	if (run->signals.fd < 0)
		return error_set(err, -errno, "signalfd: %s", strerror(errno));
	const int result = loop_add(run->loop, &run->signals);
	return result < 0 ? error_set(err, result, "epoll: %s", strerror(-result)) : 0;
}

/* ---- set-up ---- */

static int open_kernel(struct run *run, struct error *err)
{
	char *fallback = NULL;
	const char *path = run->options->kernel;
	if (!path) {
		path = fallback = data_file("vmlinux");
		if (!path)
			return error_set(err, -ENOENT, "the default guest kernel is not installed; run make, or give --kernel FILE");
	}
	const int result = kernel_image_open(path, "", &run->kernel, err);
	free(fallback);
	return result;
}

/* Requests of the disk block on the host's storage, so they get a thread of their own. */
static void *blk_thread(void *loop)
{
	loop_run(loop);
	return NULL;
}

static int attach_devices(struct run *run, struct error *err)
{
	const struct guest_mem *mem = machine_mem(run->machine);
	run->blk_loop = loop_create();
	if (!run->blk_loop)
		return error_set(err, -errno, "epoll: %s", strerror(errno));
	int result = virtio_blk_create(run->blk_loop, mem, run->root.disk, &run->blk);
	if (result == 0)
		result = virtio_vsock_create(run->loop, mem, VSOCK_GUEST_CID, &run->vsock);
	if (result < 0)
		return error_set(err, result, "creating the devices: %s", strerror(-result));
	result = machine_attach(run->machine, virtio_blk_device(run->blk), err);
	if (result == 0)
		result = machine_attach(run->machine, virtio_vsock_device(run->vsock), err);
	return result < 0 ? result : extra_disks_attach(&run->extra_disks, run->machine, err);
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
		.terminal = options->terminal,
		.sync = options->rw_disk || extra_disks_are_kept(&run->extra_disks),
		.stdin_fd = STDIN_FILENO,
		.stdout_fd = STDOUT_FILENO,
		.stderr_fd = STDERR_FILENO,
	};
	window_size(&spec.rows, &spec.columns);
	result = session_create(run->loop, run->vsock, &spec, on_ready, on_session_ended, run, &run->session, err);
	command_destroy(&command);
	/* The session has its own way to our stdin: whoever writes there is to notice when the command closes it. */
	const int null = result < 0 || options->terminal ? -1 : open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		close(null);
	}
	return result;
}

static int boot(struct run *run, struct error *err)
{
	const struct options *options = run->options;
	enum boot_protocol protocol = BOOT_LINUX64;
	char *cmdline;

	if (options->boot == BOOT_CHOICE_PVH || (options->boot == BOOT_CHOICE_AUTO && !run->kernel.entry_loaded && run->kernel.pvh_entry))
		protocol = BOOT_PVH;
	if (asprintf(&cmdline, "%s%s%s%s%s%s%s", CMDLINE, options->console ? "" : CMDLINE_QUIET,
		     options->cpus == 1 ? CMDLINE_ONE_CPU : CMDLINE_MANY_CPUS,
		     options->memory_bytes > GUEST_MEM_HOLE_START ? CMDLINE_HIGH_MEMORY : "", options->kernel ? CMDLINE_FOREIGN : "",
		     options->append ? " " : "", options->append ? options->append : "") < 0)
		return error_set(err, -ENOMEM, "out of memory");
	const int result = machine_boot(run->machine, &run->kernel, protocol, cmdline, err);
	free(cmdline);
	return result;
}

/* What goes into the guest's memory, and onto its disk. All that needs no VM. */
static int prepare_guest(struct run *run, struct error *err)
{
	int result = root_disk_open(run->options, ROOT_DISK_RUN, &run->root, err);
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
	int result;
	struct error err;
};

static void *prepare_guest_thread(void *arg)
{
	struct preparation *preparation = arg;
	preparation->result = prepare_guest(preparation->run, &preparation->err);
	return NULL;
}

/*
 * Creating the VM is mostly sleep, preparing the guest is mostly work, so they overlap. The VM is made here and the work is done on a new
 * thread, because that way round the sleep begins first also where both share one processor.
 */
static int prepare_vm_and_guest(struct run *run, struct error *err)
{
	struct preparation preparation = { .run = run };
	pthread_t thread;
	int result = thread_start(&thread, prepare_guest_thread, &preparation);
	if (result < 0)
		return error_set(err, result, "starting a thread: %s", strerror(-result));
	result = machine_create_vm(run->machine, err);
	timeline_mark("VM created");
	pthread_join(thread, NULL);
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
		.pc = options->kernel != NULL,
		.console_fd = options->console ? STDERR_FILENO : -1,
		.ended = on_machine_ended,
		.data = run,
	};
	/* Before there are threads, which inherit the blocked signals. */
	int result = watch_signals(run, err);
	if (result == 0)
		result = machine_create(kvm_fd, &config, run->loop, &run->machine, err);
	if (result == 0)
		result = prepare_vm_and_guest(run, err);
	if (result == 0)
		result = add_timer(run, &run->boot_timer, options->boot_timeout_s, boot_timed_out, err);
	if (result == 0 && options->timeout_s)
		result = add_timer(run, &run->timeout_timer, options->timeout_s, command_timed_out, err);
	return result;
}

int run(const struct options *options, struct error *err)
{
	struct run *run = &the_run;
	pthread_t thread;

	timeline_mark("options parsed");
	*run = (struct run){ .options = options, .kernel = { .fd = -1 } };
	if (options->terminal && !isatty(STDIN_FILENO))
		return error_set(err, -ENOTTY, "--tty: stdin is no terminal");
	int result = open_kernel(run, err);
	if (result < 0)
		return result;
	const int kvm_fd = host_open_kvm(err);
	if (kvm_fd < 0)
		return kvm_fd;
	if (!options->no_kvm_check && !host_has_hardware_virtualization())
		return error_set(err, -ENOTSUP,
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
	result = thread_start(&thread, blk_thread, run->blk_loop);
	if (result < 0)
		return error_set(err, result, "starting the disk's thread: %s", strerror(-result));
	result = extra_disks_start(&run->extra_disks, err);
	if (result < 0)
		return result;
	reaper_start();
	result = machine_start(run->machine, err);
	timeline_mark("vCPUs started");
	if (result == 0)
		result = loop_run(run->loop);
	terminal_restore();
	return result < 0 ? error_set(err, result, "%s", strerror(-result)) : 0;
}
