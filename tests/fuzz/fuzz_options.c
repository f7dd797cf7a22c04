/*
 * libFuzzer target: the words of a user that are parsed. The first byte chooses: the command line (words end at NUL), a file of variables,
 * an address or a rule of a port, a size. Checked: a refusal has one line that says why, what is accepted keeps to the bounds that are
 * documented.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/fuzz/input.h"
#include "tests/unit/fake_kernel.h"
#include "vmm/env_file.h"
#include "vmm/layout.h"
#include "vmm/options.h"
#include "vmm/ports.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define WORDS_MAX 64

static void one_line(int result, const struct error *err)
{
	assert((result == 0) == (err->text[0] == '\0'));
	assert(!strchr(err->text, '\n'));
}

static void command_line(char *words, size_t length)
{
	char *argv[WORDS_MAX + 2] = { (char *)(uintptr_t) "trvmm" };
	struct options options;
	struct error err = { "" };
	int argc = 1;

	for (char *at = words; at < words + length && argc <= WORDS_MAX; at += strlen(at) + 1)
		argv[argc++] = at;
	const int result = options_parse(argc, argv, &options, &err);
	one_line(result, &err);
	if (result == 0 && !options.help && !options.version) {
		assert(options.cpus >= 1 && options.cpus <= LAYOUT_CPUS_MAX);
		assert(options.memory_bytes % 4096 == 0 && options.memory_bytes);
		assert(options.port_count <= PORTS_MAX);
		for (size_t i = 0; i < options.env_count; i++)
			assert(strchr(options.env[i], '='));
		assert(!options.env[options.env_count]);
	}
	options_destroy(&options);
}

static int take_variable(void *data, const char *variable, struct error *err)
{
	(void)data;
	(void)err;
	const char *equals = strchr(variable, '=');
	assert(equals && equals > variable && !strchr(variable, '\n'));
	return 0;
}

static void env_file(const char *bytes, size_t length)
{
	struct error err = { "" };
	struct fake_file file;
	fake_file_make(&file, bytes, length);
	const int result = env_file_read(file.path, take_variable, NULL, &err);
	one_line(result, &err);
	close(file.fd);
}

static void port(const char *text)
{
	struct port_rule rule = { .guest_port = 0 };
	struct port_address address;
	struct error err = { "" };
	int result = port_rule_parse(text, &rule, &err);
	one_line(result, &err);
	assert(result < 0 || (rule.guest_port >= 1 && rule.guest_port <= 65535 && rule.address.length));
	err.text[0] = '\0';
	result = port_address_parse(text, &address, &err);
	one_line(result, &err);
	assert(result < 0 || address.any.sa_family == AF_INET || address.any.sa_family == AF_INET6);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	/* A block of its own for the words, and one NUL behind them. */
	char *words = malloc(size);
	assert(words);
	memcpy(words, data + 1, size - 1);
	words[size - 1] = '\0';
	uint64_t bytes;
	switch (data[0] % 4) {
	case 0:
		env_file(words, size - 1);
		break;
	case 1:
		port(words);
		break;
	case 2:
		(void)options_parse_size(words, &bytes);
		break;
	default:
		command_line(words, size);
		break;
	}
	free(words);
	return 0;
}
