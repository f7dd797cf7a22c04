/* vmm/options: each option, what it refuses, and that the message names it. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "guest/agent/protocol.h"
#include "vmm/host.h"
#include "vmm/options.h"
#include "vmm/session.h"
#include "vmm/share.h"

static struct options options;
static struct error err;

static void clean_up(void)
{
	options_destroy(&options);
}

TestSuite(options, .fini = clean_up);

/* Parses "trvmm" and the words given, up to NULL. The words live as long as the test. */
static int parse_words(const char *const *words)
{
	static char *argv[64];
	int argc = 0;
	options_destroy(&options);
	for (int i = 0; i < 64; i++) {
		free(argv[i]);
		argv[i] = NULL;
	}
	argv[argc++] = strdup("trvmm");
	for (; *words; words++)
		argv[argc++] = strdup(*words);
	err.text[0] = '\0';
	const int result = options_parse(argc, argv, &options, &err);
	cr_assert(result == 0 || result == -EINVAL);
	cr_assert((result == 0) == (err.text[0] == '\0'), "%d '%s'", result, err.text);
	return result;
}
#define PARSE(...) parse_words((const char *const[]){ __VA_ARGS__, NULL })
#define GOOD(...) cr_assert_eq(PARSE(__VA_ARGS__), 0, "%s", err.text)

/* Refused, and the message has all of the words in it. */
#define BAD(WORD, ...)                                                                                                             \
	do {                                                                                                                       \
		cr_assert_eq(PARSE(__VA_ARGS__), -EINVAL);                                                                         \
		cr_assert(strstr(err.text, WORD), "'%s' is not in: %s", WORD, err.text);                                           \
	} while (0)

static const char *env_value(const char *name)
{
	const size_t length = strlen(name);
	const char *found = NULL;
	for (size_t i = 0; i < options.env_count; i++) {
		if (strncmp(options.env[i], name, length) || options.env[i][length] != '=')
			continue;
		cr_assert_null(found, "%s is there twice", name);
		found = options.env[i] + length + 1;
	}
	cr_assert_null(options.env[options.env_count]);
	return found;
}

/* ---- sizes ------------------------------------------------------------------------------------------------------------------ */

Test(options_size, numbers_and_suffixes)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {
		{ "0", 0 },
		{ "1", 1 },
		{ "4096", 4096 },
		{ "1K", 1 << 10 },
		{ "1k", 1 << 10 },
		{ "256M", 256 << 20 },
		{ "256m", 256 << 20 },
		{ "2G", 2ull << 30 },
		{ "2g", 2ull << 30 },
		{ "3T", 3ull << 40 },
		{ "1KiB", 1 << 10 },
		{ "1MiB", 1 << 20 },
		{ "1MB", 1 << 20 },
		{ "1Gb", 1 << 30 },
		{ "007K", 7 << 10 },
		{ "18446744073709551615", UINT64_MAX },
		{ "16777215T", 16777215ull << 40 },
	};
	for (unsigned i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		uint64_t bytes = 99;
		cr_assert_eq(options_parse_size(good[i].text, &bytes), 0, "%s", good[i].text);
		cr_assert_eq(bytes, good[i].bytes, "%s", good[i].text);
	}
}

Test(options_size, everything_else_is_refused)
{
	static const char *const bad[] = { "",
					   " ",
					   "M",
					   "-1",
					   "+1",
					   " 1",
					   "1 ",
					   "1 M",
					   "x",
					   "0x10",
					   "1.5G",
					   "1P",
					   "1E",
					   "1MM",
					   "1Ki",
					   "1iB",
					   "1KiBs",
					   "1Kib ",
					   "1e3",
					   "18446744073709551616",
					   "99999999999999999999999",
					   "16777216T",
					   "17179869184G",
					   "18014398509481984K",
					   "1,000",
					   "256MB\n" };
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		uint64_t bytes = 99;
		cr_assert_eq(options_parse_size(bad[i], &bytes), -EINVAL, "'%s'", bad[i]);
		cr_assert_eq(bytes, 99);
	}
}

/* ---- the command ------------------------------------------------------------------------------------------------------------ */

