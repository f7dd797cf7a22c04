/*
 * Who a command runs as: NAME, UID, NAME:GROUP, UID:GID resolved with the guest's /etc/passwd and /etc/group, by docker's rules.
 *
 * The files are the image's, so they are read as what they may be: missing, huge, binary. A line longer than the buffer is skipped.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "guest/agent/agent.h"

#define LINE_BYTES 16384 /* groups may have many members */
#define FIELDS 7

struct lines {
	int fd;
	bool skipping;        /* the rest of a line that was too long */
	size_t start, stop;
	char buffer[LINE_BYTES];
};

/* The next whole line, terminated in place, or NULL at the end. */
static char *lines_next(struct lines *l)
{
	for (;;) {
		char *line = l->buffer + l->start;
		char *end = memchr(line, '\n', l->stop - l->start);
		if (end) {
			*end = '\0';
			l->start = (size_t)(end + 1 - l->buffer);
			if (!l->skipping)
				return line;
			l->skipping = false;
			continue;
		}
		memmove(l->buffer, line, l->stop - l->start);
		l->stop -= l->start;
		l->start = 0;
		if (l->stop == LINE_BYTES - 1) {
			l->skipping = true;
			l->stop = 0;
		}
		const ssize_t n = read(l->fd, l->buffer + l->stop, LINE_BYTES - 1 - l->stop);
		if (n > 0) {
			l->stop += (size_t)n;
			continue;
		}
		/* The last line may lack its end. */
		if (l->skipping || !l->stop)
			return NULL;
		l->buffer[l->stop] = '\0';
		l->stop = 0;
		return l->buffer;
	}
}

static unsigned split(char *line, char *fields[FIELDS])
{
	unsigned count = 0;
	while (line && count < FIELDS) {
		fields[count++] = line;
		line = strchr(line, ':');
		if (line)
			*line++ = '\0';
	}
	return count;
}

/* A decimal number below 2^32 - 1 (which setuid takes for "no change"), and nothing else. */
static bool parse_id(const char *s, uint32_t *id)
{
	uint64_t value = 0;
	if (!*s)
		return false;
	for (; *s; s++) {
		if (*s < '0' || *s > '9')
			return false;
		value = value * 10 + (uint64_t)(*s - '0');
		if (value >= UINT32_MAX)
			return false;
	}
	*id = (uint32_t)value;
	return true;
}

/* Is `name` one of the comma-separated members? */
static bool has_member(const char *members, const char *name)
{
	const size_t length = strlen(name);
	while (members) {
		if (!strncmp(members, name, length) && (members[length] == ',' || members[length] == '\0'))
			return true;
		members = strchr(members, ',');
		if (members)
			members++;
	}
	return false;
}

static bool lines_open(struct lines *l, const char *path)
{
	l->start = l->stop = 0;
	l->skipping = false;
	l->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	return l->fd >= 0;
}

static struct lines lines;

/* Finds the passwd entry by number or, when `name` is none, by name; its name goes to `login`. */
static bool find_passwd(const char *path, const char *name, struct user *user, char login[64])
{
	uint32_t id = 0;
	const bool numeric = parse_id(name, &id);
	bool found = false;
	if (!lines_open(&lines, path))
		return false;
	for (char *line = lines_next(&lines); line && !found; line = lines_next(&lines)) {
		char *f[FIELDS];
		uint32_t uid, gid;
		const unsigned count = split(line, f);
		if (count < 4 || !parse_id(f[2], &uid) || !parse_id(f[3], &gid))
			continue;
		if (numeric ? uid != id : strcmp(f[0], name) != 0)
			continue;
		found = true;
		user->uid = uid;
		user->gid = gid;
		if (count >= 6 && strlen(f[5]) < sizeof(user->home))
			strcpy(user->home, f[5]);
		if (strlen(f[0]) < 64)
			strcpy(login, f[0]);
	}
	close(lines.fd);
	return found;
}

/* Finds a group by number or name. */
static bool find_group(const char *path, const char *name, uint32_t *gid)
{
	uint32_t id = 0, this_gid;
	const bool numeric = parse_id(name, &id);
	bool found = false;
	if (!lines_open(&lines, path))
		return false;
	for (char *line = lines_next(&lines); line && !found; line = lines_next(&lines)) {
		char *f[FIELDS];
		if (split(line, f) < 3 || !parse_id(f[2], &this_gid))
			continue;
		if (numeric ? this_gid != id : strcmp(f[0], name) != 0)
			continue;
		found = true;
		*gid = this_gid;
	}
	close(lines.fd);
	return found;
}

/* The groups that list `login`. */
static int find_memberships(const char *path, const char *login, struct user *user)
{
	int result = 0;
	if (!lines_open(&lines, path))
		return 0;
	for (char *line = lines_next(&lines); line; line = lines_next(&lines)) {
		char *f[FIELDS];
		uint32_t gid;
		if (split(line, f) < 4 || !parse_id(f[2], &gid) || !has_member(f[3], login))
			continue;
		if (user->group_count == USER_GROUPS_MAX) {
			result = -E2BIG;
			break;
		}
		user->groups[user->group_count++] = gid;
	}
	close(lines.fd);
	return result;
}

static int refuse(struct text *why, const char *kind, const char *name, const char *reason, int result)
{
	text_add(why, kind);
	text_add(why, " \"");
	text_add(why, name);
	text_add(why, "\": ");
	text_add(why, reason);
	return result;
}

int user_resolve(const char *spec, const char *passwd_path, const char *group_path, struct user *user, struct text *why)
{
	char name[256], login[64] = "";
	const char *colon = strchr(spec, ':');
	const size_t length = colon ? (size_t)(colon - spec) : strlen(spec);
	if (length >= sizeof(name))
		return refuse(why, "user", spec, "the name is too long", -EINVAL);
	memcpy(name, spec, length);
	name[length] = '\0';
	const char *group = colon && colon[1] ? colon + 1 : NULL;

	memset(user, 0, sizeof(*user));
	if (!length)
		strcpy(name, "0"); /* ":GROUP" */
	if (!find_passwd(passwd_path, name, user, login) && !parse_id(name, &user->uid))
		return refuse(why, "user", name, "no such name in /etc/passwd", -ENOENT);
	if (group) {
		if (!find_group(group_path, group, &user->gid) && !parse_id(group, &user->gid))
			return refuse(why, "group", group, "no such name in /etc/group", -ENOENT);
		return 0;
	}
	if (*login && find_memberships(group_path, login, user) < 0)
		return refuse(why, "user", name, "is a member of too many groups", -E2BIG);
	return 0;
}
