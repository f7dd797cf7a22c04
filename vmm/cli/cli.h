/*
 * The command line's first word: `trvmm SUBCOMMAND ...`. Each subcommand is one file of this folder; a run, which needs no first word, is
 * vmm/run.c.
 */
#ifndef TRVMM_VMM_CLI_CLI_H
#define TRVMM_VMM_CLI_CLI_H

/* Exit codes of trvmm's own, those of docker; all others are the command's. */
#define EXIT_TRVMM 125 /* trvmm failed, with one line on stderr that says why */
#define EXIT_TIMEOUT 124 /* --timeout ended the command */

/*
 * A subcommand: argv[0] is its own name, argv[argc] is NULL. Prints what it has to say, also when it fails, and returns the exit code of
 * the process.
 */
typedef int subcommand(int argc, char **argv);

subcommand cli_cache;
subcommand cli_cp;
subcommand cli_disk;
subcommand cli_doctor;
subcommand cli_exec;
subcommand cli_kill;
subcommand cli_logs;
subcommand cli_proxy;
subcommand cli_ps;
subcommand cli_rm;
subcommand cli_stats;
subcommand cli_wait;

#endif