Test(options, defaults)
{
	GOOD("true");
	cr_assert(!options.kernel && !options.workdir && !options.user && !options.hostname && !options.append);
	cr_assert(options.layer_count == 0 && options.disk_bytes == 0 && options.timeout_s == 0);
	cr_assert(options.memory_bytes == 256ull << 20 && options.cpus == 1 && options.boot_timeout_s == 60);
	cr_assert(options.boot == BOOT_CHOICE_AUTO && !options.terminal && !options.console && !options.no_kvm_check);
	cr_assert(!options.help && !options.version);
	cr_assert(env_value("PATH") && options.env_count == 1);
	cr_assert(!strcmp(options.command[0], "true") && !options.command[1]);
}

Test(options, command_keeps_its_own_options)
{
	GOOD("--cpus", "2", "ls", "--cpus", "x", "-l", "--", "--help");
	cr_assert_eq(options.cpus, 2);
	cr_assert(!options.help);
	static const char *const words[] = { "ls", "--cpus", "x", "-l", "--", "--help" };
	for (unsigned i = 0; i < 6; i++)
		cr_assert_str_eq(options.command[i], words[i]);
	cr_assert_null(options.command[6]);
}

Test(options, command_behind_two_dashes)
{
	GOOD("--", "--cpus", "-x");
	cr_assert(!strcmp(options.command[0], "--cpus") && !strcmp(options.command[1], "-x") && !options.command[2]);
	GOOD("-", "x");
	cr_assert_str_eq(options.command[0], "-");
}

Test(options, no_command)
{
	static const char *const none[] = { NULL };
	cr_assert_eq(parse_words(none), -EINVAL);
	cr_assert(strstr(err.text, "no command"));
	BAD("no command", "--cpus", "2");
	BAD("no command", "--");
	BAD("command is empty", "");
	BAD("command is empty", "--", "");
}

Test(options, init_may_have_a_path)
{
	GOOD("--init", "command");
	cr_expect_str_eq(options.init, "/sbin/init");
	cr_expect_str_eq(options.command[0], "command");
	GOOD("--init=/lib/systemd/systemd", "command");
	cr_expect_str_eq(options.init, "/lib/systemd/systemd");
	GOOD("command");
	cr_expect_null(options.init);
	BAD("--init='init'", "--init=init", "command");
}

Test(options, limit_of_processes)
{
	GOOD("--pids-limit", "7", "command");
	cr_expect_eq(options.pids_max, 7u);
	GOOD("--pids", "7", "command");
	cr_expect_eq(options.pids_max, 7u);
	BAD("--pids-limit '0'", "--pids-limit", "0", "command");
	BAD("--pids-limit '-1'", "--pids-limit", "-1", "command");
}

Test(options, help_and_version_need_no_command)
{
	GOOD("--help");
	cr_assert(options.help);
	GOOD("-h");
	cr_assert(options.help);
	GOOD("--version");
	cr_assert(options.version);
	BAD("--cpus", "--cpus", "0", "--help");
}

/* ---- values ----------------------------------------------------------------------------------------------------------------- */

Test(options, plain_values)
{
	GOOD("--kernel", "bz", "--workdir=/w", "--user", "a:b", "--hostname", "h", "--append", "quiet x=y", "sh");
	cr_assert_str_eq(options.kernel, "bz");
	cr_assert_str_eq(options.workdir, "/w");
	cr_assert_str_eq(options.user, "a:b");
	cr_assert_str_eq(options.hostname, "h");
	cr_assert_str_eq(options.append, "quiet x=y");
	GOOD("-w", "/x", "-u1000", "sh");
	cr_assert_str_eq(options.workdir, "/x");
	cr_assert_str_eq(options.user, "1000");
	GOOD("--timeline", "file", "sh");
	cr_assert_str_eq(options.timeline, "file");
}

Test(options, flags)
{
	GOOD("-it", "--console", "--no-kvm-check", "sh");
	cr_assert(options.terminal && options.console && options.no_kvm_check);
	GOOD("--interactive", "--tty", "sh");
	cr_assert(options.terminal && !options.console);
	GOOD("-i", "sh");
	cr_assert(!options.terminal);
}

Test(options, names_and_detaching)
{
	GOOD("-p", "8080:80", "--publish", "0.0.0.0:1:65535", "--vsock", "/tmp/v", "true");
	cr_expect_eq(options.port_count, 2);
	cr_expect_eq(options.ports[0].guest_port, 80);
	cr_assert_str_eq(options.ports[1].address.text, "0.0.0.0:1");
	cr_assert_str_eq(options.vsock, "/tmp/v");
	BAD("--publish: '8080'", "-p", "8080", "true");
	BAD("--vsock", "--vsock", "", "true");
	GOOD("--name", "box-1", "-d", "--rm", "true");
	cr_expect_str_eq(options.name, "box-1");
	cr_expect(options.detach && options.remove);
	BAD("'../x'", "--name", "../x", "true");
	BAD("''", "--name", "", "true");
	BAD("--tty", "-d", "-t", "true");
}

