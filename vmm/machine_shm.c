/*
 * Shared memory regions of devices (virtio 1.2, 2.10) in the guest's physical address space; see machine_internal.h.
 *
 * The guest may touch what a device has not made accessible: of a file of the host that has shrunk, say. KVM_RUN then fails with EFAULT
 * and does not tell the address (Linux 6.8 and later do, in a way of their own); the guest is as before the instruction. It gets what a
 * processor gives for memory that cannot be read: a machine check that was caused by this very instruction, of a memory access in the data
 * cache hierarchy, recoverable (Intel SDM volume 3, chapter on machine checks, SRAR errors). The address in it is that of the device's
 * registers: were it one of the region, Linux would not use that page any more, which next time may show another file.
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vmm/machine_internal.h"

/* Bits of MCG_CAP. */
#define MCG_CTL_P (1ull << 8)
#define MCG_SER_P (1ull << 24) /* software recovers from errors: the next bits of MCi_STATUS mean something */
#define BANKS 2u

/* Bits of MCG_STATUS. */
#define RESTART_IP_VALID (1ull << 0)
#define ERROR_IP_VALID (1ull << 1)
#define MACHINE_CHECK_IN_PROGRESS (1ull << 2)

/* Bits of MCi_STATUS. */
#define STATUS_VALID (1ull << 63)
#define STATUS_UNCORRECTED (1ull << 61)
#define STATUS_ENABLED (1ull << 60)
#define STATUS_MISC_VALID (1ull << 59)
#define STATUS_ADDRESS_VALID (1ull << 58)
#define STATUS_SIGNALED (1ull << 56)
#define STATUS_ACTION_REQUIRED (1ull << 55)
#define STATUS_DATA_LOAD 0x134ull /* the compound error code: a data read, first level of the cache */

#define MISC_PHYSICAL (2ull << 6) /* what kind of address it is */
#define MISC_LOWEST_BIT 12ull /* its unit: a page */

void machine_shm_place(struct machine *machine, struct virtio_device *dev)
{
	if (!dev->shm.host)
		return;
	const struct guest_region *last = &machine->mem.regions[machine->mem.count - 1];
	const gpa_t end = last->start + last->size_bytes;
	if (!machine->shm_next)
		machine->shm_next = end > GUEST_MEM_HIGH_START ? end : GUEST_MEM_HIGH_START;
	dev->shm.gpa = (machine->shm_next + LAYOUT_SHM_ALIGN - 1) & ~(LAYOUT_SHM_ALIGN - 1);
	machine->shm_next = dev->shm.gpa + dev->shm.bytes;
	guest_mem_add_shm(&machine->mem, dev->shm.gpa, dev->shm.host, dev->shm.bytes);
}

int machine_shm_prepare_vcpu(struct vcpu *vcpu, struct error *err)
{
	uint64_t supported = 0, wanted = BANKS | MCG_CTL_P;
	if (ioctl(vcpu->machine->kvm_fd, KVM_X86_GET_MCE_CAP_SUPPORTED, &supported) < 0)
		return error_set(err, -errno, "KVM_X86_GET_MCE_CAP_SUPPORTED: %s; leave out dax", strerror(errno));
	wanted |= supported & MCG_SER_P;
	if (ioctl(vcpu->fd, KVM_X86_SETUP_MCE, &wanted) < 0)
		return error_set(err, -errno, "KVM_X86_SETUP_MCE: %s; leave out dax", strerror(errno));
	return 0;
}

int machine_shm_map(struct machine *machine, struct error *err)
{
	uint32_t slot = machine->mem.count;
	for (unsigned i = 0; i < machine->attached_count; i++) {
		const struct virtio_shm *shm = &machine->attached[i].mmio.dev->shm;
		const struct kvm_userspace_memory_region region = {
			.slot = slot,
			.guest_phys_addr = shm->gpa,
			.memory_size = shm->bytes,
			.userspace_addr = (uintptr_t)shm->host,
		};
		if (!shm->host)
			continue;
		if (ioctl(machine->vm_fd, KVM_SET_USER_MEMORY_REGION, &region) < 0)
			return error_set(err, -errno, "KVM_SET_USER_MEMORY_REGION for dax: %s", strerror(errno));
		slot++;
	}
	return 0;
}

struct touch {
	struct virtio_device *dev;
	bool again;
};

/* On the device's loop. */
static void ask_device(void *arg)
{
	struct touch *touch = arg;
	touch->again = touch->dev->ops->shm_touched(touch->dev);
}

bool machine_shm_touched(struct vcpu *vcpu)
{
	struct machine *machine = vcpu->machine;
	const struct attached *region = NULL;
	bool again = false;

	for (unsigned i = 0; i < machine->attached_count; i++) {
		struct touch touch = { .dev = machine->attached[i].mmio.dev };
		if (!touch.dev->shm.host)
			continue;
		region = &machine->attached[i];
		loop_call(touch.dev->loop, ask_device, &touch);
		again |= touch.again;
	}
	if (!region || again)
		return region;
	struct kvm_x86_mce error = {
		.status = STATUS_VALID | STATUS_UNCORRECTED | STATUS_ENABLED | STATUS_MISC_VALID | STATUS_ADDRESS_VALID |
			  STATUS_SIGNALED | STATUS_ACTION_REQUIRED | STATUS_DATA_LOAD,
		.addr = region->address,
		.misc = MISC_PHYSICAL | MISC_LOWEST_BIT,
		.mcg_status = MACHINE_CHECK_IN_PROGRESS | ERROR_IP_VALID | RESTART_IP_VALID,
		.bank = 1,
	};
	return ioctl(vcpu->fd, KVM_X86_SET_MCE, &error) == 0;
}
