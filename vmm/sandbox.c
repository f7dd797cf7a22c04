/* The sandbox as a whole; see sandbox.h. */
#include "vmm/sandbox.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/sandbox_internal.h"

#define EXIT_TRVMM 125

/* Of the process: it is closed once, and never opened again. */
static bool closed, filtered;

bool sandbox_is_closed(void)
{
	return closed;
}

const char *sandbox_layer_name(enum sandbox_layer layer)
{
	static const char *const names[] = {
		[SANDBOX_DESCRIPTORS] = "descriptors",
		[SANDBOX_USER_NAMESPACE] = "user namespace",
		[SANDBOX_MOUNT_NAMESPACE] = "mount namespace, empty root",
		[SANDBOX_NETWORK_NAMESPACE] = "network namespace",
		[SANDBOX_PID_NAMESPACE] = "pid namespace",
		[SANDBOX_IPC_NAMESPACE] = "ipc namespace",
		[SANDBOX_UTS_NAMESPACE] = "uts namespace",
		[SANDBOX_USER_ID] = "user id",
		[SANDBOX_CAPABILITIES] = "no capabilities",
		[SANDBOX_NO_NEW_PRIVS] = "no new privileges",
		[SANDBOX_LANDLOCK] = "Landlock",
		[SANDBOX_LIMITS] = "resource limits",
		[SANDBOX_NOT_DUMPABLE] = "not dumpable",
		[SANDBOX_SECCOMP] = "seccomp",
	};
	return names[layer];
}

const char *sandbox_kind_name(enum sandbox_kind kind)
{
	static const char *const names[] = {
		[SANDBOX_LOOP] = "event loop",     [SANDBOX_VCPU] = "vCPU",
		[SANDBOX_DISK] = "disk",           [SANDBOX_DISK_FILES] = "disk with host directories",
		[SANDBOX_FS] = "shared directory", [SANDBOX_RELAY] = "relay",
		[SANDBOX_REAPER] = "reaper",       [SANDBOX_KEEPER] = "keeper",
		[SANDBOX_NBD] = "NBD client",
	};
	return names[kind];
}

void sandbox_report_on(struct sandbox_report *report, enum sandbox_layer layer, const char *format, ...)
{
	va_list args;
	if (!report)
		return;
	report->layers[layer].on = true;
	va_start(args, format);
	vsnprintf(report->layers[layer].why, sizeof(report->layers[layer].why), format, args);
	va_end(args);
}

void sandbox_report_off(struct sandbox_report *report, enum sandbox_layer layer, int error, const char *why)
{
	if (!report)
		return;
	report->layers[layer].on = false;
	snprintf(report->layers[layer].why, sizeof(report->layers[layer].why), "%s%s%s", why, error ? ": " : "",
		 error ? strerror(error) : "");
}

/*
 * The order: what needs /proc before the root is left, what needs privileges before they are dropped, and Landlock, which allows no
 * mounting, behind the mounts.
 */
int sandbox_close(const struct sandbox_spec *spec, struct sandbox_report *report, struct error *err)
{
	const uint64_t data_bytes = sandbox_data_bytes();
	sandbox_filter_init(spec->action);
	sandbox_close_descriptors(report);
	sandbox_enter_namespaces(spec, report);
	int result = sandbox_drop_privileges(spec, report, err);
	if (result < 0)
		return result;
	result = sandbox_set_no_new_privs(report);
	if (result < 0)
		return error_set(err, result, "no_new_privs: %s; --no-sandbox runs the guest without any protection",
				 strerror(-result));
	if (!(spec->without & 1u << SANDBOX_LANDLOCK))
		sandbox_restrict_files(spec, report);
	sandbox_set_limits(data_bytes, report);
	if (!sandbox_filter_is_possible()) {
		sandbox_report_off(report, SANDBOX_SECCOMP, 0, "the kernel was built without it, or is older than 4.14");
		return error_set(err, -ENOSYS,
				 "the kernel has no seccomp filters; --no-sandbox runs the guest without any protection");
	}
	sandbox_report_on(report, SANDBOX_SECCOMP, "%s", "");
	closed = true;
	filtered = !(spec->without & 1u << SANDBOX_SECCOMP);
	return 0;
}

void sandbox_enter(enum sandbox_kind kind)
{
	if (!closed)
		return;
	sandbox_drop_capabilities_of(kind);
	const int result = filtered ? sandbox_filter_install(kind, false) : 0;
	if (result == 0)
		return;
	message("sandbox: the kernel takes no filter for a thread of kind '%s': %s", sandbox_kind_name(kind), strerror(-result));
	_exit(EXIT_TRVMM);
}

const struct sock_fprog *sandbox_reaper_program(void)
{
	return closed && filtered ? sandbox_filter_reaper() : NULL;
}

int sandbox_enter_keeper(void)
{
	sandbox_filter_init(SANDBOX_KILL);
	const int result = sandbox_set_no_new_privs(NULL);
	return result < 0 ? result : sandbox_filter_install(SANDBOX_KEEPER, true);
}

void sandbox_forbid_changes(void)
{
	(void)sandbox_set_no_new_privs(NULL);
	sandbox_keep_reading();
	(void)sandbox_restrict_changes();
}
