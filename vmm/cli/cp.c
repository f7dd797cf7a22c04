/*
 * `trvmm cp [-a] [--max-size SIZE] NAME:PATH PATH` and `trvmm cp PATH NAME:PATH`: files and trees out of a machine that runs, and into it.
 *
 * A program of ours runs in the guest as one end of guest/copy/copy.h, by EXEC of vmm/remote.h; the other end is here. What comes out
 * of a guest is hostile: that header says what it cannot do.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "guest/copy/copy.h"
#include "vmm/cli/cli.h"
#include "vmm/cli/machines.h"
#include "vmm/options.h"
#include "vmm/remote_client.h"

#define STALL_S 60 /* a machine that moves nothing for so long is given up */
#define BYTES_MAX_DEFAULT ((uint64_t)64 << 30)

struct cp {
	bool archive;
	uint64_t bytes_max;
	char *machine; /* owned */
	const char *guest_path, *host_path;
	bool out; /* of the guest */
	char name[COPY_NAME_MAX + 1]; /* of what is copied; empty: only its contents are wanted */
	int fd; /* the connection */
	int data_fd, stderr_fd; /* our ends of the pipes; -1: none */
};

/* ---- arguments --------------------------------------------------------------------------------------------------------------- */

/* The path of NAME:PATH; NULL: it is a path of this host, as is what begins with a slash or a dot. */
static const char *path_in_machine(const char *argument)
{
	const char *colon = strchr(argument, ':');
	if (!colon || colon == argument || *argument == '/' || *argument == '.' ||
	    memchr(argument, '/', (size_t)(colon - argument)))
		return NULL;
	return colon + 1;
}

/* The last name of the source; empty for "/", "." and "..", behind which there is no name. */
static int find_name(struct cp *cp, const char *source)
{
	size_t end = strlen(source);
	while (end && source[end - 1] == '/')
		end--;
	size_t start = end;
	while (start && source[start - 1] != '/')
		start--;
	const size_t length = end - start;
	if (length > COPY_NAME_MAX)
		return -ENAMETOOLONG;
	memcpy(cp->name, source + start, length);
	if (!strcmp(cp->name, ".") || !strcmp(cp->name, ".."))
		cp->name[0] = '\0';
	return 0;
}

static int parse_paths(struct cp *cp, const char *source, const char *destination, struct error *err)
{
	const char *source_in = path_in_machine(source), *destination_in = path_in_machine(destination);
	if (!source_in == !destination_in)
		return error_set(err, -EINVAL, "give one path in a machine, NAME:PATH, and one of this host");
	cp->out = source_in;
	cp->guest_path = source_in ? source_in : destination_in;
	cp->host_path = source_in ? destination : source;
	const char *argument = source_in ? source : destination;
	if (!*cp->guest_path || !*cp->host_path)
		return error_set(err, -EINVAL, "a path is empty; give NAME:PATH and PATH");
	cp->machine = strndup(argument, (size_t)(cp->guest_path - argument) - 1);
	if (!cp->machine)
		return error_set(err, -ENOMEM, "out of memory");
	if (find_name(cp, cp->out ? cp->guest_path : cp->host_path) < 0)
		return error_set(err, -ENAMETOOLONG, "the name of what is to be copied is longer than %u bytes", COPY_NAME_MAX);
	return 0;
}

static const struct option_row options[] = {
	{ 'a', "archive", NULL, "keep set-user-ID bits, capabilities and device nodes of the guest; for root" },
	{ 256, "max-size", "SIZE", "what may come out of the machine in all (default: 64G)" },
};
static const struct cli_command command = {
	.usage = "cp [OPTIONS] NAME:PATH PATH, or PATH NAME:PATH",
	.summary = "Copy a file or a tree out of a machine, or into it.",
	.options = options,
	.option_count = sizeof(options) / sizeof(options[0]),
};

