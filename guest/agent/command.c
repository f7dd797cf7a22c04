/*
 * Sessions: a RUN message becomes a command with its streams, the command's end becomes EXITED.
 *
 * The slots are memory that the kernel gives on first touch, so a session costs what it uses. All that arrives in a message was
 * checked for its length only; here the counts and strings of RUN are checked.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "guest/agent/agent.h"

static struct command *commands[AGENT_SESSIONS_MAX];
static unsigned commands_top; /* no session in use from here on */
static uint32_t generation;
static int early[3] = { -1, -1, -1 };

/* RUN, taken apart. Strings stay in the message. */
struct request {
	uint32_t session, flags;
	uint16_t rows, columns;
	const char *hostname, *workdir, *user;
	char *init;
	uint32_t pids_max;
	const struct agent_limit *limits;
	uint32_t limit_count;
	char **argv, **env;
	struct mounts mounts;
};

/* free slot for a shell | argv | NULL | env | HOME | NULL */
static char *strings[AGENT_STRINGS_MAX + 4];

void command_connect_early(void)
{
	for (unsigned i = 0; i < 3; i++)
		early[i] = platform_connect(agent_stream_port(0, (enum agent_stream)i));
}

static void command_free(struct command *c)
{
	for (unsigned i = 0; i < ENDS; i++)
		end_close(&c->ends[i]);
	commands[c->session] = NULL;
	while (commands_top && !commands[commands_top - 1])
		commands_top--;
	munmap(c, sizeof(*c));
}

