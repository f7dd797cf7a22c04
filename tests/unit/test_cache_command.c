/* `trvmm cache ls|prune`, and the lists and locks below it. */
#include "test_layers_cache_util.h"

#include <jansson.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <time.h>

#include "vmm/cli/cli.h"

static void begin(void)
{
	set_up();
	setenv("XDG_CACHE_HOME", root, 1);
	snprintf(cache, sizeof(cache), "%s/trvmm", root);
}

TestSuite(cache_command, .init = begin, .fini = tear_down);

/* Runs the command with stdout and stderr caught in `out`. */
static int command(char *out, size_t size, ...)
{
	char *argv[8] = { (char[]){ "cache" } };
	int argc = 1;
	va_list args;
	va_start(args, size);
	while ((argv[argc] = va_arg(args, char *)))
		argc++;
	va_end(args);
	const int caught = memfd_create("out", MFD_CLOEXEC), saved_out = dup(STDOUT_FILENO), saved_err = dup(STDERR_FILENO);
	fflush(stdout);
	dup2(caught, STDOUT_FILENO);
	dup2(caught, STDERR_FILENO);
	const int ret = cli_cache(argc, argv);
	fflush(stdout);
	dup2(saved_out, STDOUT_FILENO);
	dup2(saved_err, STDERR_FILENO);
	const ssize_t n = pread(caught, out, size - 1, 0);
	out[n > 0 ? n : 0] = '\0';
	close(caught);
	close(saved_out);
	close(saved_err);
	return ret;
}

static char output[16384];
#define COMMAND(...) command(output, sizeof(output), __VA_ARGS__, NULL)
#define HOLDS(words) cr_assert(strstr(output, words), "'%s' does not contain '%s'", output, words)

static void make_old(const char *kind, int days)
{
	char path[200];
	cr_assert_eq(count_files(kind, path, sizeof(path)), 1);
	struct stat st;
	cr_assert_eq(stat(path, &st), 0);
	const struct timespec times[2] = { { time(NULL) - days * 86400 - 60, 0 }, st.st_mtim };
	cr_assert_eq(utimensat(AT_FDCWD, path, times, 0), 0);
}

static struct tree *load_sample(void)
{
	const char *path = write_sample_gz("hello");
	settle();
	return load(path);
}

Test(cache_command, lists_what_is_there)
{
	cr_assert_eq(COMMAND("ls"), 0);
	HOLDS("0 B in 0 files in ");
	cr_assert_eq(COMMAND("ls", "--json"), 0);
	cr_assert_str_eq(output, "[]\n");
	struct tree *tree = load_sample();
	cr_assert_eq(COMMAND("ls"), 0);
	HOLDS("KIND         SIZE  LAST USE          NAME\n");
	HOLDS("\nlayers    ");
	HOLDS("(in use)\n");
	HOLDS("\ntrees ");
	HOLDS("\ndigests ");
	HOLDS(" in 3 files in ");
	cr_assert_eq(COMMAND("ls", "--json"), 0);
	json_t *list = json_loads(output, 0, NULL), *layer = json_array_get(list, 0);
	cr_assert_eq(json_array_size(list), 3);
	cr_assert_str_eq(json_string_value(json_object_get(layer, "kind")), "layers");
	cr_assert_eq(strlen(json_string_value(json_object_get(layer, "name"))), 64);
	cr_assert_geq(json_integer_value(json_object_get(layer, "bytes")), 300000);
	cr_assert_leq(time(NULL) - json_integer_value(json_object_get(layer, "last_use")), 60);
	cr_assert(json_is_true(json_object_get(layer, "in_use")));
	json_decref(list);
	tree_destroy(tree);
	cr_assert_eq(COMMAND("ls"), 0);
	cr_assert_not(strstr(output, "in use"), "%s", output);
}

Test(cache_command, prune_keeps_what_a_run_reads)
{
	struct tree *tree = load_sample();
	cr_assert_eq(COMMAND("prune", "--all"), 0);
	HOLDS("removed 2 files, ");
	HOLDS("; kept 1 in use\n");
	cr_assert_eq(count_files("layers", NULL, 0), 1);
	assert_text(tree, "f", "hello");
	tree_destroy(tree);
	cr_assert_eq(COMMAND("prune", "--all"), 0);
	HOLDS("removed 1 files, ");
	cr_assert_eq(count_files("layers", NULL, 0), 0);
	cr_assert_eq(COMMAND("prune", "--all"), 0);
	HOLDS("removed 0 files, 0 B\n");
}

