/*
 * A trvmm that has been taken over: a test build does what its guest orders. Only objects that are compiled with TRVMM_BACKDOOR know of
 * this, and no product is linked from them (Makefile: $(BUILD)/backdoor/trvmm).
 *
 * The guest writes KIND << 8 | ORDER to the port as a double word, and reads back what came of it: a system call's result, as the kernel
 * has it.
 */
#ifndef TRVMM_TESTS_SANDBOX_BACKDOOR_H
#define TRVMM_TESTS_SANDBOX_BACKDOOR_H

#include <stdint.h>

#define BACKDOOR_PORT 0xbd0

/* Threads, by the numbers of enum sandbox_kind up to the reaper. */
#define BACKDOOR_KINDS 7

enum backdoor_order {
	BACKDOOR_OPEN_PASSWD,
	BACKDOOR_WRITE_HOME,
	BACKDOOR_CONNECT_LOOPBACK,
	BACKDOOR_CONNECT_UNIX,
	BACKDOOR_CONNECT_ABSTRACT,
	BACKDOOR_EXEC,
	BACKDOOR_FORK,
	BACKDOOR_PTRACE_PARENT,
	BACKDOOR_SIGNAL_PARENT,
	BACKDOOR_MAP_EXECUTABLE,
	BACKDOOR_MAKE_EXECUTABLE,
	BACKDOOR_LOAD_MODULE,
	BACKDOOR_OPEN_KVM,
	BACKDOOR_BECOME_ROOT,
	BACKDOOR_NEW_USER_NAMESPACE,
	BACKDOOR_READ_PROC,
	BACKDOOR_IO_URING,
	BACKDOOR_TYPE_FOR_THE_USER,
	BACKDOOR_TURN_LISTENER,
	BACKDOOR_ORDERS,
};

#define BACKDOOR_NAMES                                                                                                             \
	{                                                                                                                          \
		"open /etc/passwd", "write to the home directory", "connect to loopback", "connect to a Unix socket",              \
		    "connect to an abstract socket", "exec a shell", "start a process", "ptrace the parent", "signal the parent",  \
		    "map executable memory", "make memory executable", "load a module", "open /dev/kvm", "become root",            \
		    "make a user namespace", "open /proc/1/environ", "set up io_uring", "type into the terminal",                  \
		    "connect with a listening socket",                                                                             \
	}

#ifdef TRVMM_BACKDOOR
struct machine;
struct sandbox_spec;
/* What run_sandbox.c would close, changed as the environment says: TRVMM_BACKDOOR_KILL, TRVMM_BACKDOOR_WITHOUT=BITS. */
void backdoor_change_sandbox(struct sandbox_spec *spec);
/* Reads what orders need from the environment: before the sandbox closes. */
void backdoor_prepare(void);
/* Threads of kinds that the run may not have: when it is closed. */
void backdoor_start_threads(void);
/* An order of the guest, on a vCPU's thread. */
void backdoor_order(struct machine *machine, uint32_t order);
uint32_t backdoor_result(void);
/* For the reaper: does what it is ordered, if it is. Touches no thread-local storage. */
void backdoor_poll_reaper(void);
#endif

#endif
