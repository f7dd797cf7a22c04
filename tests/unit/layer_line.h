/*
 * Layers in a small language: a line of items.
 *
 *   d/       a directory            f=text   a regular file
 *   s->to    a symbolic link        h=>to    a hard link
 *   p|       a fifo
 *   @700     behind any: its mode, when it is not 0755 for directories and 0644 for others
 *   %9       behind that: its time of modification
 */
#ifndef TRVMM_TESTS_UNIT_LAYER_LINE_H
#define TRVMM_TESTS_UNIT_LAYER_LINE_H

#include "test_layers_util.h"

static inline void add_word(struct archive *a, char *word)
{
	char octal[8] = "", time[16] = "00000000000";
	char *seconds = strchr(word, '%');
	if (seconds) {
		*seconds++ = '\0';
		snprintf(time, sizeof(time), "%011lo", strtoul(seconds, NULL, 10) & 07777777777);
	}
	char *mode = strchr(word, '@');
	if (mode) {
		*mode++ = '\0';
		snprintf(octal, sizeof(octal), "%07o", (unsigned)strtoul(mode, NULL, 8) & 07777);
	}
	const char *field = mode ? octal : NULL;
	char *hard = strstr(word, "=>"), *soft = strstr(word, "->"), *text = strchr(word, '='), *fifo = strchr(word, '|');
	if (hard) {
		*hard = '\0';
		ADD(a, .name = word, .type = '1', .link = hard + 2);
	} else if (soft) {
		*soft = '\0';
		ADD(a, .name = word, .type = '2', .link = soft + 2, .mode = "0000777", .mtime = time);
	} else if (text) {
		*text = '\0';
		ADD(a, .name = word, .type = '0', .text = text + 1, .mode = field, .mtime = time);
	} else if (fifo) {
		*fifo = '\0';
		ADD(a, .name = word, .type = '6', .mode = field, .mtime = time);
	} else {
		ADD(a, .name = word, .type = '5', .mode = field, .mtime = time);
	}
}

static inline struct archive archive_of(const char *line)
{
	struct archive a = { 0 };
	char *copy = strdup(line), *rest = copy;
	for (char *word; (word = strtok_r(rest, " ", &rest));)
		add_word(&a, word);
	archive_end(&a);
	free(copy);
	return a;
}

#endif