Test(cache_command, prune_goes_by_the_last_use)
{
	tree_destroy(load_sample());
	cr_assert_eq(COMMAND("prune"), 0);
	HOLDS("removed 0 files");
	make_old("layers", 8);
	make_old("trees", 31);
	cr_assert_eq(COMMAND("prune", "--older-than", "9"), 0);
	HOLDS("removed 1 files");
	cr_assert_eq(count_files("layers", NULL, 0), 1);
	cr_assert_eq(COMMAND("prune", "--older-than=8"), 0);
	HOLDS("removed 1 files");
	cr_assert_eq(count_files("layers", NULL, 0), 0);
	cr_assert_eq(count_files("digests", NULL, 0), 1);
	make_old("digests", 31);
	cr_assert_eq(COMMAND("prune"), 0);
	HOLDS("removed 1 files");
}

/* What is being made is locked, and so is a temporary file where the file system knows no files without names. */
Test(cache_command, prune_keeps_what_is_being_made)
{
	struct cache opened;
	tree_destroy(load_sample());
	char path[200], temporary[210];
	cr_assert_eq(count_files("layers", path, sizeof(path)), 1);
	snprintf(temporary, sizeof(temporary), "%s.tmp", path);
	write_file(temporary, "half", 4);
	uint8_t digest[DIGEST_BYTES];
	for (unsigned i = 0; i < DIGEST_BYTES; i++) {
		unsigned byte;
		cr_assert_eq(sscanf(strrchr(path, '/') + 1 + 2 * i, "%2x", &byte), 1);
		digest[i] = (uint8_t)byte;
	}
	cr_assert_eq(cache_open(&opened, cache, NULL), 0);
	const int lock = cache_lock(&opened, layer_lock_key(digest));
	cr_assert(lock >= 0);
	cr_assert_eq(COMMAND("prune", "--all"), 0);
	HOLDS("; kept 2 in use\n");
	close(lock);
	cr_assert_eq(COMMAND("prune", "--all"), 0);
	HOLDS("removed 2 files");
	cache_close(&opened);
}

/* Runs start beside one prune after the other; none of them may notice. */
Test(cache_command, prune_beside_runs)
{
	const char *path = write_sample_gz("hello");
	settle();
	const pid_t pruner = fork();
	if (pruner == 0) {
		for (;;)
			COMMAND("prune", "--all");
	}
	for (unsigned i = 0; i < 150; i++) {
		struct error err = { "" };
		struct tree *tree = NULL;
		const int ret = layers_load(&path, 1, NULL, 0, cache, &tree, &err);
		if (!ret)
			assert_text(tree, "f", "hello");
		tree_destroy(tree);
		if (ret)
			kill(pruner, SIGKILL);
		cr_assert_eq(ret, 0, "%s", err.text);
	}
	kill(pruner, SIGKILL);
	waitpid(pruner, NULL, 0);
}

Test(cache_command, refuses_bad_arguments)
{
	cr_assert_eq(COMMAND("frobnicate"), EXIT_TRVMM);
	HOLDS("trvmm: cache takes ls [--json], or prune [--all] [--older-than DAYS]\n");
	cr_assert_eq(command(output, sizeof(output), NULL), EXIT_TRVMM);
	cr_assert_eq(COMMAND("ls", "--yaml"), EXIT_TRVMM);
	HOLDS("trvmm: cache ls takes --json and nothing else\n");
	cr_assert_eq(COMMAND("prune", "all"), EXIT_TRVMM);
	HOLDS("not 'all'\n");
	cr_assert_eq(COMMAND("prune", "--older-than"), EXIT_TRVMM);
	HOLDS("--older-than: give a number of days\n");
	static const char *const bad[] = { "", "x", "-1", "3d", "99999999999999999999" };
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		cr_assert_eq(COMMAND("prune", "--older-than", bad[i]), EXIT_TRVMM, "%s", bad[i]);
		HOLDS("give a number of days\n");
	}
	unsetenv("XDG_CACHE_HOME");
	unsetenv("HOME");
	cr_assert_eq(COMMAND("ls"), EXIT_TRVMM);
	HOLDS("no place for the cache");
}
