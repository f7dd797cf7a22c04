/* What a target asks for beyond "no crash"; ends the run with a line that says what is not so. */
#ifndef TRVMM_TESTS_FUZZ_REQUIRE_H
#define TRVMM_TESTS_FUZZ_REQUIRE_H

#include <stdio.h>
#include <stdlib.h>

static inline void require(int condition, const char *what)
{
	if (condition)
		return;
	fprintf(stderr, "not so: %s\n", what);
	abort();
}

#define REQUIRE(condition) require((condition) != 0, #condition)

#endif
