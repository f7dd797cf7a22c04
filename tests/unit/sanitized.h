/* For tests that close the sandbox: a sanitizer's runtime makes system calls of its own (sigaltstack(), for one), which no list has. */
#ifndef TRVMM_TESTS_UNIT_SANITIZED_H
#define TRVMM_TESTS_UNIT_SANITIZED_H

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SKIP_WHERE_SANITIZED() cr_skip_test("the sandbox does not let a sanitizer's runtime do its work")
#else
#define SKIP_WHERE_SANITIZED() (void)0
#endif

#endif