static struct command *command_create(const struct request *r)
{
	struct command *c = mmap(NULL, sizeof(*c), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (c == MAP_FAILED)
		return NULL;
	c->session = r->session;
	c->flags = r->flags;
	c->generation = ++generation;
	for (unsigned i = 0; i < ENDS; i++) {
		c->ends[i].fd = -1;
		c->ends[i].watched = WATCHED_NOT;
	}
	commands[r->session] = c;
	if (commands_top <= r->session)
		commands_top = r->session + 1;
	return c;
}

static struct command *command_find(uint32_t session)
{
	return session < AGENT_SESSIONS_MAX ? commands[session] : NULL;
}

/* ---- RUN --------------------------------------------------------------------------------------------------------------------- */

/* The next string of a message, or NULL when it has none that ends. */
static char *take_string(char **at, const char *end)
{
	char *s = *at;
	char *zero = memchr(s, 0, (size_t)(end - s));
	if (!zero)
		return NULL;
	*at = zero + 1;
	return s;
}

static bool request_parse(struct request *r, char *at, const char *end, const struct agent_run *m)
{
	const uint32_t argc = le32_get(m->argc), envc = le32_get(m->envc);
	r->limit_count = le32_get(m->limit_count);
	r->mounts.tmpfs_count = le32_get(m->tmpfs_count);
	r->mounts.share_count = le32_get(m->share_count);
	r->mounts.read_only_shares = le32_get(m->read_only_shares);
	r->mounts.dax_shares = le32_get(m->dax_shares);
	if (!argc || argc > AGENT_STRINGS_MAX || envc > AGENT_STRINGS_MAX - argc)
		return false;
	if (r->limit_count > AGENT_LIMITS_MAX || (size_t)(end - at) < r->limit_count * sizeof(struct agent_limit) ||
	    r->mounts.tmpfs_count > (r->session ? 0 : AGENT_TMPFS_MAX) ||
	    r->mounts.share_count > (r->session ? 0 : AGENT_SHARES_MAX))
		return false;
	r->limits = (const struct agent_limit *)at;
	at += r->limit_count * sizeof(struct agent_limit);
	r->hostname = take_string(&at, end);
	r->workdir = r->hostname ? take_string(&at, end) : NULL;
	r->user = r->workdir ? take_string(&at, end) : NULL;
	r->init = r->user ? take_string(&at, end) : NULL;
	r->pids_max = le32_get(m->pids_max);
	if (!r->init || (r->session && (*r->init || r->pids_max)))
		return false;
	char **to = strings + 1;
	r->argv = to;
	r->env = to + argc + 1;
	for (uint32_t i = 0; i < argc + envc; i++) {
		if (i == argc)
			*to++ = NULL;
		*to = take_string(&at, end);
		if (!*to++)
			return false;
	}
	if (!envc)
		*to++ = NULL;
	*to = NULL;
	for (uint32_t i = 0; i < r->mounts.tmpfs_count; i++)
		for (unsigned k = 0; k < 2; k++)
			if (!(r->mounts.tmpfs[i][k] = take_string(&at, end)))
				return false;
	for (uint32_t i = 0; i < r->mounts.share_count; i++)
		for (unsigned k = 0; k < 3; k++)
			if (!(r->mounts.shares[i][k] = take_string(&at, end)))
				return false;
	return at == end;
}

/* Opens the streams: connections (those of session 0 are there already), and pipes or a pty. `theirs` are for the command. */
static int command_open_streams(struct command *c, const struct request *r, const struct user *user, int theirs[3])
{
	const bool terminal = c->flags & AGENT_RUN_TERMINAL;
	for (unsigned i = 0; i < 3; i++) {
		const bool wanted = terminal ? i == AGENT_STDIN : i != AGENT_STDIN || c->flags & AGENT_RUN_STDIN;
		int fd = -1;
		if (c->session == 0) {
			fd = early[i];
			early[i] = -1;
		}
		if (fd < 0 && wanted)
			fd = platform_connect(agent_stream_port(c->session, (enum agent_stream)i));
		if (fd < 0 && wanted)
			return fd;
		if (!wanted) {
			if (fd >= 0)
				close(fd);
			continue;
		}
		c->ends[END_SOCKET(i)].fd = fd;
		c->ends[END_SOCKET(i)].connecting = true;
		int result = terminal
				 ? spawn_pty(user->uid, r->rows, r->columns, &c->ends[END_LOCAL(i)].fd, &theirs[i])
				 : spawn_pipe((enum agent_stream)i, user->uid, user->gid, &c->ends[END_LOCAL(i)].fd, &theirs[i]);
		if (result < 0)
			return result;
		if (i == AGENT_STDIN)
			pump_open(c, i, END_SOCKET(i), END_LOCAL(i), false);
		else
			pump_open(c, i, END_LOCAL(i), END_SOCKET(i), true);
	}
	if (terminal)
		pump_open(c, 1, END_LOCAL(AGENT_STDIN), END_SOCKET(AGENT_STDIN), true);
	return 0;
}

static void send_failed(uint32_t session, int error, uint32_t exit_code, const struct text *why)
{
	const struct agent_failed failed = { le32_make(session), le32_make((uint32_t)error), le32_make(exit_code) };
	wire_send(AGENT_FAILED, &failed, sizeof(failed), why->bytes, (uint32_t)why->length);
}

/* Adds HOME to the environment when there is none, as docker does. */
static void add_home(char **env, const struct user *user, bool named)
{
	static char home[sizeof(user->home) + 8];
	for (; *env; env++) {
		if (!strncmp(*env, "HOME=", 5))
			return;
	}
	const char *path = user->home;
	if (!*path)
		path = !named && access("/root", F_OK) == 0 ? "/root" : "/";
	strcpy(home, "HOME=");
	strcpy(home + 5, path);
	env[0] = home;
	env[1] = NULL;
}

/* What spawn() says, in words. Exit codes are the shell's and docker's: 127 not found, 126 found but not executable. */
static uint32_t spawn_explain(const struct spawn *s, struct text *why)
{
	const bool exec = !strcmp(s->failed, "exec");
	text_add(why, s->failed);
	if (exec) {
		text_add(why, " \"");
		text_add(why, s->argv[0]);
		text_add(why, "\"");
	}
	if (exec && s->interpreter_missing)
		text_add(why, ": the file is there, but the interpreter or dynamic loader that it names is not");
	else if (exec && s->error == ENOENT && !strchr(s->argv[0], '/'))
		text_add(why, ": not found in PATH");
	else
		text_add_error(why, s->error);
	if (!exec)
		return 125;
	return s->error == ENOENT || s->error == ENOTDIR ? 127 : 126;
}

/* Returns 0, or -errno with the reason. */
static int start_proxy(const struct request *r, struct text *why)
{
	if (r->session != 0 || !(r->flags & AGENT_RUN_PROXY))
		return 0;
	const int result = proxy_listen();
	if (result < 0) {
		text_add(why, "listening in the guest for -p");
		text_add_error(why, -result);
	}
	return result;
}

/* Starts what `r` asks for. Returns its pid, or -errno with the reason and the exit code for it. */
static pid_t command_start(struct command *c, struct request *r, struct text *why, uint32_t *exit_code)
{
	static struct user user;
	memset(&user, 0, sizeof(user));
	*exit_code = 125;
	int result = mounts_make(&r->mounts, why);
	if (result == 0 && r->pids_max)
		result = pids_limit(r->pids_max, why);
	if (result == 0 && *r->init)
		result = init_start(r->init, why);
	if (result == 0)
		result = start_proxy(r, why);
	if (result == 0 && *r->user)
		result = user_resolve(r->user, "/etc/passwd", "/etc/group", &user, why);
	if (result < 0)
		return result;
	if (*r->workdir)
		result = spawn_make_folder(r->workdir);
	if (result < 0) {
		text_add(why, "working directory \"");
		text_add(why, r->workdir);
		text_add(why, "\"");
		text_add_error(why, -result);
		return result;
	}

	int theirs[3] = { -1, -1, -1 };
	struct spawn s = { .argv = r->argv, .env = r->env, .workdir = *r->workdir ? r->workdir : "/", .user = &user,
			   .terminal = c->flags & AGENT_RUN_TERMINAL, .limits = r->limits, .limit_count = r->limit_count };
	result = command_open_streams(c, r, &user, theirs);
	if (result < 0) {
		text_add(why, "streams");
		text_add_error(why, -result);
	} else {
		add_home(r->env, &user, *r->user);
		for (unsigned i = 0; i < 3; i++)
			s.fds[i] = s.terminal ? theirs[0] : theirs[i];
		result = spawn(&s);
		c->times.exec = le64_make(s.exec_tsc);
		if (result < 0)
			*exit_code = spawn_explain(&s, why);
	}
	for (unsigned i = 0; i < 3; i++) {
		if (theirs[i] >= 0)
			close(theirs[i]);
	}
	return result;
}

void command_run(const uint8_t *body, uint32_t length)
{
	struct agent_run m;
	if (length < sizeof(m))
		die("control connection: a RUN message is too short", 0);
	memcpy(&m, body, sizeof(m));
	struct request r = { .session = le32_get(m.session), .flags = le32_get(m.flags),
			     .rows = le16_get(m.rows), .columns = le16_get(m.columns) };
	if (r.session >= AGENT_SESSIONS_MAX || commands[r.session])
		die("control connection: a RUN message has a bad session number", 0);

	struct text why = { 0 };
	uint32_t exit_code = 125;
	/* The message is ours to change: exec wants pointers to char. */
	char *strings_at = (char *)(uintptr_t)(body + sizeof(m));
	if (!request_parse(&r, strings_at, (const char *)body + length, &m)) {
		text_add(&why, "malformed RUN message");
		send_failed(r.session, EINVAL, exit_code, &why);
		return;
	}
	struct command *c = command_create(&r);
	if (!c) {
		text_add(&why, "out of memory");
		send_failed(r.session, ENOMEM, exit_code, &why);
		return;
	}
	if (*r.hostname)
		platform_set_hostname(r.hostname);
	const pid_t pid = command_start(c, &r, &why, &exit_code);
	if (pid < 0) {
		send_failed(r.session, -pid, exit_code, &why);
		command_free(c);
		return;
	}
	c->pid = pid;
	const struct agent_started started = { le32_make(r.session), le32_make((uint32_t)pid) };
	wire_send(AGENT_STARTED, &started, sizeof(started), NULL, 0);
	pump_watch(c);
}

/* ---- life and end ------------------------------------------------------------------------------------------------------------ */

/* All but the main command's: whose ends nobody waits for any more. */
static void end_others(void)
{
	const struct timespec pause = { .tv_nsec = 1000000 };
	for (unsigned ms = 0; ms < AGENT_END_OTHERS_MS && platform_kill_others(); ms++) {
		pid_t pid;
		do
			pid = waitpid(-1, NULL, WNOHANG);
		while (pid > 0);
		if (pid < 0)
			return;
		nanosleep(&pause, NULL);
	}
}

/* After any change: sends EXITED when all output has been sent (closing a connection sends its half close first). */
static void command_settle(struct command *c)
{
	if (!c->exited || pump_has_output(c)) {
		pump_watch(c);
		return;
	}
	for (unsigned i = 0; i < ENDS; i++)
		end_close(&c->ends[i]);
	if (c->flags & AGENT_RUN_END_OTHERS && c->session == 0)
		end_others();
	if (c->flags & AGENT_RUN_SYNC) {
		sync();
		/* The machine ends with its main command. */
		if (c->session == 0)
			platform_settle_disks();
	}
	if (c->flags & AGENT_RUN_TIMES) {
		c->times.session = le32_make(c->session);
		c->times.init = le64_make(agent_began_tsc);
		wire_send(AGENT_TIMES, &c->times, sizeof(c->times), NULL, 0);
	}
	const struct agent_exited exited = { le32_make(c->session), le32_make((uint32_t)c->wait_status) };
	wire_send(AGENT_EXITED, &exited, sizeof(exited), NULL, 0);
	command_free(c);
}

void command_event(uint64_t tag, uint32_t events)
{
	struct command *c = command_find((uint32_t)(tag >> 3) & (AGENT_SESSIONS_MAX - 1));
	if (!c || c->generation != (uint32_t)(tag >> 16))
		return;
	pump_event(c, (unsigned)(tag & 7), events);
	command_settle(c);
}

void command_reaped(pid_t pid, int wait_status)
{
	for (unsigned i = 0; i < commands_top; i++) {
		struct command *c = commands[i];
		if (!c || c->pid != pid)
			continue;
		c->pid = 0;
		c->exited = true;
		c->times.exited = le64_make(__rdtsc());
		c->wait_status = wait_status;
		pump_drain(c);
		command_settle(c);
		return;
	}
}

/*
 * To the command's own process, as `docker kill` does. But what the keyboard would send goes to its whole group, as the keyboard
 * would: a shell that waits for a child leaves Ctrl-C to the child. (Keys of a pty do not come this way at all.)
 */
void command_signal(uint32_t session, uint32_t signal)
{
	const struct command *c = command_find(session);
	if (!c || !c->pid || signal < 1 || signal > 64)
		return;
	kill(signal == SIGINT || signal == SIGQUIT ? -c->pid : c->pid, (int)signal);
}

void command_window(uint32_t session, uint16_t rows, uint16_t columns)
{
	const struct command *c = command_find(session);
	if (c && c->flags & AGENT_RUN_TERMINAL && c->ends[END_LOCAL(AGENT_STDIN)].fd >= 0)
		spawn_set_window(c->ends[END_LOCAL(AGENT_STDIN)].fd, rows, columns);
}
