/*
 * A run that has a name (--name) or goes on by itself (-d): it is entered in the registry, others may ask it for things (vmm/remote.h), and
 * when it is detached its output goes to a log. All of this does nothing for other runs: these make no file and no system call for it.
 */
#ifndef TRVMM_VMM_RUN_NAMED_H
#define TRVMM_VMM_RUN_NAMED_H

#include "vmm/command.h"
#include "vmm/registry.h"
#include "vmm/run_internal.h"

/* Forks for -d; see detach_fork(). Before there are threads. All here return 0 or -errno with one line. */
int run_named_begin(struct run *run, struct error *err);

/* Takes the name. */
int run_named_claim(struct run *run, struct error *err);

/* The name that was taken; NULL: none. */
const struct registry_claim *run_named_registry(const struct run *run);

/* The keeper has the name, too, and the log: we need its folder no more. Takes over the log's ends for writing. */
void run_named_kept(struct run *run, int stdout_fd, int stderr_fd);

/* Gives a detached command its streams. */
void run_named_streams(struct run *run, struct session_spec *spec);

/* Takes over `command`, for commands that come later. Returns false when it did not. */
bool run_named_keep_command(struct run *run, const struct command *command);

/* Hears others from now on, as the loop runs. The session is there. */
int run_named_serve(struct run *run, struct error *err);

/* Whether a caller of -d still waits to hear how the start went. */
bool run_named_is_waited_for(const struct run *run);

/* The command runs. */
void run_named_started(struct run *run);

/* Settles what the run has outside: its end is written down, with all that waits for the log. `text` may be empty. Once; for all runs. */
void run_named_end(struct run *run, int code, const char *text);

#endif
