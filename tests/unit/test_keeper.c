/* keeper.h: names, logs and sockets are looked after, in the end too, whoever ends. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/sanitized.h"
#include "vmm/keeper.h"
#include "vmm/output_log.h"

static char folder[64];

static void start(void)
{
	strcpy(folder, "/tmp/trvmm-keeper-XXXXXX");
	cr_assert(mkdtemp(folder));
	setenv("XDG_RUNTIME_DIR", folder, 1);
}

static void stop(void)
{
	char command[128];
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	cr_expect_eq(system(command), 0);
}

TestSuite(keeper, .init = start, .fini = stop, .timeout = 60);

static void claim_name(struct registry_claim *claim, const char *name)
{
	struct registry_info info = {
		.pid = getpid(), .started_s = time(NULL), .detached = true, .cpus = 1, .memory_bytes = 1 << 20
	};
	struct error err = { "" };
	strcpy(info.command, "x");
	cr_assert_eq(registry_claim(claim, name, &info, &err), 0, "%s", err.text);
}

static void close_claim(const struct registry_claim *claim)
{
	close(claim->folder_fd);
	close(claim->root_fd);
	close(claim->state_fd);
	close(claim->listen_fd);
}

static void expect_log(const struct registry_entry *entry, const char *text)
{
	static uint8_t bytes[OUTPUT_LOG_RECORD_MAX];
	struct output_log_reader reader;
	enum output_log_stream stream;
	char all[256] = "";
	ssize_t n;
	cr_assert_eq(output_log_open(&reader, entry->folder_fd, -1), 0);
	while ((n = output_log_next(&reader, &stream, bytes)) > 0)
		strncat(all, (const char *)bytes, (size_t)n);
	output_log_close(&reader);
	cr_expect_str_eq(all, text);
}

/* Often, because its threads and its confinement begin at the same time. */
Test(keeper, a_machine_that_ends_is_remembered_with_its_log)
{
	SKIP_WHERE_SANITIZED();
	for (unsigned i = 0; i < 100; i++) {
		struct registry_claim claim;
		struct registry_entry entry;
		struct keeper *keeper;
		struct error err = { "" };
		char name[16];
		int out = -1, errors = -1;
		snprintf(name, sizeof(name), "box%u", i);
		claim_name(&claim, name);
		const struct keeper_spec spec = { .claim = &claim, .log = true };
		cr_assert_eq(keeper_start(&spec, &keeper, &out, &errors, &err), 0, "%s", err.text);
		cr_assert(out >= 0 && errors >= 0);
		cr_assert_eq(write(out, "one ", 4), 4);
		cr_assert_eq(registry_find(name, &entry, &err), 0);
		cr_expect_eq(entry.status, REGISTRY_RUNNING);
		registry_entry_close(&entry);
		cr_assert_eq(write(errors, "two", 3), 3, "round %u: the log's thread has ended", i);
		keeper_end(keeper, 7, "last words", true);
		close(out);
		close(errors);
		close_claim(&claim);
		cr_assert_eq(registry_find(name, &entry, &err), 0, "%s", err.text);
		cr_expect_eq(entry.status, REGISTRY_ENDED);
		cr_expect_eq(entry.end.exit_code, 7);
		cr_expect_str_eq(entry.end.text, "last words");
		if (i % 10 == 0)
			expect_log(&entry, "one two");
		cr_expect_eq(registry_remove(&entry, &err), 0);
		registry_entry_close(&entry);
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
}

Test(keeper, sockets_of_programs_are_connected_to_and_those_of_vsock_removed)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct keeper *keeper;
	struct error err = { "" };
	char path[80];
	int none = -1;
	snprintf(path, sizeof(path), "%s/vs", folder);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s_%u", path, 99u);
	const int listener = socket(AF_UNIX, SOCK_STREAM, 0);
	cr_assert_eq(bind(listener, (const struct sockaddr *)&address, sizeof(address)), 0);
	cr_assert_eq(listen(listener, 1), 0);
	const struct keeper_spec spec = { .vsock_path = path };
	cr_assert_eq(keeper_start(&spec, &keeper, &none, &none, &err), 0, "%s", err.text);
	const int fd = keeper_connect(keeper, false, 99);
	cr_assert(fd >= 0);
	const int peer = accept(listener, NULL, NULL);
	cr_assert_eq(write(fd, "hello", 5), 5);
	char text[5];
	cr_expect(read(peer, text, 5) == 5 && !memcmp(text, "hello", 5));
	cr_expect_eq(keeper_connect(keeper, false, 98), -ENOENT);
	cr_expect(keeper_connect(keeper, true, 99) < 0, "that is no socket of packets");
	close(fd);
	close(peer);
	close(listener);
	/* Only what is said to be ours is removed. */
	FILE *file = fopen(path, "w");
	cr_assert(file && fclose(file) == 0);
	keeper_end(keeper, 0, "", false);
	cr_expect_eq(access(path, F_OK), 0);
	cr_assert_eq(keeper_start(&spec, &keeper, &none, &none, &err), 0);
	keeper_owns_vsock(keeper);
	keeper_end(keeper, 0, "", false);
	cr_expect_eq(access(path, F_OK), -1);
}
