/* See port_rule.h. */
#include "vmm/port_rule.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define TEXT_BYTES (INET6_ADDRSTRLEN + 16)

uint32_t port_number_parse(const char *text, uint32_t most)
{
	uint64_t value = 0;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return 0;
		value = value * 10 + (uint64_t)(*text - '0');
		if (value > most)
			return 0;
	}
	return (uint32_t)value;
}

static int refuse(struct error *err, const char *text, const char *why)
{
	char quoted[128];
	return error_set(err, -EINVAL, "'%s': %s", error_quote(quoted, sizeof(quoted), text, strlen(text)), why);
}

/* `name` is changed. */
static bool parse_name(char *name, uint16_t port, struct port_address *address)
{
	const size_t length = strlen(name);
	if (name[0] == '[' && name[length - 1] == ']') {
		name[length - 1] = '\0';
		address->v6 = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = htons(port) };
		address->length = sizeof(address->v6);
		return inet_pton(AF_INET6, name + 1, &address->v6.sin6_addr) == 1;
	}
	address->v4 = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(port) };
	address->length = sizeof(address->v4);
	return inet_pton(AF_INET, name, &address->v4.sin_addr) == 1;
}

/* Parses the first `length` bytes of `whole`, which is for the message. */
static int parse_address(const char *whole, size_t length, struct port_address *address, struct error *err)
{
	char text[TEXT_BYTES];
	if (length >= sizeof(text))
		return refuse(err, whole, "that is no IP address and port; give one such as 127.0.0.1, or [::1]");
	memcpy(text, whole, length);
	text[length] = '\0';
	char *colon = strrchr(text, ':');
	const uint32_t port = port_number_parse(colon ? colon + 1 : text, UINT16_MAX);
	if (!port)
		return refuse(err, whole, "ports are numbers from 1 to 65535");
	if (colon)
		*colon = '\0';
	else
		strcpy(text, "127.0.0.1");
	snprintf(address->text, sizeof(address->text), "%.*s:%u", INET6_ADDRSTRLEN + 2, text, port);
	if (!parse_name(text, (uint16_t)port, address))
		return refuse(err, whole, "before the port stands an IP address of this host, such as 127.0.0.1, 0.0.0.0 or [::1]");
	return 0;
}

int port_address_parse(const char *text, struct port_address *address, struct error *err)
{
	return parse_address(text, strlen(text), address, err);
}

int port_rule_parse(const char *text, struct port_rule *rule, struct error *err)
{
	const char *colon = strrchr(text, ':');
	if (!colon || strchr(colon, ']'))
		return refuse(err, text, "give [ADDR:]HOSTPORT:GUESTPORT");
	rule->guest_port = port_number_parse(colon + 1, UINT16_MAX);
	if (!rule->guest_port)
		return refuse(err, text, "ports are numbers from 1 to 65535");
	return parse_address(text, (size_t)(colon - text), &rule->address, err);
}
