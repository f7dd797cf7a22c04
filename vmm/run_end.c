/* How a run ends: the command's exit, the guest's death, and what is said about it. See run_internal.h. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "vmm/cli/cli.h"
#include "vmm/reaper.h"
#include "vmm/run_internal.h"
#include "vmm/run_named.h"
#include "vmm/terminal.h"
#include "vmm/timeline.h"

#define CONSOLE_LINES 32 /* a panic with its call trace */

/* The end of the process is the end of the VM: nothing has to be taken down. Only after the machine was created. */
void run_finish(struct run *run, int code)
{
	terminal_restore();
	if (run->timeline_fd >= 0) {
		timeline_mark("exit");
		timeline_write(run->timeline_fd);
	}
	run_named_end(run, code, run->said);
	reaper_exit(code, machine_vm_fd(run->machine));
}

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

void run_guest_died(struct run *run, const char *what)
{
	terminal_restore();
	const char *complaint = run->ready ? NULL : agent_complaint(run);
	const char *missing = run->ready || complaint || run->options->modules ? NULL : kernel_image_missing_driver(&run->kernel);
	/* Remembered, too: others may ask how the machine ended. */
	if (complaint)
		snprintf(run->said, sizeof(run->said), "%s", complaint);
	else if (missing)
		snprintf(run->said, sizeof(run->said),
			 "the guest did not start: the kernel lacks %s; build it in (=y, not =m), or give its modules: --modules "
			 "/lib/modules/VERSION",
			 missing);
	else
		snprintf(run->said, sizeof(run->said), "%s: %s",
			 run->ready ? "the guest ended before the command did" : "the guest did not start", what);
	message("%s", run->said);
	if (!complaint && !missing)
		print_console(run);
	run_finish(run, EXIT_TRVMM);
}

/* A command that has exited may still have output on its way to us: the session ends when that is delivered, too. */
void run_machine_ended(void *data, enum machine_end end, const char *detail)
{
	struct run *run = data;
	(void)end;
	snprintf(run->death, sizeof(run->death), "%s", detail);
	session_guest_gone(run->session, run->death);
}

/*
 * The image's own init (--init) may end the machine before the command ends: that is what shutting down is, and no failure of ours. In
 * order, it kills the command first, which is then heard of as usual.
 */
static bool was_shut_down(struct run *run, const struct session_result *result)
{
	char tail[4096];
	if (!run->options->init || !result->guest_gone || !result->started)
		return false;
	machine_console_tail(run->machine, CONSOLE_LINES, tail, sizeof(tail));
	return !strstr(tail, "Kernel panic");
}

void run_session_ended(void *data, const struct session_result *result)
{
	struct run *run = data;
	timeline_mark("command ended");
	terminal_restore();
	if (run->timed_out)
		run_finish(run, EXIT_TIMEOUT);
	const bool shut_down = was_shut_down(run, result);
	if (result->guest_gone && run->death[0] && !shut_down)
		run_guest_died(run, run->death);
	snprintf(run->said, sizeof(run->said), "%s",
		 shut_down ? "the guest was shut down, or its agent killed, before the command ended" : result->err.text);
	if (run->said[0])
		message("%s", run->said);
	run_finish(run, shut_down ? 128 + SIGKILL : result->exit_code);
}
