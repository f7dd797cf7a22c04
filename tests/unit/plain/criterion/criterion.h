/*
 * What the unit tests here use of Criterion, without it: for builds that Criterion cannot run in. Its process isolation maps
 * memory at fixed addresses, which the thread sanitizer refuses ("Could not initialize inheritable arena"); and it does not look
 * at how a test's process ends, so that leaks, found at exit, and failures in a .fini function count for nothing.
 *
 * With -Itests/unit/plain this file takes the place of Criterion's header. Each test runs in a child process; the output
 * ends with a line in Criterion's form. Needs one source file for each program.
 */
#ifndef TRVMM_TESTS_PLAIN_CRITERION_H
#define TRVMM_TESTS_PLAIN_CRITERION_H

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define PLAIN_FAILED 1
#define PLAIN_SKIPPED 77
#define PLAIN_TIMEOUT_S 120

struct criterion_test_extra_data {
	void (*init)(void);
	void (*fini)(void);
	double timeout;
};

struct plain_suite {
	const char *name;
	const struct criterion_test_extra_data *extra;
	struct plain_suite *next;
};

struct plain_test {
	const char *suite, *name;
	void (*run)(void);
	const struct criterion_test_extra_data *extra;
	struct plain_test *next;
};

static struct plain_suite *plain_suites;
static struct plain_test *plain_tests, **plain_tests_end = &plain_tests;
static bool plain_expectation_failed;

