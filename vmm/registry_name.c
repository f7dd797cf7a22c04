/* Names of machines; see registry.h. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "vmm/registry_internal.h"

int registry_check_name(const char *name, struct error *err)
{
	const size_t length = strlen(name);
	bool good = length >= 1 && length <= REGISTRY_NAME_MAX && isalnum((unsigned char)name[0]);
	for (size_t i = 0; good && i < length; i++)
		good = isalnum((unsigned char)name[i]) || strchr("_.-", name[i]);
	if (good)
		return 0;
	char quoted[128];
	error_quote(quoted, sizeof(quoted), name, length);
	return error_set(err, -EINVAL,
			 "'%s' is no name for a machine: give a letter or digit, then up to %d of these and '_', '.', '-'", quoted,
			 REGISTRY_NAME_MAX - 1);
}

void registry_random_name(char *name, size_t size, const char *prefix)
{
	uint32_t number;
	while (getrandom(&number, sizeof(number), 0) != (ssize_t)sizeof(number))
		;
	snprintf(name, size, "%s%08x", prefix, number);
}