Test(options, last_value_counts)
{
	GOOD("--cpus", "2", "--cpus", "3", "--memory", "64M", "--memory", "128M", "--kernel", "a", "--kernel", "b", "sh");
	cr_assert(options.cpus == 3 && options.memory_bytes == 128 << 20 && !strcmp(options.kernel, "b"));
}

Test(options, long_names_may_be_shortened)
{
	GOOD("--kern", "x", "--mem=64M", "--host", "h", "--boot", "pvh", "sh");
	cr_assert(!strcmp(options.kernel, "x") && options.memory_bytes == 64 << 20 && options.boot == BOOT_CHOICE_PVH);
}

Test(options, memory_limits)
{
	GOOD("--memory", "32M", "sh");
	cr_assert_eq(options.memory_bytes, 32 << 20);
	GOOD("--memory", "33554432", "sh");
	cr_assert_eq(options.memory_bytes, 32 << 20);
	/* Whole MiB. */
	GOOD("--memory", "67108863", "sh");
	cr_assert_eq(options.memory_bytes, 63 << 20);
	BAD("--memory '33554431'", "--memory", "33554431", "sh");
	BAD("at least 32M", "--memory", "1", "sh");
	BAD("at least 32M", "--memory", "0", "sh");
	BAD("--memory 'lots'", "--memory", "lots", "sh");
	BAD("such as 256M", "--memory", "", "sh");
	BAD("--memory '-1'", "--memory", "-1", "sh");
	BAD("--memory", "--memory", "99999999999999999999", "sh");
}

Test(options, memory_over_that_of_the_host)
{
	const uint64_t total = host_memory_total();
	char most[32], more[32];
	cr_assert(total > 0);
	snprintf(most, sizeof(most), "%llu", (unsigned long long)total);
	snprintf(more, sizeof(more), "%llu", (unsigned long long)total + 1);
	GOOD("--memory", most, "sh");
	BAD("this host has", "--memory", more, "sh");
	BAD("this host has", "--memory", "16777215T", "sh");
}

Test(options, cpus_from_1_to_8)
{
	for (unsigned cpus = 1; cpus <= 8; cpus++) {
		const char text[] = { (char)('0' + cpus), '\0' };
		GOOD("--cpus", text, "sh");
		cr_assert_eq(options.cpus, cpus);
	}
	static const char *const bad[] = {
		"0", "9", "-1", "+1", "1.5", "two", "", " 1", "1 ", "4294967297", "18446744073709551617", "0x1"
	};
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		BAD("--cpus '", "--cpus", bad[i], "sh");
	BAD("from 1 to 8", "--cpus", "9", "sh");
}

Test(options, disk_size_limits)
{
	GOOD("--disk-size", "1M", "sh");
	cr_assert_eq(options.disk_bytes, 1 << 20);
	GOOD("--disk-size", "16T", "sh");
	cr_assert_eq(options.disk_bytes, 16ull << 40);
	BAD("--disk-size '1048575'", "--disk-size", "1048575", "sh");
	BAD("--disk-size '17T'", "--disk-size", "17T", "sh");
	BAD("--disk-size 'big'", "--disk-size", "big", "sh");
	BAD("--disk-size ''", "--disk-size", "", "sh");
}

Test(options, timeouts)
{
	GOOD("--timeout", "1", "--boot-timeout", "1000000", "sh");
	cr_assert(options.timeout_s == 1 && options.boot_timeout_s == 1000000);
	static const char *const bad[] = { "0", "1000001", "-5", "1s", "", "1.5" };
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		BAD("--timeout '", "--timeout", bad[i], "sh");
		BAD("--boot-timeout '", "--boot-timeout", bad[i], "sh");
	}
}

Test(options, boot_protocols)
{
	GOOD("--boot", "linux64", "sh");
	cr_assert_eq(options.boot, BOOT_CHOICE_LINUX64);
	GOOD("--boot", "pvh", "sh");
	cr_assert_eq(options.boot, BOOT_CHOICE_PVH);
	BAD("--boot 'PVH'", "--boot", "PVH", "sh");
	BAD("linux64 or pvh", "--boot", "", "sh");
}