#define TestSuite(SUITE, ...) \
	static const struct criterion_test_extra_data SUITE##_suite_extra = { __VA_ARGS__ }; \
	__attribute__((constructor)) static void SUITE##_suite_register(void) \
	{ \
		static struct plain_suite suite = { .name = #SUITE, .extra = &SUITE##_suite_extra }; \
		suite.next = plain_suites; \
		plain_suites = &suite; \
	} \
	struct plain_suite

#define Test(SUITE, NAME, ...) \
	static void SUITE##_##NAME##_impl(void); \
	static const struct criterion_test_extra_data SUITE##_##NAME##_extra = { __VA_ARGS__ }; \
	__attribute__((constructor)) static void SUITE##_##NAME##_register(void) \
	{ \
		static struct plain_test test = { \
			.suite = #SUITE, .name = #NAME, .run = SUITE##_##NAME##_impl, .extra = &SUITE##_##NAME##_extra \
		}; \
		*plain_tests_end = &test; \
		plain_tests_end = &test.next; \
	} \
	static void SUITE##_##NAME##_impl(void)

/* The text of a failure, with whatever message the test has for it. */
#define plain_say(WHAT, ...) \
	do { \
		fprintf(stderr, "%s:%d: %s", __FILE__, __LINE__, WHAT); \
		fprintf(stderr, " " __VA_ARGS__); \
		fputc('\n', stderr); \
	} while (0)

#define cr_assert(CONDITION, ...) \
	do { \
		if (!(CONDITION)) { \
			plain_say("failed: " #CONDITION, __VA_ARGS__); \
			_exit(PLAIN_FAILED); \
		} \
	} while (0)
#define cr_expect(CONDITION, ...) \
	do { \
		if (!(CONDITION)) { \
			plain_say("failed: " #CONDITION, __VA_ARGS__); \
			plain_expectation_failed = true; \
		} \
	} while (0)
#define cr_skip(...) \
	do { \
		plain_say("skipped:", __VA_ARGS__); \
		_exit(PLAIN_SKIPPED); \
	} while (0)
#define cr_skip_test cr_skip
#define cr_assert_fail(...) cr_assert(false, __VA_ARGS__)
#define cr_assert_not(A, ...) cr_assert(!(A), __VA_ARGS__)
#define cr_assert_eq(A, B, ...) cr_assert((A) == (B), __VA_ARGS__)
#define cr_assert_neq(A, B, ...) cr_assert((A) != (B), __VA_ARGS__)
#define cr_assert_lt(A, B, ...) cr_assert((A) < (B), __VA_ARGS__)
#define cr_assert_leq(A, B, ...) cr_assert((A) <= (B), __VA_ARGS__)
#define cr_assert_gt(A, B, ...) cr_assert((A) > (B), __VA_ARGS__)
#define cr_assert_geq(A, B, ...) cr_assert((A) >= (B), __VA_ARGS__)
#define cr_assert_null(A, ...) cr_assert((A) == NULL, __VA_ARGS__)
#define cr_assert_not_null(A, ...) cr_assert((A) != NULL, __VA_ARGS__)
#define cr_assert_str_eq(A, B, ...) cr_assert(strcmp((A), (B)) == 0, __VA_ARGS__)
#define cr_expect_not(A, ...) cr_expect(!(A), __VA_ARGS__)
#define cr_expect_eq(A, B, ...) cr_expect((A) == (B), __VA_ARGS__)
#define cr_expect_neq(A, B, ...) cr_expect((A) != (B), __VA_ARGS__)
#define cr_expect_null(A, ...) cr_expect((A) == NULL, __VA_ARGS__)
#define cr_expect_not_null(A, ...) cr_expect((A) != NULL, __VA_ARGS__)
#define cr_expect_str_neq(A, B, ...) cr_expect(strcmp((A), (B)) != 0, __VA_ARGS__)
#define cr_assert_str_neq(A, B, ...) cr_assert(strcmp((A), (B)) != 0, __VA_ARGS__)
#define cr_expect_str_eq(A, B, ...) cr_expect(strcmp((A), (B)) == 0, __VA_ARGS__)

static inline const struct criterion_test_extra_data *plain_suite_of(const struct plain_test *test)
{
	static const struct criterion_test_extra_data none;
	for (const struct plain_suite *suite = plain_suites; suite; suite = suite->next)
		if (!strcmp(suite->name, test->suite))
			return suite->extra;
	return &none;
}

static inline void plain_run(const struct plain_test *test)
{
	const struct criterion_test_extra_data *suite = plain_suite_of(test);
	const double timeout = test->extra->timeout > 0 ? test->extra->timeout : suite->timeout;
	void (*init)(void) = test->extra->init ? test->extra->init : suite->init;
	void (*fini)(void) = test->extra->fini ? test->extra->fini : suite->fini;

	alarm(timeout > 0 ? (unsigned)timeout + 1 : PLAIN_TIMEOUT_S);
	if (init)
		init();
	test->run();
	if (fini)
		fini();
	/* exit(): that is where a sanitizer has its last word. */
	exit(plain_expectation_failed ? PLAIN_FAILED : 0);
}

int main(int argc, char **argv)
{
	unsigned passed = 0, failed = 0, crashed = 0, skipped = 0;
	FILE *tap = NULL;

	/* Of Criterion's options: where the report goes. */
	for (int i = 1; i < argc; i++)
		if (!strncmp(argv[i], "--tap=", 6))
			tap = fopen(argv[i] + 6, "we");
	for (const struct plain_test *test = plain_tests; test; test = test->next) {
		int status = 0;
		fflush(NULL);
		const pid_t child = fork();
		if (child == 0)
			plain_run(test);
		if (child < 0 || waitpid(child, &status, 0) < 0) {
			perror("fork");
			return 1;
		}
		const bool ended = WIFEXITED(status), ok = ended && WEXITSTATUS(status) == 0;
		const bool skip = ended && WEXITSTATUS(status) == PLAIN_SKIPPED;
		passed += ok;
		skipped += skip;
		failed += ended && !ok && !skip;
		crashed += !ended;
		if (tap)
			fprintf(tap, "%s - %s::%s %s\n", ok || skip ? "ok" : "not ok", test->suite, test->name,
				skip ? "# SKIP see the log" : "");
		if (!ok)
			fprintf(stderr, "[%s] %s::%s\n", skip ? "SKIP" : "FAIL", test->suite, test->name);
	}
	fprintf(stderr, "[====] Synthesis: Tested: %u | Passing: %u | Failing: %u | Crashing: %u \n", passed + failed + crashed,
		passed, failed + crashed, crashed);
	if (tap)
		fclose(tap);
	return failed + crashed > 0;
}

#endif
