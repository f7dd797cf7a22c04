/* The bar: on terminals only, not before a second, and gone at the end. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <pty.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "layers/progress_internal.h"

static int terminal; /* its other end */

static void begin_terminal(void)
{
	int slave;
	cr_assert_eq(openpty(&terminal, &slave, NULL, NULL, NULL), 0);
	cr_assert(dup2(slave, STDERR_FILENO) >= 0);
	close(slave);
	fcntl(terminal, F_SETFL, O_NONBLOCK);
	setenv("TERM", "xterm", 1);
}

static const char *drawn(void)
{
	static char text[4096];
	const ssize_t n = read(terminal, text, sizeof(text) - 1);
	text[n > 0 ? n : 0] = '\0';
	return text;
}

Test(progress, nothing_in_the_first_second)
{
	struct progress progress;
	begin_terminal();
	cr_assert(progress_begin(&progress, 1000));
	for (unsigned i = 0; i < 1000; i++)
		progress_add(&progress, 1);
	progress_end(&progress);
	cr_assert_str_eq(drawn(), "");
}

Test(progress, is_drawn_and_erased)
{
	struct progress progress;
	begin_terminal();
	cr_assert(progress_begin(&progress, 200000000));
	usleep(1050000);
	progress_add(&progress, 100000000);
	const char *text = drawn();
	cr_assert(strstr(text, "[###############...............] 100 of 200 MB"), "%s", text);
	progress_add(&progress, 1);
	cr_assert_str_eq(drawn(), "", "drawn again at once");
	usleep(150000);
	progress_add(&progress, 300000000);
	text = drawn();
	cr_assert(strstr(text, "[##############################] 200 of 200 MB"), "%s", text);
	cr_assert_not(strchr(text, '\n'));
	progress_end(&progress);
	cr_assert_str_eq(drawn(), "\r\033[K");
}

Test(progress, not_without_a_terminal)
{
	struct progress progress;
	begin_terminal();
	setenv("TERM", "dumb", 1);
	cr_assert_not(progress_begin(&progress, 1));
	unsetenv("TERM");
	cr_assert_not(progress_begin(&progress, 1));
	setenv("TERM", "xterm", 1);
	cr_assert(dup2(open("/dev/null", O_WRONLY), STDERR_FILENO) >= 0);
	cr_assert_not(progress_begin(&progress, 1));
	progress_add(NULL, 1);
	progress_end(NULL);
}