Test(options, hostname_of_1_to_64_bytes)
{
	char name[66];
	memset(name, 'h', sizeof(name));
	name[64] = '\0';
	GOOD("--hostname", name, "sh");
	name[64] = 'h';
	name[65] = '\0';
	BAD("--hostname 'hhh", "--hostname", name, "sh");
	BAD("--hostname ''", "--hostname", "", "sh");
}

/* ---- lists ------------------------------------------------------------------------------------------------------------------ */

static void expect_layers(const char *const *want)
{
	size_t count = 0;
	for (; want[count]; count++) {
		cr_assert(count < options.layer_count, "layer '%s' is missing", want[count]);
		cr_assert_str_eq(options.layers[count], want[count]);
	}
	cr_assert_eq(options.layer_count, count);
	cr_assert_null(options.layers[count]);
}
#define LAYERS(...) expect_layers((const char *const[]){ __VA_ARGS__, NULL })

Test(options, layers_are_separated_by_commas_and_repeatable)
{
	GOOD("--layers", "a.tar", "sh");
	LAYERS("a.tar");
	GOOD("--layers", "a,b", "--layers=c", "--layers", "d,e,f", "sh");
	LAYERS("a", "b", "c", "d", "e", "f");
}

Test(options, added_files)
{
	GOOD("--add", "a/b:/c", "--add=./d:x:/e/", "sh");
	cr_assert_eq(options.added_count, 2);
	cr_assert_str_eq(options.added[0].host, "a/b");
	cr_assert_str_eq(options.added[0].guest, "/c");
	cr_assert_str_eq(options.added[1].host, "./d:x");
	cr_assert_str_eq(options.added[1].guest, "/e/");
	BAD("--add 'x': give HOST:GUEST", "--add", "x", "sh");
	BAD("--add 'x:y': the path in the guest must begin with a slash", "--add", "x:y", "sh");
	BAD("--add ':/y': the path here is empty", "--add", ":/y", "sh");
	BAD("--add 'x:/y/../z': the path in the guest must not contain '..'", "--add", "x:/y/../z", "sh");
}

Test(options, max_layer_size)
{
	GOOD("--max-layer-size", "3G", "sh");
	cr_assert_eq(options.max_layer_bytes, (uint64_t)3 << 30);
	BAD("--max-layer-size 'lots': give a size such as 20G", "--max-layer-size", "lots", "sh");
	BAD("--max-layer-size '0': give a size such as 20G", "--max-layer-size", "0", "sh");
}

Test(options, layers_with_a_comma_in_their_name)
{
	GOOD("--layers", "a\\,b,c", "sh");
	LAYERS("a,b", "c");
	GOOD("--layers", "a\\\\,b", "sh");
	LAYERS("a\\", "b");
	GOOD("--layers", "a\\b\\", "sh");
	LAYERS("a\\b\\");
	GOOD("--layers", "\\,", "sh");
	LAYERS(",");
	GOOD("--layers", "\\\\\\,x", "sh");
	LAYERS("\\,x");
}

Test(options, layers_without_a_name)
{
	static const char *const bad[] = { "", ",", "a,", ",a", "a,,b", "a,b," };
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		BAD("--layers '", "--layers", bad[i], "sh");
}

Test(options, many_layers)
{
	char text[4000] = "";
	for (unsigned i = 0; i < 500; i++)
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "%sl%u", i ? "," : "", i);
	GOOD("--layers", text, "sh");
	cr_assert_eq(options.layer_count, 500);
	cr_assert_str_eq(options.layers[499], "l499");
}

Test(options, env_sets_and_replaces)
{
	GOOD("-e", "A=1", "--env", "B=x=y", "--env=C=", "-eD=4", "sh");
	cr_assert_str_eq(env_value("A"), "1");
	cr_assert_str_eq(env_value("B"), "x=y");
	cr_assert_str_eq(env_value("C"), "");
	cr_assert_str_eq(env_value("D"), "4");
	cr_assert_eq(options.env_count, 5);
	GOOD("-e", "A=1", "-e", "B=2", "-e", "A=3", "-e", "PATH=/mine", "sh");
	cr_assert_str_eq(env_value("A"), "3");
	cr_assert_str_eq(env_value("PATH"), "/mine");
	cr_assert_eq(options.env_count, 3);
	cr_assert_str_eq(options.env[0], "PATH=/mine");
}

Test(options, env_names_that_begin_alike_are_different)
{
	GOOD("-e", "AB=1", "-e", "A=2", "-e", "ABC=3", "-e", "A=4", "sh");
	cr_assert_str_eq(env_value("AB"), "1");
	cr_assert_str_eq(env_value("A"), "4");
	cr_assert_str_eq(env_value("ABC"), "3");
}

