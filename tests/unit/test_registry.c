/* registry.c: names are taken once, ended machines are known, killed ones leave nothing, and nobody is fooled by who else is there. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/cli/machines.h"
#include "vmm/registry.h"
#include "vmm/remote.h"

static char folder[64];

static void set_up(void)
{
	strcpy(folder, "/tmp/trvmm-registry-XXXXXX");
	cr_assert(mkdtemp(folder));
	setenv("XDG_RUNTIME_DIR", folder, 1);
}

static void tear_down(void)
{
	char command[128];
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	cr_assert_eq(system(command), 0);
}

TestSuite(registry, .init = set_up, .fini = tear_down, .timeout = 60);

static const struct registry_info info = {
	.pid = 1234, .started_s = 1000, .detached = true, .cpus = 2, .memory_bytes = 256 << 20, .command = "/bin/sleep 'a b'"
};

static int claim(struct registry_claim *claimed, const char *name)
{
	struct error err = { "" };
	return registry_claim(claimed, name, &info, &err);
}

/* As the end of the process does. */
static void let_go(struct registry_claim *claimed)
{
	if (claimed->listen_fd >= 0)
		close(claimed->listen_fd);
	close(claimed->folder_fd);
	close(claimed->state_fd);
	close(claimed->root_fd);
}

static unsigned items(void)
{
	char path[96];
	unsigned count = 0;
	snprintf(path, sizeof(path), "%s/trvmm", folder);
	DIR *listing = opendir(path);
	for (const struct dirent *item; listing && (item = readdir(listing));)
		count += strcmp(item->d_name, ".") && strcmp(item->d_name, "..");
	if (listing)
		closedir(listing);
	return count;
}

Test(registry, names)
{
	static const char *const good[] = { "a", "A-1_b.c", "0",
					    "x23456789012345678901234567890123456789012345678901234567890123" };
	static const char *const bad[] = { "",         ".",    "..",
					   ".a",       "-a",   "_a",
					   "a/b",      "a b",  "a\n",
					   "\xc3\xa4", "../a", "x234567890123456789012345678901234567890123456789012345678901234" };
	struct error err;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		cr_expect_eq(registry_check_name(good[i], &err), 0, "%s", good[i]);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		cr_expect_eq(registry_check_name(bad[i], &err), -EINVAL, "%s", bad[i]);
}

Test(registry, a_machine_is_found_while_it_runs_and_reached)
{
	struct registry_claim claimed;
	struct registry_entry entry;
	struct error err;
	cr_assert_eq(claim(&claimed, "one"), 0);
	cr_assert_eq(registry_find("one", &entry, &err), 0);
	cr_expect_eq(entry.status, REGISTRY_RUNNING);
	cr_expect_eq(entry.info.pid, 1234);
	cr_expect_eq(entry.info.memory_bytes, 256u << 20);
	cr_expect_str_eq(entry.info.command, info.command);
	const int fd = registry_connect(&entry, &err);
	cr_expect(fd >= 0);
	const int accepted = accept(claimed.listen_fd, NULL, NULL);
	cr_expect(accepted >= 0);
	close(accepted);
	close(fd);
	cr_expect_eq(registry_remove(&entry, &err), -EBUSY);
	registry_entry_close(&entry);
	let_go(&claimed);
}

Test(registry, a_name_is_taken_once)
{
	struct registry_claim first, second;
	struct error err;
	cr_assert_eq(claim(&first, "one"), 0);
	cr_expect_eq(registry_claim(&second, "one", &info, &err), -EEXIST);
	cr_expect(strstr(err.text, "runs"));
	cr_assert_eq(claim(&second, "two"), 0);
	cr_expect_eq(items(), 2);
	let_go(&second);
	let_go(&first);
}