static int parse(struct cp *cp, int argc, char **argv)
{
	struct error err = { "" };
	const char *value;
	int id;
	optind = 0;
	while ((id = cli_next_option(argc, argv, &command, &value)) != -1) {
		if (id == 0)
			return EXIT_TRVMM;
		cp->archive |= id == 'a';
		if (id == 256 && (options_parse_size(value, &cp->bytes_max) < 0 || !cp->bytes_max)) {
			message("cp: --max-size '%s': give a size such as 20G", value);
			return EXIT_TRVMM;
		}
	}
	if (optind + 2 != argc)
		return cli_usage(&command);
	return parse_paths(cp, argv[optind], argv[optind + 1], &err) < 0 ? cli_fail("cp", &err) : 0;
}

/* ---- the guest's end --------------------------------------------------------------------------------------------------------- */

/* EXEC of the copier as root in /. */
static int send_request(const struct cp *cp, const int fds[3], struct error *err)
{
	static const char program[] = COPY_PATH;
	const char *const out[] = { program, "out", cp->guest_path, NULL };
	const char *const in[] = {
		program, "in", cp->guest_path, cp->name, *cp->name ? "0" : "1", geteuid() ? "0" : "1", NULL
	};
	const char *const *words = cp->out ? out : in;
	struct remote_exec head = { .flags = le32_make(cp->out ? 0 : REMOTE_EXEC_STDIN) };
	char *body = NULL;
	size_t length = 0;
	uint32_t argc = 0;
	FILE *stream = open_memstream(&body, &length);
	if (!stream)
		return error_set(err, -ENOMEM, "out of memory");
	while (words[argc])
		argc++;
	head.argc = le32_make(argc);
	fwrite(&head, 1, sizeof(head), stream);
	fwrite("/", 1, 2, stream);
	fwrite("0:0", 1, 4, stream);
	for (uint32_t i = 0; i < argc; i++)
		fwrite(words[i], 1, strlen(words[i]) + 1, stream);
	int result = fclose(stream) ? -ENOMEM : 0;
	if (result == 0)
		result = remote_send(cp->fd, REMOTE_EXEC, body, length, cp->out ? fds + 1 : fds, cp->out ? 2 : 3);
	free(body);
	return result < 0 && result != -EPIPE ? error_set(err, result, "asking machine '%s': %s", cp->machine, strerror(-result))
					      : 0;
}

static int start(struct cp *cp, struct error *err)
{
	int data[2] = { -1, -1 }, errors[2] = { -1, -1 };
	const int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	int result = null < 0 || pipe2(data, O_CLOEXEC) < 0 || pipe2(errors, O_CLOEXEC) < 0
			 ? error_set(err, -errno, "pipe: %s", strerror(errno))
			 : 0;
	/* The machine is not to wait for us; each end has flags of its own. */
	if (result == 0)
		(void)fcntl(data[cp->out ? 1 : 0], F_SETFL, O_NONBLOCK);
	const int fds[3] = { cp->out ? -1 : data[0], cp->out ? data[1] : null, errors[1] };
	if (result == 0)
		result = send_request(cp, fds, err);
	cp->data_fd = data[cp->out ? 0 : 1];
	cp->stderr_fd = errors[0];
	/* What does not block is given up in time. */
	if (result == 0 && fcntl(cp->data_fd, F_SETFL, O_NONBLOCK) < 0)
		result = error_set(err, -errno, "pipe: %s", strerror(errno));
	const int given[] = { null, data[cp->out ? 1 : 0], errors[1] };
	for (unsigned i = 0; i < 3; i++)
		if (given[i] >= 0)
			close(given[i]);
	return result;
}

/* What the guest's end said, quoted. It has ended: what it wrote is there. */
static void read_complaint(const struct cp *cp, char *quoted, size_t size)
{
	char text[512];
	const int flags = fcntl(cp->stderr_fd, F_GETFL);
	ssize_t n =
	    flags < 0 || fcntl(cp->stderr_fd, F_SETFL, flags | O_NONBLOCK) < 0 ? 0 : read(cp->stderr_fd, text, sizeof(text));
	error_quote(quoted, size, text, n > 0 ? (size_t)n : 0);
}