Test(options, env_without_a_value_takes_the_callers)
{
	setenv("TRVMM_TEST_HERE", "from=here", 1);
	unsetenv("TRVMM_TEST_AWAY");
	GOOD("-e", "TRVMM_TEST_HERE", "-e", "TRVMM_TEST_AWAY", "sh");
	cr_assert_str_eq(env_value("TRVMM_TEST_HERE"), "from=here");
	cr_assert_null(env_value("TRVMM_TEST_AWAY"));
	GOOD("-e", "TRVMM_TEST_HERE=mine", "-e", "TRVMM_TEST_HERE", "sh");
	cr_assert_str_eq(env_value("TRVMM_TEST_HERE"), "from=here");
}

Test(options, env_without_a_name)
{
	BAD("--env '=x'", "-e", "=x", "sh");
	BAD("--env ''", "--env", "", "sh");
	BAD("--env '='", "--env", "=", "sh");
}

/* ---- what the agent does for the command --------------------------------------------------------------------------------------- */

Test(options, ulimits)
{
	GOOD("--ulimit", "nofile=10:20", "--ulimit", "core=0", "--ulimit", "memlock=-1", "--ulimit", "stack=5:unlimited", "--ulimit",
	     "nofile=30", "sh");
	static const struct session_limit wanted[] = { { RLIMIT_NOFILE, 30, 30 },
						       { RLIMIT_CORE, 0, 0 },
						       { RLIMIT_MEMLOCK, UINT64_MAX, UINT64_MAX },
						       { RLIMIT_STACK, 5, UINT64_MAX } };
	cr_assert_eq(options.limit_count, 4);
	for (size_t i = 0; i < 4; i++)
		cr_expect(options.limits[i].resource == wanted[i].resource && options.limits[i].soft == wanted[i].soft &&
				  options.limits[i].hard == wanted[i].hard,
			  "%zu", i);
}

