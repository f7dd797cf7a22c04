/*
 * libFuzzer target: URIs of network block devices. Checked: a refusal says why; what is accepted keeps to the sizes and kinds that
 * nbd_uri.h has; and written anew, with each byte as %XX, it means the same.
 */
#include <stdint.h>
#include <string.h>

#include "devices/virtio-blk/disk_nbd.h"
#include "devices/virtio-blk/nbd/nbd_uri.h"
#include "tests/fuzz/require.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define TEXT_BYTES (3 * sizeof(struct nbd_uri) + 64)

static void add(char *text, const char *more)
{
	strcat(text, more);
}

static void add_encoded(char *text, const char *bytes)
{
	char *at = text + strlen(text);
	for (; *bytes; bytes++, at += 3)
		sprintf(at, "%%%02x", (unsigned)(unsigned char)*bytes);
}

static void write_uri(const struct nbd_uri *uri, char text[TEXT_BYTES])
{
	sprintf(text, "nbd%s%s://", uri->tls ? "s" : "", *uri->path ? "+unix" : "");
	add_encoded(text, uri->host);
	add(text, ":");
	add(text, uri->port);
	add(text, "/");
	add_encoded(text, uri->export_name);
	if (*uri->path)
		add(text, "?socket=");
	add_encoded(text, uri->path);
}

static void check_accepted(const char *text, const struct nbd_uri *uri)
{
	static char written[TEXT_BYTES];
	struct nbd_uri again;
	const char *why;
	const char *scheme_end = strstr(text, "://");
	const unsigned long port = strtoul(uri->port, NULL, 10);
	REQUIRE(memchr(uri->path, '\0', sizeof(uri->path)) && memchr(uri->host, '\0', sizeof(uri->host)));
	REQUIRE(memchr(uri->port, '\0', sizeof(uri->port)) && memchr(uri->export_name, '\0', sizeof(uri->export_name)));
	REQUIRE(*uri->host && port >= 1 && port <= 65535 && strspn(uri->port, "0123456789") == strlen(uri->port));
	/* Whom the caller takes for a network block device, and who connects how, is the same question. */
	REQUIRE(scheme_end && disk_nbd_is_uri(text));
	REQUIRE(uri->tls == (text[3] == 's') && (*uri->path != '\0') == (scheme_end[-1] == 'x'));
	write_uri(uri, written);
	REQUIRE(nbd_uri_parse(written, &again, &why) == 0);
	REQUIRE(again.tls == uri->tls && !strcmp(again.path, uri->path) && !strcmp(again.host, uri->host));
	REQUIRE(!strcmp(again.port, uri->port) && !strcmp(again.export_name, uri->export_name));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct nbd_uri uri;
	const char *why = NULL;
	char *text = malloc(size + 1);
	require(text != NULL, "memory");
	memcpy(text, data, size);
	text[size] = '\0';
	if (nbd_uri_parse(text, &uri, &why) == 0)
		check_accepted(text, &uri);
	else
		REQUIRE(why && *why);
	free(text);
	return 0;
}