/* Returns 0 when it ended well. */
static int wait_for_guest(const struct cp *cp, struct error *err)
{
	struct remote_answer answer;
	struct remote_ended ended;
	char quoted[640];
	const int result = remote_receive(cp->fd, &answer, err);
	if (result < 0)
		return error_prefix(err, result, "'%s'", cp->machine);
	if (answer.type != REMOTE_ENDED || answer.length < sizeof(ended))
		return error_set(err, -EPROTO, "'%s': the machine answers something else", cp->machine);
	memcpy(&ended, answer.body, sizeof(ended));
	if (!le32_get(ended.exit_code))
		return 0;
	if (answer.length > sizeof(ended)) /* the machine's own words, in which the guest's are quoted */
		return error_set(err, -EIO, "'%s': %s", cp->machine, (const char *)answer.body + sizeof(ended));
	read_complaint(cp, quoted, sizeof(quoted));
	return error_set(err, -EIO, "%s:%s: %s", cp->machine, cp->guest_path,
			 *quoted ? quoted : "the copying in the guest was ended");
}

/* ---- our end ----------------------------------------------------------------------------------------------------------------- */

static int explain(const struct cp *cp, int code, const struct copy_problem *problem, struct error *err)
{
	char path[512];
	error_quote(path, sizeof(path), problem->path, strlen(problem->path));
	const char *slash = *path ? "/" : "";
	if (code == -ENODATA)
		return error_set(err, code, "%s:%s: the guest sent less than it announced", cp->machine, cp->guest_path);
	if (code == -ETIMEDOUT)
		return error_set(err, code, "machine '%s' moved nothing for %u s; it hangs, or the copying in it does", cp->machine,
				 STALL_S);
	if (code == -EBADMSG)
		return error_set(err, code, "%s:%s: the guest sends '%s', which has no place in a copy", cp->machine,
				 cp->guest_path, path);
	if (code == -EFBIG)
		return error_set(err, code, "%s:%s%s%s: more than %llu bytes in all; give --max-size if that is meant", cp->machine,
				 cp->guest_path, slash, path, (unsigned long long)cp->bytes_max);
	if (code == -EPERM && cp->out && !cp->archive)
		return error_set(err, code, "%s%s%s: %s: %s; give --archive, as root, to copy device nodes", cp->host_path, slash,
				 path, problem->what, strerror(-code));
	return error_set(err, code, "%s%s%s: %s: %s", cp->host_path, slash, path, problem->what, strerror(-code));
}

static int copy(struct cp *cp, struct error *err)
{
	static struct copy_problem problem;
	const bool root = geteuid() == 0;
	const struct copy_target target = { .destination = cp->host_path,
					    .name = cp->name,
					    .contents = !*cp->name,
					    .owners = root,
					    .special = root && cp->archive,
					    .bytes_max = cp->bytes_max,
					    .stall_ms = STALL_S * 1000 };
	struct registry_entry entry;
	cp->fd = remote_open(cp->machine, &entry, err);
	if (cp->fd < 0)
		return cp->fd;
	registry_entry_close(&entry);
	remote_set_timeout(cp->fd, STALL_S);
	int result = start(cp, err);
	if (result < 0)
		return result;
	const int code = cp->out ? copy_receive(cp->data_fd, &target, &problem)
				 : copy_send(cp->data_fd, cp->host_path, STALL_S * 1000, &problem);
	close(cp->data_fd);
	cp->data_fd = -1;
	/* An end that hears nothing more has said why; ours knows better in all other cases, and the guest's need not be waited for. */
	if (code == 0 || code == -ENODATA || code == -EPIPE)
		result = wait_for_guest(cp, err);
	return result == 0 && code < 0 ? explain(cp, code, &problem, err) : result;
}

int cli_cp(int argc, char **argv)
{
	struct cp cp = { .bytes_max = BYTES_MAX_DEFAULT, .fd = -1, .data_fd = -1, .stderr_fd = -1 };
	struct error err = { "" };
	int code = parse(&cp, argc, argv);
	signal(SIGPIPE, SIG_IGN);
	if (code == 0 && copy(&cp, &err) < 0)
		code = cli_fail("cp", &err);
	free(cp.machine);
	return code;
}
