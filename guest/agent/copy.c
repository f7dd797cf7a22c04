/* The agent's program as a command of `trvmm cp`, not as process 1: one end of guest/copy/copy.h, at stdin or stdout. */
#include <string.h>
#include <unistd.h>

#include "guest/agent/agent.h"
#include "guest/copy/copy.h"

int copy_main(int argc, char **argv)
{
	static struct copy_problem problem;
	int result;
	if (argc == 3 && !strcmp(argv[1], AGENT_COPY_OUT)) {
		result = copy_send(STDOUT_FILENO, argv[2], &problem);
	} else if (argc == 6 && !strcmp(argv[1], AGENT_COPY_IN)) {
		const bool owners = !strcmp(argv[5], "1");
		const struct copy_target target = { .destination = argv[2],
						    .name = argv[3],
						    .contents = !strcmp(argv[4], "1"),
						    .owners = owners,
						    .special = owners,
						    .bytes_max = UINT64_MAX };
		result = copy_receive(STDIN_FILENO, &target, &problem);
	} else {
		return 2;
	}
	if (result == 0)
		return 0;
	struct text why = { 0 };
	text_add(&why, problem.what);
	if (*problem.path) {
		text_add(&why, " ");
		text_add(&why, problem.path);
	}
	text_add_error(&why, -result);
	return write(STDERR_FILENO, why.bytes, why.length) < 0 ? 2 : 1;
}