Test(registry, made_up_names_differ)
{
	struct registry_claim first, second;
	struct error err;
	cr_assert_eq(claim(&first, NULL), 0);
	cr_assert_eq(claim(&second, NULL), 0);
	cr_expect(strcmp(first.name, second.name));
	cr_expect_eq(registry_check_name(first.name, &err), 0);
	let_go(&first);
	let_go(&second);
}

Test(registry, a_kept_end_is_known_until_it_is_removed)
{
	struct registry_claim claimed;
	struct registry_entry entry;
	struct error err;
	const struct registry_end end = { .exit_code = 42, .ended_s = 2000, .text = "a \"text\"" };
	cr_assert_eq(claim(&claimed, "one"), 0);
	registry_release(&claimed, &end, true);
	let_go(&claimed);
	cr_assert_eq(registry_find("one", &entry, &err), 0);
	cr_expect_eq(entry.status, REGISTRY_ENDED);
	cr_expect_eq(entry.end.exit_code, 42);
	cr_expect_eq(entry.end.ended_s, 2000);
	cr_expect_str_eq(entry.end.text, end.text);
	cr_expect_eq(registry_connect(&entry, &err), -ECONNREFUSED);
	cr_expect_eq(registry_claim(&claimed, "one", &info, &err), -EEXIST);
	cr_expect(strstr(err.text, "trvmm rm one"));
	cr_expect_eq(registry_remove(&entry, &err), 0);
	cr_expect_eq(registry_remove(&entry, &err), -ENOENT);
	registry_entry_close(&entry);
	cr_expect_eq(items(), 0);
	cr_expect_eq(registry_find("one", &entry, &err), -ENOENT);
}

Test(registry, an_end_that_is_not_kept_reaches_those_who_wait)
{
	struct registry_claim claimed;
	struct registry_entry entry;
	struct error err;
	cr_assert_eq(claim(&claimed, "one"), 0);
	cr_assert_eq(registry_find("one", &entry, &err), 0);
	const pid_t pid = fork();
	if (pid == 0) {
		let_go(&claimed); /* the lock is the parent's now */
		alarm(30);
		_exit(registry_wait(&entry, &err) == 0 && entry.status == REGISTRY_ENDED ? entry.end.exit_code : 1);
	}
	usleep(50000);
	cr_expect_eq(waitpid(pid, NULL, WNOHANG), 0, "it waits");
	registry_release(&claimed, &(struct registry_end){ .exit_code = 7 }, false);
	cr_expect_eq(items(), 0);
	let_go(&claimed);
	int status;
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 7);
	registry_entry_close(&entry);
}

/* Claims a name in another process and kills that. */
static void claim_and_die(const char *name)
{
	int ready[2];
	char c;
	cr_assert_eq(pipe(ready), 0);
	const pid_t pid = fork();
	if (pid == 0) {
		struct registry_claim claimed;
		c = claim(&claimed, name) == 0 ? 'y' : 'n';
		if (write(ready[1], &c, 1) != 1)
			_exit(1);
		pause();
	}
	cr_assert_eq(read(ready[0], &c, 1), 1);
	cr_assert_eq(c, 'y');
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(ready[0]);
	close(ready[1]);
}

Test(registry, a_killed_machine_is_known_by_its_lock)
{
	struct registry_entry entry, *entries;
	struct error err;
	size_t count;
	claim_and_die("one");
	cr_assert_eq(registry_find("one", &entry, &err), 0);
	cr_expect_eq(entry.status, REGISTRY_KILLED);
	cr_expect_eq(entry.end.exit_code, 137);
	registry_entry_close(&entry);
	cr_expect_eq(registry_list(&entries, &count, &err), 0);
	cr_expect_eq(count, 0);
	cr_expect_eq(items(), 0, "the list has removed it");
}

Test(registry, the_name_of_a_killed_machine_is_free)
{
	struct registry_claim claimed;
	claim_and_die("one");
	cr_expect_eq(claim(&claimed, "one"), 0);
	cr_expect_eq(items(), 1);
	let_go(&claimed);
}

