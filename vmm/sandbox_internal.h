/* What the files of the sandbox share; see sandbox.h. Each of these puts on one or a few layers and fills in their lines of the report. */
#ifndef TRVMM_VMM_SANDBOX_INTERNAL_H
#define TRVMM_VMM_SANDBOX_INTERNAL_H

#include "vmm/sandbox.h"

/* ---- sandbox_calls.h, sandbox_compile.c ---- */

#define SANDBOX_CONDITIONS_MAX 3

/* An argument's bits under the mask must be the value. A mask of 0: no condition; its value is the errno of a call that is refused so. */
struct sandbox_condition {
	unsigned argument;
	uint64_t mask;
	uint64_t value;
};

struct sandbox_call {
	unsigned kinds; /* bits of enum sandbox_kind */
	const char *name;
	struct sandbox_condition conditions[SANDBOX_CONDITIONS_MAX];
	const char *why;
};

/* What stands in the compiled programs for the number of the process. No call has such an argument. */
#define SANDBOX_OWN_PID 0x6f75725fu

/* ---- sandbox_filter.c ---- */

/* The process that threads may signal, and what happens to others' calls. Before any install. */
void sandbox_filter_init(enum sandbox_action action);
/* Installs the program of `kind`; on all threads when `everywhere`. Returns 0 or -errno. */
int sandbox_filter_install(enum sandbox_kind kind, bool everywhere);
const struct sock_fprog *sandbox_filter_reaper(void);
/* Whether the kernel has seccomp programs. */
bool sandbox_filter_is_possible(void);

/* ---- the layers ---- */

void sandbox_report_on(struct sandbox_report *report, enum sandbox_layer layer, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* `error` is an errno, 0: not worth telling. */
void sandbox_report_off(struct sandbox_report *report, enum sandbox_layer layer, int error, const char *why);

/* sandbox_descriptors.c, which has sandbox_close_descriptors(), too */
/* Makes the directories mounts of their own, so that ".." leads nowhere. In the new mount namespace, before the old root is left. */
void sandbox_detach_directories(const struct sandbox_spec *spec);

/* sandbox_namespaces.c. `without`: bits of layers. */
void sandbox_enter_namespaces(const struct sandbox_spec *spec, struct sandbox_report *report);

/* sandbox_privileges.c */
/* Capabilities that threads of these directories need are kept until they enter their kind. Returns 0, or -errno with one line. */
int sandbox_drop_privileges(const struct sandbox_spec *spec, struct sandbox_report *report, struct error *err);
void sandbox_drop_capabilities_of(enum sandbox_kind kind);
int sandbox_set_no_new_privs(struct sandbox_report *report);
/* Of root: reads and enters what it could before, and that is all. */
void sandbox_keep_reading(void);
/* `data_bytes`: what the process has taken already, from sandbox_data_bytes(), which reads /proc; 0: unknown. */
void sandbox_set_limits(uint64_t data_bytes, struct sandbox_report *report);
uint64_t sandbox_data_bytes(void);

/* sandbox_landlock.c */
void sandbox_restrict_files(const struct sandbox_spec *spec, struct sandbox_report *report);
/* Files can be read as before, and connections made. Returns 0 or -errno. */
int sandbox_restrict_changes(void);

#endif
