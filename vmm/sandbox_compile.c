/*
 * Run by the build: turns the table of sandbox_calls.h into seccomp programs, as C text on stdout. The library's work is done once, here,
 * and not at each start of a machine.
 */
#include <errno.h>
#include <linux/filter.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm/sandbox_internal.h"

#include "vmm/sandbox_calls.h"

#define CALLS (sizeof(sandbox_calls) / sizeof(sandbox_calls[0]))

static void fail(const char *what, int error)
{
	fprintf(stderr, "sandbox_compile: %s: %s\n", what, strerror(error));
	exit(1);
}

static void add_call(scmp_filter_ctx context, const struct sandbox_call *call)
{
	struct scmp_arg_cmp compare[SANDBOX_CONDITIONS_MAX];
	unsigned count = 0;
	uint32_t action = SCMP_ACT_ALLOW;
	const int number = seccomp_syscall_resolve_name(call->name);
	if (number == __NR_SCMP_ERROR)
		fail(call->name, ENOSYS);
	for (unsigned i = 0; i < SANDBOX_CONDITIONS_MAX; i++) {
		const struct sandbox_condition *condition = &call->conditions[i];
		if (!condition->mask && condition->value)
			action = SCMP_ACT_ERRNO((uint32_t)condition->value);
		if (condition->mask)
			compare[count++] = SCMP_CMP64(condition->argument, SCMP_CMP_MASKED_EQ, condition->mask, condition->value);
	}
	const int result = seccomp_rule_add_array(context, action, number, count, compare);
	if (result < 0)
		fail(call->name, -result);
}

/*
 * As a tree and not as a row of comparisons: the kernel runs the program once for each call that there is when it is installed, to remember
 * those that need no look at their arguments, and that is most of what an installation costs.
 */
static void make_tree(scmp_filter_ctx context)
{
	const int result = seccomp_attr_set(context, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	if (result < 0)
		fail("the library is older than 2.5", -result);
}

static void print_program(scmp_filter_ctx context, enum sandbox_kind kind)
{
	struct sock_filter instruction;
	const int fd = memfd_create("program", MFD_CLOEXEC);
	const int result = fd < 0 ? -errno : seccomp_export_bpf(context, fd);
	if (result < 0 || lseek(fd, 0, SEEK_SET) < 0)
		fail("exporting a program", result < 0 ? -result : errno);
	printf("static const struct sock_filter program_%u[] = {\n", (unsigned)kind);
	while (read(fd, &instruction, sizeof(instruction)) == (ssize_t)sizeof(instruction))
		printf("\t{ 0x%02x, %u, %u, 0x%08x },\n", instruction.code, instruction.jt, instruction.jf, instruction.k);
	puts("};");
	close(fd);
}

int main(void)
{
	puts("/* Made of sandbox_calls.h by sandbox_compile.c. */");
	for (unsigned kind = 0; kind < SANDBOX_KINDS; kind++) {
		scmp_filter_ctx context = seccomp_init(SCMP_ACT_KILL_PROCESS);
		if (!context)
			fail("seccomp_init", ENOMEM);
		make_tree(context);
		for (size_t i = 0; i < CALLS; i++)
			if (sandbox_calls[i].kinds & 1u << kind)
				add_call(context, &sandbox_calls[i]);
		print_program(context, (enum sandbox_kind)kind);
		seccomp_release(context);
	}
	puts("static const struct program {\n\tconst struct sock_filter *instructions;\n\tunsigned short count;\n} programs[] = {");
	for (unsigned kind = 0; kind < SANDBOX_KINDS; kind++)
		printf("\t{ program_%u, sizeof(program_%u) / sizeof(program_%u[0]) },\n", kind, kind, kind);
	puts("};");
	return fflush(stdout) == EOF;
}
