/* --io-limit and --cpu-quota; see limits.h. */
#include "vmm/limits.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vmm/options.h"

#define BURST_MAX_S 60u
#define SECOND_NS 1000000000u
#define LEAST_THOUSANDTHS 10u

static bool take_word(const char *word, struct throttle_limit *limit)
{
	uint64_t value;
	const char *equals = strchr(word, '=');
	if (!equals || options_parse_size(equals + 1, &value) < 0 || value == 0)
		return false;
	const size_t length = (size_t)(equals - word);
	if (length == 5 && !strncmp(word, "bytes", length))
		limit->bytes_per_s = value;
	else if (length == 3 && !strncmp(word, "ops", length))
		limit->ops_per_s = value;
	else if (length == 5 && !strncmp(word, "burst", length) && value <= BURST_MAX_S)
		limit->burst_ns = value * SECOND_NS;
	else
		return false;
	return true;
}

int limits_parse_io(const char *text, struct throttle_limit *limit, struct error *err)
{
	struct throttle_limit made = { .burst_ns = 0 };
	char copy[128];
	bool good = strlen(text) < sizeof(copy);
	snprintf(copy, sizeof(copy), "%s", text);
	char *rest = copy;
	for (char *word; good && (word = strsep(&rest, ","));)
		good = take_word(word, &made);
	if (!good || (!made.bytes_per_s && !made.ops_per_s))
		return error_set(
		    err, -EINVAL,
		    "--io-limit '%s': give bytes=SIZE or ops=N a second, or both with a comma between, and burst=SECONDS if "
		    "1 is not meant",
		    text);
	*limit = made;
	return 0;
}

int limits_parse_cpu(const char *text, unsigned cpus_max, unsigned *thousandths, struct error *err)
{
	static const unsigned places[] = { 100, 10, 1 };
	const char *at = text;
	unsigned value = 0, place = 0;
	for (; isdigit((unsigned char)*at) && value <= cpus_max; at++)
		value = 10 * value + (unsigned)(*at - '0');
	bool good = at > text && value <= cpus_max;
	value *= 1000;
	if (good && *at == '.')
		for (at++; isdigit((unsigned char)*at) && place < 3; at++)
			value += (unsigned)(*at - '0') * places[place++];
	if (!good || *at || value < LEAST_THOUSANDTHS || value > 1000 * cpus_max)
		return error_set(err, -EINVAL, "--cpu-quota '%s': give a number of processors such as 0.5, from 0.01 to %u", text,
				 cpus_max);
	*thousandths = value;
	return 0;
}