Test(registry, half_made_and_half_removed_machines_are_swept)
{
	struct registry_entry *entries;
	struct error err;
	size_t count;
	char command[512];
	claim_and_die("one");
	snprintf(
	    command, sizeof(command),
	    "cd %s/trvmm && mv one .old-1 && mkdir .new-1 .new-2 .old-2 && : >.new-2/state && : >.old-2/state && : >.old-2/log",
	    folder);
	cr_assert_eq(system(command), 0);
	cr_expect_eq(registry_list(&entries, &count, &err), 0);
	cr_expect_eq(count, 0);
	cr_expect_eq(items(), 0);
}

Test(registry, a_removal_that_fails_is_tried_again)
{
	struct registry_entry *entries;
	struct error err;
	size_t count;
	char command[256];
	claim_and_die("one");
	/* A folder is not unlinked. */
	snprintf(command, sizeof(command), "cd %s/trvmm && mkdir one/stays && mv one .old-1", folder);
	cr_assert_eq(system(command), 0);
	cr_expect_eq(registry_list(&entries, &count, &err), 0);
	snprintf(command, sizeof(command), "test -e %s/trvmm/.old-1/state", folder);
	cr_expect_eq(system(command), 0, "the sign by which it is found stays");
	snprintf(command, sizeof(command), "cd %s/trvmm/.old-1 && rmdir stays && : >log", folder);
	cr_assert_eq(system(command), 0);
	cr_expect_eq(registry_list(&entries, &count, &err), 0);
	cr_expect_eq(items(), 0);
}

Test(registry, of_many_at_once_one_gets_the_name)
{
	/* A dead one is in the way, so that they also race for its removal. */
	claim_and_die("one");
	pid_t pids[16];
	unsigned got = 0;
	int go[2];
	cr_assert_eq(pipe(go), 0);
	for (unsigned i = 0; i < 16; i++) {
		pids[i] = fork();
		if (pids[i] == 0) {
			struct registry_claim claimed;
			char c;
			close(go[1]);
			if (read(go[0], &c, 1) != 0)
				_exit(2);
			const int result = claim(&claimed, "one");
			if (result == 0)
				usleep(500000);
			_exit(result == 0 ? 0 : result == -EEXIST ? 1 : 3);
		}
	}
	close(go[1]);
	for (unsigned i = 0; i < 16; i++) {
		int status;
		cr_assert_eq(waitpid(pids[i], &status, 0), pids[i]);
		cr_expect(WIFEXITED(status) && WEXITSTATUS(status) <= 1, "status 0x%x", (unsigned)status);
		got += status == 0;
	}
	cr_expect_eq(got, 1, "%u got it", got);
}

Test(registry, claims_survive_those_who_list)
{
	pid_t pids[4];
	for (unsigned i = 0; i < 4; i++) {
		pids[i] = fork();
		if (pids[i] == 0) {
			for (unsigned round = 0; round < 200; round++) {
				struct registry_entry *entries;
				struct registry_claim claimed;
				struct error err;
				size_t count;
				if (i < 2 && registry_list(&entries, &count, &err) == 0) {
					registry_list_free(entries, count);
					continue;
				}
				if (registry_claim(&claimed, i == 2 ? "a" : NULL, &info, &err) < 0)
					_exit(1);
				registry_release(&claimed, &(struct registry_end){ 0 }, false);
				let_go(&claimed);
			}
			_exit(0);
		}
	}
	for (unsigned i = 0; i < 4; i++) {
		int status;
		cr_assert_eq(waitpid(pids[i], &status, 0), pids[i]);
		cr_expect_eq(status, 0, "process %u: 0x%x", i, (unsigned)status);
	}
	cr_expect_eq(items(), 0);
}

