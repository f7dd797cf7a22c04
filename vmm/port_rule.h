/* What -p and `trvmm proxy --tcp` name: a TCP address of this host, and a port behind it. Words to structures, no sockets. */
#ifndef TRVMM_VMM_PORT_RULE_H
#define TRVMM_VMM_PORT_RULE_H

#include <netinet/in.h>
#include <stdint.h>

#include "base/error.h"

struct port_address {
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	};
	socklen_t length;
	char text[INET6_ADDRSTRLEN + 16]; /* ADDR:PORT, for messages */
};

struct port_rule {
	struct port_address address;
	uint32_t guest_port;
};

/*
 * Parses "[ADDR:]PORT"; ADDR is an IPv4 address or an IPv6 address in brackets, by default 127.0.0.1, PORT from 1 to 65535. Names are not
 * resolved. Returns 0, or -EINVAL with one line.
 */
int port_address_parse(const char *text, struct port_address *address, struct error *err);

/* Parses "[ADDR:]HOSTPORT:GUESTPORT". Returns 0, or -EINVAL with one line. */
int port_rule_parse(const char *text, struct port_rule *rule, struct error *err);

/* A decimal number from 1 to `most`, and nothing else. Returns 0 for what is none. */
uint32_t port_number_parse(const char *text, uint32_t most);

#endif
