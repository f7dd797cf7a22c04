/* Seccomp: the programs that the build made of sandbox_calls.h are installed. See sandbox_internal.h. */
#include <assert.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmm/sandbox_internal.h"

#include "sandbox_programs.h" /* in the build folder */

#define INSTRUCTIONS_MAX 512
#define EXIT_TRVMM 125

/* Of the process, as what it does is the process's. */
static struct {
	uint32_t pid;
	uint32_t otherwise; /* SECCOMP_RET_* */
} filter;

static __thread enum sandbox_kind kind_of_this_thread;

/* --sandbox-log. The thread that did it is the one that is here. */
static void on_refused(int number, siginfo_t *info, void *context)
{
	char line[160];
	(void)number;
	(void)context;
	const int length =
	    snprintf(line, sizeof(line), "trvmm: sandbox: a thread of kind '%s' made system call %d, which is not in its list\n",
		     sandbox_kind_name(kind_of_this_thread), info->si_syscall);
	(void)!write(STDERR_FILENO, line, (size_t)length);
	_exit(EXIT_TRVMM);
}

void sandbox_filter_init(enum sandbox_action action)
{
	static const uint32_t actions[] = {
		[SANDBOX_KILL] = SECCOMP_RET_KILL_PROCESS,
		[SANDBOX_TELL] = SECCOMP_RET_TRAP,
		[SANDBOX_REFUSE] = SECCOMP_RET_ERRNO | EPERM,
	};
	const struct sigaction tell = { .sa_sigaction = on_refused, .sa_flags = SA_SIGINFO };
	filter.pid = (uint32_t)getpid();
	filter.otherwise = actions[action];
	if (action == SANDBOX_TELL)
		sigaction(SIGSYS, &tell, NULL);
}

bool sandbox_filter_is_possible(void)
{
	const uint32_t action = SECCOMP_RET_KILL_PROCESS;
	return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
}

/* What was not known when it was made. `instructions` has room for INSTRUCTIONS_MAX. */
static struct sock_fprog finish(enum sandbox_kind kind, struct sock_filter *instructions)
{
	const struct program *program = &programs[kind];
	_Static_assert(sizeof(programs) / sizeof(programs[0]) == SANDBOX_KINDS, "a program for each kind");
	assert(program->count <= INSTRUCTIONS_MAX);
	memcpy(instructions, program->instructions, program->count * sizeof(instructions[0]));
	for (unsigned i = 0; i < program->count; i++) {
		struct sock_filter *instruction = &instructions[i];
		if (instruction->code == (BPF_JMP | BPF_JEQ | BPF_K) && instruction->k == SANDBOX_OWN_PID)
			instruction->k = filter.pid;
		if (instruction->code == (BPF_RET | BPF_K) && instruction->k == SECCOMP_RET_KILL_PROCESS)
			instruction->k = filter.otherwise;
	}
	return (struct sock_fprog){ .len = program->count, .filter = instructions };
}

const struct sock_fprog *sandbox_filter_reaper(void)
{
	static struct sock_filter instructions[INSTRUCTIONS_MAX];
	static struct sock_fprog fprog;
	fprog = finish(SANDBOX_REAPER, instructions);
	return &fprog;
}

int sandbox_filter_install(enum sandbox_kind kind, bool everywhere)
{
	struct sock_filter instructions[INSTRUCTIONS_MAX];
	const struct sock_fprog fprog = finish(kind, instructions);
	kind_of_this_thread = kind;
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, everywhere ? SECCOMP_FILTER_FLAG_TSYNC : 0, &fprog) ? -errno : 0;
}