Test(options, ulimits_that_are_none)
{
	static const char *const bad[] = {
		"", "nofile", "nofile=", "nofile=x", "nofile=1:", "nofile=:1", "nofile=-2", "nofile=1:x",
		"nofile=+1", "nofile= 1", "nofile=1:2:3", "NOFILE=1", "nofil=1", "nofiles=1", "as=1", "=1",
		"nofile=99999999999999999999",
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		BAD("--ulimit '", "--ulimit", bad[i], "sh");
	BAD("soft limit is above", "--ulimit", "nofile=2:1", "sh");
	BAD("soft limit is above", "--ulimit", "nofile=-1:1", "sh");
}

Test(options, shares)
{
	GOOD("-v", "/h/deep:/x/y", "--volume", "/h:/x:ro", "sh");
	cr_assert_eq(options.share_count, 2);
	cr_expect_str_eq(options.shares[0].guest, "/x");
	cr_expect(options.shares[0].read_only);
	cr_expect_str_eq(options.shares[1].host, "/h/deep");
	BAD("/x/y", "-v", "/a:/x/y", "-v", "/b:/x/y", "sh");
	BAD("-v '/a'", "-v", "/a", "sh");
	const char *words[AGENT_SHARES_MAX + 2] = { NULL };
	char texts[AGENT_SHARES_MAX + 1][16];
	for (size_t i = 0; i <= AGENT_SHARES_MAX; i++) {
		snprintf(texts[i], sizeof(texts[i]), "-v/a:/b%zu", i);
		words[i] = texts[i];
	}
	cr_assert_eq(parse_words(words), -EINVAL);
	cr_assert(strstr(err.text, "more than 32"));
}

Test(options, root_is_a_directory)
{
	GOOD("--root", "/some/where/", "--read-only", "--tmpfs", "/a", "sh");
	cr_assert_str_eq(options.root, "/some/where");
	GOOD("--root", "relative", "--root", "/last", "sh");
	cr_assert_str_eq(options.root, "/last");
	BAD("give a directory", "--root", "", "sh");
	BAD("--layers", "--root", "/r", "--layers", "a.tar", "sh");
	BAD("--add", "--root", "/r", "--add", "/etc:/x", "sh");
	BAD("--rw-disk", "--root", "/r", "--rw-disk", "file", "sh");
	BAD("--disk-size", "--root", "/r", "--disk-size", "1G", "sh");
	BAD("--disk-features", "--root", "/r", "--disk-features", "has_journal", "sh");
	BAD("--max-layer-size", "--root", "/r", "--max-layer-size", "1G", "sh");
	GOOD("--root", "/r", "--max-layer-size", "1G", "--disk", "layers=a.tar.gz", "sh"); /* which it bounds */
}

Test(options, tmpfs)
{
	GOOD("--tmpfs", "/a", "--tmpfs", "/b/c:size=64M", "--tmpfs", "/d:mode=0755,size=1", "--tmpfs", "/e..f:mode=0", "sh");
	static const char *const wanted[][2] = {
		{ "/a", "mode=1777" }, { "/b/c", "mode=1777,size=67108864" }, { "/d", "mode=755,size=1" }, { "/e..f", "mode=0" }
	};
	cr_assert_eq(options.tmpfs_count, 4);
	for (size_t i = 0; i < 4; i++) {
		cr_expect_str_eq(options.tmpfs[i].folder, wanted[i][0]);
		cr_expect_str_eq(options.tmpfs[i].data, wanted[i][1]);
	}
}

Test(options, tmpfs_that_is_none)
{
	static const char *const bad[] = {
		"", "a", "/", "//", "/:size=1M", ":size=1M", "/a:", "/a:size", "/a:size=", "/a:size=0", "/a:size=1M,",
		"/a:size=1X", "/a:mode=8", "/a:mode=10000", "/a:mode=", "/a:exec", "/a/..", "/../a", "/a:size=1M:b",
		"/a/../b",
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		BAD("--tmpfs '", "--tmpfs", bad[i], "sh");
}

Test(options, read_only)
{
	GOOD("sh");
	cr_expect(!options.read_only);
	GOOD("--read-only", "sh");
	cr_expect(options.read_only);
	BAD("--read-only with --rw-disk", "--read-only", "--rw-disk", "f", "sh");
}

/* ---- files of variables -------------------------------------------------------------------------------------------------------- */

/* A file in /tmp with these bytes; the caller removes it. */
static const char *write_file(const void *bytes, size_t length)
{
	static char path[64];
	strcpy(path, "/tmp/trvmm-test-XXXXXX");
	const int fd = mkstemp(path);
	cr_assert(fd >= 0 && write(fd, bytes, length) == (ssize_t)length);
	close(fd);
	return path;
}

Test(options, env_file)
{
	static const char text[] = "\xef\xbb\xbf# comment\n\nA=1\n \t B= two  \n#C=3\nD=\"x\" # y\nE=\r\n   \nF=a=b\nA=last\n"
				   "TRVMM_TEST_HERE\nTRVMM_TEST_AWAY\nG=given\nLAST=\r";
	setenv("TRVMM_TEST_HERE", "from here", 1);
	unsetenv("TRVMM_TEST_AWAY");
	const char *path = write_file(text, sizeof(text) - 1);
	GOOD("-e", "G=option", "--env-file", path, "-e", "F", "sh");
	cr_expect_str_eq(env_value("A"), "last");
	cr_expect_str_eq(env_value("B"), " two  ");
	cr_expect_null(env_value("C"));
	cr_expect_str_eq(env_value("D"), "\"x\" # y");
	cr_expect_str_eq(env_value("E"), "");
	cr_expect_str_eq(env_value("F"), "a=b");
	cr_expect_str_eq(env_value("TRVMM_TEST_HERE"), "from here");
	cr_expect_null(env_value("TRVMM_TEST_AWAY"));
	cr_expect_str_eq(env_value("G"), "option");
	cr_expect_str_eq(env_value("LAST"), "\r");
	cr_expect(!options.path_given);
	unlink(path);
	GOOD("--env-file", "/dev/null", "sh");
	cr_expect_eq(options.env_count, 1);
}

Test(options, env_file_with_a_path)
{
	const char *path = write_file("PATH=/file\n", 11);
	GOOD("--env-file", path, "sh");
	cr_expect(options.path_given);
	cr_expect_str_eq(env_value("PATH"), "/file");
	GOOD("--env-file", path, "-e", "PATH=/option", "sh");
	cr_expect_str_eq(env_value("PATH"), "/option");
	unlink(path);
}

Test(options, env_file_that_is_none)
{
	static const struct {
		const char *text, *complaint;
		size_t length;
	} bad[] = {
		{ "A=1\n=x\n", "line 2: no name", 7 },
		{ "A=1\n\n# =\nB C=1\n", "line 4: blanks in the name 'B C'", 15 },
		{ "A\t=1", "line 1: blanks in the name 'A\\x09'", 4 },
		{ "A B", "line 1: blanks in the name 'A B'", 3 },
		{ "A=1\nB=\0C\n", "line 2: a 0 byte", 9 },
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		const char *path = write_file(bad[i].text, bad[i].length);
		BAD(bad[i].complaint, "--env-file", path, "sh");
		cr_expect(strstr(err.text, path) != NULL, "%s", err.text);
		unlink(path);
	}
	BAD("--env-file /no/such: No such file", "--env-file", "/no/such", "sh");
	BAD("--env-file /: Is a directory", "--env-file", "/", "sh");
	BAD("longer than", "--env-file", "/dev/zero", "sh");
	static char lines[3 * 20000];
	for (size_t i = 0; i < sizeof(lines); i++)
		lines[i] = "A=\n"[i % 3];
	const char *path = write_file(lines, sizeof(lines));
	BAD("line 16385: more than 16384 lines", "--env-file", path, "sh");
	unlink(path);
}

/* ---- what getopt does not like ---------------------------------------------------------------------------------------------- */

Test(options, unknown_options_are_named)
{
	BAD("'--nope'", "--nope", "sh");
	BAD("'--nope=3'", "--nope=3", "sh");
	BAD("'-z'", "-z", "sh");
	BAD("'--nope'", "--console", "--cpus", "2", "--nope");
}

Test(options, unknown_letter_amid_others_is_named)
{
	BAD("'-z'", "-iz", "sh");
	BAD("'-z'", "-zi", "sh");
	BAD("'-z'", "--console", "-izt", "sh");
}

/* A parse that ended within a word leaves nothing behind for the next. */
Test(options, parses_anew_after_a_failure)
{
	BAD("'-z'", "-zt", "sh");
	GOOD("sh");
	cr_assert(!options.terminal);
}

Test(options, ambiguous_options_are_named)
{
	BAD("'--c'", "--c", "sh");
	BAD("'--boo'", "--boo", "pvh", "sh");
}

Test(options, missing_values_are_named)
{
	static const char *const names[] = { "--kernel",       "--layers",  "--memory", "--cpus",     "--disk-size",
					     "--env",          "--workdir", "--user",   "--hostname", "--timeout",
					     "--boot-timeout", "--append",  "--boot" };
	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		BAD(names[i], names[i]);
		cr_assert(strstr(err.text, "needs a value"), "%s", err.text);
	}
	BAD("needs a value", "-e");
	BAD("'--env' needs a value", "-ie");
}

Test(options, values_that_are_not_wanted_are_named)
{
	static const char *const words[] = { "--console=yes",    "--tty=1",     "--interactive=",
					     "--no-kvm-check=x", "--version=2", "--help=me" };
	for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		char name[40];
		snprintf(name, sizeof(name), "'%.*s' takes no value", (int)strcspn(words[i], "="), words[i]);
		BAD(name, words[i], "sh");
	}
}

