/*
 * The program at COPY_PATH in the guest: one end of copy.h, at stdin or stdout, started by `trvmm cp`. A file of its own beside the
 * agent, so that a start does not load what only cp needs.
 *
 *   copy out PATH
 *   copy in DESTINATION NAME CONTENTS OWNERS     the last two "0" or "1"
 *
 * Exit status 1: a text on stderr says why.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "guest/copy/copy.h"

static struct copy_problem problem;

static int run(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "out"))
		return copy_send(STDOUT_FILENO, argv[2], 0, &problem);
	const bool owners = !strcmp(argv[5], "1");
	const struct copy_target target = { .destination = argv[2],
					    .name = argv[3],
					    .contents = !strcmp(argv[4], "1"),
					    .owners = owners,
					    .special = owners,
					    .bytes_max = UINT64_MAX };
	return copy_receive(STDIN_FILENO, &target, &problem);
}

int main(int argc, char **argv)
{
	if (!(argc == 3 && !strcmp(argv[1], "out")) && !(argc == 6 && !strcmp(argv[1], "in")))
		return 2;
	const int result = run(argc, argv);
	if (result == 0)
		return 0;
	fprintf(stderr, "%s%s%s: %s", problem.what, *problem.path ? " " : "", problem.path, strerror(-result));
	return 1;
}
