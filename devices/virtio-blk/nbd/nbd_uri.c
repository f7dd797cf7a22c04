/* See nbd_uri.h. The syntax is that of RFC 3986. */
#include "devices/virtio-blk/nbd/nbd_uri.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_HOST "localhost"
#define DEFAULT_PORT "10809"
#define SOCKET_PARAMETER "socket="

/* A part of the text: half open. */
struct part {
	const char *begin, *end;
};

static struct part up_to(const char **at, const char *stops)
{
	const struct part part = { *at, *at + strcspn(*at, stops) };
	*at = part.end;
	return part;
}

/* Takes %XX for the byte that it stands for. False: it does not fit, or no byte of a name is meant. */
static bool decode(struct part from, char *to, size_t size)
{
	size_t length = 0;
	for (const char *at = from.begin; at < from.end; at++) {
		char byte = *at;
		if (byte == '%') {
			if (from.end - at < 3 || !isxdigit((unsigned char)at[1]) || !isxdigit((unsigned char)at[2]))
				return false;
			byte = (char)strtoul((const char[]){ at[1], at[2], '\0' }, NULL, 16);
			at += 2;
		}
		if (byte == '\0' || length + 1 >= size)
			return false;
		to[length++] = byte;
	}
	to[length] = '\0';
	return true;
}

/* One of the four that there are. Returns what follows the "://", or NULL. */
static const char *take_scheme(const char *text, bool *tls, bool *is_unix)
{
	if (strncmp(text, "nbd", 3) != 0)
		return NULL;
	text += 3;
	*tls = *text == 's';
	text += *tls;
	*is_unix = !strncmp(text, "+unix", 5);
	text += *is_unix ? 5 : 0;
	return strncmp(text, "://", 3) ? NULL : text + 3;
}

/* [USER@]HOST[:PORT] */
static bool take_authority(struct part all, struct nbd_uri *uri)
{
	for (const char *at = all.begin; at < all.end; at++)
		if (*at == '@')
			all.begin = at + 1;
	struct part host = all, port = { all.end, all.end };
	const bool brackets = host.begin < host.end && *host.begin == '[';
	const char *search = all.begin;
	if (brackets) {
		search = memchr(all.begin, ']', (size_t)(all.end - all.begin));
		if (!search)
			return false;
		host = (struct part){ all.begin + 1, search++ };
	}
	const char *colon = memchr(search, ':', (size_t)(all.end - search));
	if (brackets && search != (colon ? colon : all.end))
		return false;
	if (colon) {
		if (!brackets)
			host.end = colon;
		port.begin = colon + 1;
	}
	for (const char *at = port.begin; at < port.end; at++)
		if (!isdigit((unsigned char)*at))
			return false;
	if (!decode(host, uri->host, sizeof(uri->host)) || !decode(port, uri->port, sizeof(uri->port)))
		return false;
	if (!*uri->host)
		strcpy(uri->host, DEFAULT_HOST);
	if (!*uri->port)
		strcpy(uri->port, DEFAULT_PORT);
	const unsigned long number = strtoul(uri->port, NULL, 10);
	return number > 0 && number <= 65535;
}

/* The socket's path, if there is one among the parameters. */
static bool take_parameters(const char *at, struct nbd_uri *uri)
{
	while (*at && *at != '#') {
		struct part parameter = up_to(&at, "&;#");
		at += *at && *at != '#';
		if (strncmp(parameter.begin, SOCKET_PARAMETER, strlen(SOCKET_PARAMETER)) != 0)
			continue;
		parameter.begin += strlen(SOCKET_PARAMETER);
		if (!decode(parameter, uri->path, sizeof(uri->path)))
			return false;
	}
	return true;
}

int nbd_uri_parse(const char *text, struct nbd_uri *uri, const char **why)
{
	bool is_unix = false;
	*uri = (struct nbd_uri){ .tls = false };
	const char *at = take_scheme(text, &uri->tls, &is_unix);
	*why = "it is no URI of a network block device";
	if (!at)
		return -EINVAL;
	const struct part authority = up_to(&at, "/?#");
	*why = "its host or port is none";
	if (!take_authority(authority, uri))
		return -EINVAL;
	at += *at == '/';
	const struct part name = up_to(&at, "?#");
	*why = "its export has a name that no export can have";
	if (!decode(name, uri->export_name, sizeof(uri->export_name)))
		return -EINVAL;
	*why = "its socket has a path that no socket can have";
	if (*at == '?' && !take_parameters(at + 1, uri))
		return -EINVAL;
	*why = "nbd+unix:// takes ?socket=PATH, and nbd:// does not";
	return is_unix == (*uri->path != '\0') ? 0 : -EINVAL;
}