Test(options, hostile_text_is_quoted)
{
	BAD("--no\\x1b[2J\\x0ape", "--no\x1b[2J\npe", "sh");
	cr_assert(!strchr(err.text, '\n'));
	BAD("'-\\xff'", "-\xff", "sh");
	static char word[5000];
	memset(word, 'w', sizeof(word) - 1);
	word[0] = word[1] = '-';
	BAD("...'", word, "sh");
}

Test(options, messages_stay_one_line_whatever_the_value)
{
	static const char *const names[] = { "--layers", "--memory",   "--cpus",    "--disk-size",
					     "--env",    "--hostname", "--timeout", "--boot" };
	static char value[3000];
	memset(value, 'v', sizeof(value) - 1);
	value[0] = '=';
	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (PARSE(names[i], value, "sh") == 0)
			continue; /* a layer may have this name */
		cr_assert(strstr(err.text, names[i]));
		cr_assert(strlen(err.text) < sizeof(err.text));
	}
}

Test(options, help_lists_every_option)
{
	char text[8192];
	int ends[2];
	cr_assert(pipe(ends) == 0);
	fflush(stdout);
	const int old = dup(STDOUT_FILENO);
	dup2(ends[1], STDOUT_FILENO);
	options_print_help();
	fflush(stdout);
	dup2(old, STDOUT_FILENO);
	close(ends[1]);
	const ssize_t n = read(ends[0], text, sizeof(text) - 1);
	cr_assert(n > 0);
	text[n] = '\0';
	static const char *const names[] = {
		"--kernel FILE",          "--layers A",        "--memory SIZE",     "--cpus N",
		"--disk-size SIZE",       "-e, --env K=V",     "-w, --workdir DIR", "-u, --user USER",
		"--hostname NAME",        "-i, --interactive", "-t, --tty",         "--timeout SECONDS", "--env-file FILE",
		"--ulimit NAME=S[:HARD]", "--tmpfs DIR[:size=S]", "--read-only",
		"--boot-timeout SECONDS", "--console",         "--append TEXT",     "--boot PROTOCOL",
		"--no-kvm-check",         "--version",         "-h, --help"
	};
	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		cr_assert(strstr(text, names[i]), "%s", names[i]);
	for (const char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
		cr_assert(strlen(line) <= 132, "%s", line);
}

/* ---- subcommands of `trvmm disk` --------------------------------------------------------------------------------------------- */

static const struct option_row own_rows[] = {
	{ 'o', "output", "FILE", "" },
	{ OPTION_OWN, "json", NULL, "" },
};

static int note_option(void *data, int id, const char *argument, struct error *to)
{
	char *notes = data;
	if (argument && !strcmp(argument, "bad"))
		return error_set(to, -EINVAL, "bad");
	sprintf(notes + strlen(notes), "%s=%s;", id == 'o' ? "output" : "json", argument ? argument : "");
	return 0;
}

static int parse_disk(char *notes, const char *const *words)
{
	static char *argv[16], texts[16][32]; /* options refers to them */
	int argc = 0;
	memset(argv, 0, sizeof(argv));
	strcpy(argv[argc] = texts[argc], "export");
	for (argc++; *words; words++, argc++)
		strcpy(argv[argc] = texts[argc], *words);
	notes[0] = '\0';
	err.text[0] = '\0';
	return options_parse_disk(argc, argv, own_rows, 2, note_option, notes, &options, &err);
}
#define DISK(...) parse_disk(notes, (const char *const[]){ __VA_ARGS__, NULL })

Test(options, rw_disk)
{
	GOOD("--rw-disk", "file", "--", "true");
	cr_assert_str_eq(options.rw_disk, "file");
	GOOD("true");
	cr_assert_null(options.rw_disk);
	BAD("--rw-disk", "--rw-disk", "", "true");
}

Test(options, disk_features)
{
	GOOD("true");
	cr_assert(options.journal == FEATURE_DEFAULT && !options.metadata_csum);
	GOOD("--disk-features", "metadata_csum,^has_journal", "--", "true");
	cr_assert(options.journal == FEATURE_OFF && options.metadata_csum);
	GOOD("--disk-features=has_journal,^metadata_csum", "--", "true");
	cr_assert(options.journal == FEATURE_ON && !options.metadata_csum);
	BAD("--disk-features", "--disk-features", "", "true");
	BAD("--disk-features", "--disk-features", "has_journal,", "true");
	BAD("--disk-features", "--disk-features", "has_journals", "true");
	BAD("--disk-features", "--disk-features", "^", "true");
}

Test(options, disks_are_kept_in_their_order)
{
	GOOD("--disk", "b", "--disk=layers=a,c:ro", "true");
	cr_assert(options.disk_count == 2 && !strcmp(options.disks[0], "b") && !strcmp(options.disks[1], "layers=a,c:ro"));
	cr_assert_null(options.disks[2]);
	BAD("--disk", "--disk", "", "true");
}

Test(options, disk_subcommands_share_what_describes_the_root_disk)
{
	char notes[256];
	cr_assert_eq(DISK("--layers", "a,b", "/etc", "-o", "x", "--json", "--disk-size=1G", "more"), 0, "%s", err.text);
	cr_assert_str_eq(notes, "output=x;json=;");
	cr_assert(options.layer_count == 2 && options.disk_bytes == 1 << 30);
	cr_assert(!strcmp(options.command[0], "/etc") && !strcmp(options.command[1], "more") && !options.command[2]);
	options_destroy(&options);
	cr_assert_eq(DISK("--memory", "1G"), -EINVAL);
	cr_assert(strstr(err.text, "--memory"), "%s", err.text);
	options_destroy(&options);
	cr_assert_eq(DISK("--layers", "a", "-o"), -EINVAL);
	cr_assert(strstr(err.text, "'--output' needs a value"), "%s", err.text);
	options_destroy(&options);
	cr_assert_eq(DISK("-o", "bad"), -EINVAL);
}
