/*
 * What a vCPU's CPUID answers: what KVM supports here, with the topology of this machine (one package of single-threaded cores) and
 * the vCPU's own APIC id. Leaf numbers as in Intel's SDM volume 2A, CPUID, and AMD's APM volume 3, appendix E.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vmm/machine_internal.h"

#define ENTRIES_MAX 256

#define MSR_IA32_MISC_ENABLE 0x1a0
#define MISC_ENABLE_FAST_STRING 1ull
#define MSR_MTRR_DEF_TYPE 0x2ff
#define MTRR_ENABLE_WRITE_BACK 0x806ull

static unsigned bits_for(unsigned count)
{
	unsigned bits = 0;
	while (1u << bits < count)
		bits++;
	return bits;
}

/* Leaves 0xb and 0x1f: level 0 is threads (one), level 1 cores. */
static void topology_leaf(struct kvm_cpuid_entry2 *entry, unsigned index, unsigned cpus)
{
	entry->eax = entry->ebx = 0;
	entry->ecx = entry->index;
	entry->edx = index;
	if (entry->index == 0) {
		entry->ebx = 1;
		entry->ecx |= 1u << 8;
	} else if (entry->index == 1) {
		entry->eax = bits_for(cpus);
		entry->ebx = cpus;
		entry->ecx |= 2u << 8;
	}
}

static void adapt(struct kvm_cpuid_entry2 *entry, const struct machine *machine, unsigned index, bool tsc_deadline)
{
	const unsigned cpus = machine->config.cpus;

	switch (entry->function) {
	case 1:
		entry->ebx = (entry->ebx & 0x0000ffff) | index << 24 | cpus << 16;
		entry->ecx |= 1u << 31; /* a hypervisor is there */
		if (tsc_deadline)
			entry->ecx |= 1u << 24;
		if (cpus > 1)
			entry->edx |= 1u << 28; /* HTT: the count in ebx is valid */
		else
			entry->edx &= ~(1u << 28);
		break;
	case 4: /* caches: shared by nobody, cores in the package */
		entry->eax = (entry->eax & 0x00003fff) | (cpus - 1) << 26;
		break;
	case 0xb:
	case 0x1f:
		topology_leaf(entry, index, cpus);
		break;
	case 0x80000007: /* AMD: programs survive machine checks of memory (SUCCOR), which machine_shm.c makes */
		if (machine->config.shm)
			entry->ebx |= 1u << 1;
		break;
	case 0x80000008: /* AMD: cores in the package */
		entry->ecx = (entry->ecx & ~0xf0ffu) | bits_for(cpus) << 12 | (cpus - 1);
		break;
	case 0x8000001d: /* AMD: caches shared by one */
		entry->eax &= ~(0xfffu << 14);
		break;
	case 0x8000001e: /* AMD: APIC id, core id, one node */
		entry->eax = index;
		entry->ebx = (entry->ebx & ~0xffffu) | index;
		entry->ecx = 0;
		break;
	}
}

/*
 * Enables x87, SSE and AVX state from the start, as far as they are there. A kernel sets XCR0 itself; but emulated processors exist
 * whose XSETBV does not reach KVM, which then goes on with the reset value and answers CPUID leaf 0xd for that.
 */
static int set_xcr0(struct vcpu *vcpu, const struct kvm_cpuid2 *cpuid, struct error *err)
{
	const uint64_t wanted = 7;
	struct kvm_xcrs xcrs = { .nr_xcrs = 1, .xcrs = { { .xcr = 0, .value = wanted } } };

	for (unsigned i = 0; i < cpuid->nent; i++) {
		const struct kvm_cpuid_entry2 *entry = &cpuid->entries[i];
		if (entry->function == 0xd && entry->index == 0 && (entry->eax & wanted) == wanted &&
		    ioctl(vcpu->fd, KVM_SET_XCRS, &xcrs) < 0)
			return error_set(err, -errno, "KVM_SET_XCRS: %s", strerror(errno));
	}
	return 0;
}

int vcpu_set_cpuid(struct vcpu *vcpu, struct error *err)
{
	const struct machine *machine = vcpu->machine;
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + ENTRIES_MAX * sizeof(cpuid->entries[0]));
	if (!cpuid)
		return error_set(err, -ENOMEM, "out of memory");
	cpuid->nent = ENTRIES_MAX;
	int result = 0;
	if (ioctl(machine->kvm_fd, KVM_GET_SUPPORTED_CPUID, cpuid) < 0) {
		result = error_set(err, -errno, "KVM_GET_SUPPORTED_CPUID: %s", strerror(errno));
		goto out;
	}
	const bool tsc_deadline = ioctl(machine->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0;
	for (unsigned i = 0; i < cpuid->nent; i++)
		adapt(&cpuid->entries[i], machine, vcpu->index, tsc_deadline);
	if (ioctl(vcpu->fd, KVM_SET_CPUID2, cpuid) < 0)
		result = error_set(err, -errno, "KVM_SET_CPUID2: %s", strerror(errno));
	else
		result = set_xcr0(vcpu, cpuid, err);
out:
	free(cpuid);
	return result;
}

int vcpu_set_msrs(struct vcpu *vcpu, struct error *err)
{
	/* All memory write-back, as firmware leaves it; fast string operations. */
	const struct kvm_msr_entry entries[] = {
		{ .index = MSR_MTRR_DEF_TYPE, .data = MTRR_ENABLE_WRITE_BACK },
		{ .index = MSR_IA32_MISC_ENABLE, .data = MISC_ENABLE_FAST_STRING },
	};
	union {
		struct kvm_msrs head;
		uint8_t bytes[sizeof(struct kvm_msrs) + sizeof(entries)];
	} msrs = { .head = { .nmsrs = sizeof(entries) / sizeof(entries[0]) } };
	memcpy(msrs.bytes + sizeof(struct kvm_msrs), entries, sizeof(entries));
	if (ioctl(vcpu->fd, KVM_SET_MSRS, &msrs) < 0)
		return error_set(err, -errno, "KVM_SET_MSRS: %s", strerror(errno));
	/* A KVM that lacks one of them sets those before it: no guest here depends on them. */
	return 0;
}
