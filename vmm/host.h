/*
 * What this host can do for guests, and what to say when it cannot.
 *
 * A /dev/kvm may exist on a processor without VMX or SVM: then KVM is some software emulation, under which Linux guests do not
 * run (their ring-3 code and SSE instructions are not handled), while small freestanding ones may.
 */
#ifndef TRVMM_VMM_HOST_H
#define TRVMM_VMM_HOST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/* Opens /dev/kvm and checks its version. Returns the descriptor, or -errno with one line that tells the mend. */
int host_open_kvm(struct error *err);

/* Whether the processor shows VMX or SVM (which a hypervisor above us may pass on). */
bool host_has_hardware_virtualization(void);

/* Memory of the host in bytes, all and what could be used now; 0 when unknown. */
uint64_t host_memory_total(void);
uint64_t host_memory_available(void);

/*
 * `trvmm doctor`: prints a line for each thing that guests need, `ok` or what is wrong and how to mend it. `kernel` is checked too
 * (NULL: the default kernel was not found). Returns 0 when Linux guests can run here, else 1.
 */
int host_doctor(const char *kernel);

#endif