Test(registry, a_folder_that_others_may_enter_is_refused)
{
	struct registry_claim claimed;
	struct registry_entry entry;
	struct error err;
	char path[96];
	snprintf(path, sizeof(path), "%s/trvmm", folder);
	cr_assert_eq(mkdir(path, 0755), 0);
	cr_expect_eq(registry_claim(&claimed, "one", &info, &err), -EPERM);
	cr_expect(strstr(err.text, path));
	cr_expect_eq(registry_find("one", &entry, &err), -EPERM);
	rmdir(path);
	cr_assert_eq(symlink("/tmp", path), 0);
	cr_expect(registry_claim(&claimed, "one", &info, &err) < 0);
	unlink(path);
}

Test(registry, a_state_that_is_nonsense_is_a_killed_machine)
{
	static const char *const texts[] = { "", "nonsense\n", "{}\n", "{\"pid\":1}\n", "[1]\n{}\n" };
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct registry_claim claimed;
		char path[128];
		claim_and_die("one");
		snprintf(path, sizeof(path), "%s/trvmm/one/state", folder);
		FILE *file = fopen(path, "w");
		fputs(texts[i], file);
		fclose(file);
		cr_expect_eq(claim(&claimed, "one"), 0, "%s", texts[i]);
		let_go(&claimed);
	}
}

/* Its writer may have been taken over: differences of these numbers are printed. */
Test(registry, numbers_that_are_none_are_no_end)
{
	static const char *const ends[] = { "{\"exit_code\":300,\"ended\":1,\"text\":\"\"}\n",
					    "{\"exit_code\":0,\"ended\":-9223372036854775808,\"text\":\"\"}\n" };
	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		struct registry_claim claimed;
		struct registry_entry entry;
		struct error err;
		cr_assert_eq(claim(&claimed, "one"), 0);
		cr_assert_eq(write(claimed.state_fd, ends[i], strlen(ends[i])), (ssize_t)strlen(ends[i]));
		let_go(&claimed);
		cr_assert_eq(registry_find("one", &entry, &err), 0);
		cr_expect_eq(entry.status, REGISTRY_KILLED, "%s", ends[i]);
		cr_expect_eq(registry_remove(&entry, &err), 0);
		registry_entry_close(&entry);
	}
}

/* ---- trvmm kill -------------------------------------------------------------------------------------------------------------- */

/* A machine that its guest has taken over: it answers, and goes on. */
static void answer_and_stay(const char *name, uint32_t magic, enum remote_type type) __attribute__((noreturn));

static void answer_and_stay(const char *name, uint32_t magic, enum remote_type type)
{
	const struct remote_header header = { le32_make(magic), le32_make(REMOTE_VERSION), le32_make(type), le32_make(0) };
	struct registry_claim claimed;
	if (claim(&claimed, name) < 0)
		_exit(1);
	fcntl(claimed.listen_fd, F_SETFL, 0);
	const int fd = accept(claimed.listen_fd, NULL, NULL);
	if (send(fd, &header, sizeof(header), MSG_NOSIGNAL) < 0)
		_exit(2);
	for (;;)
		pause();
}

Test(registry, kill_believes_no_machine)
{
	static const struct {
		uint32_t magic;
		enum remote_type type;
	} answers[] = { { REMOTE_MAGIC, REMOTE_DONE }, { REMOTE_MAGIC, REMOTE_REFUSED }, { 0, REMOTE_DONE } };
	for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
		struct registry_entry entry;
		struct error err = { "" };
		int number = SIGKILL, status = 0;
		const pid_t pid = fork();
		if (pid == 0)
			answer_and_stay("taken", answers[i].magic, answers[i].type);
		while (registry_find("taken", &entry, &err) < 0 || entry.status != REGISTRY_RUNNING)
			usleep(1000);
		registry_entry_close(&entry);
		cr_expect_eq(cli_kill_one("taken", &number, &err), 0, "%zu: %s", i, err.text);
		kill(pid, SIGTERM); /* for a test that fails */
		cr_assert_eq(waitpid(pid, &status, 0), pid);
		cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "%zu: status 0x%x", i, (unsigned)status);
	}
}
