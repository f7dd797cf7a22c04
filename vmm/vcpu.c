/*
 * A vCPU's thread: runs the guest until it exits to us, and serves the exit: port I/O and MMIO that KVM does not handle itself, and the
 * ways in which a machine ends.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vmm/host.h"
#include "vmm/machine_internal.h"
#include "vmm/timeline.h"
#ifdef TRVMM_BACKDOOR
#include "tests/sandbox/backdoor.h"
#endif

#define PORT_CMOS_DATA 0x71
#define PORT_I8042_COMMAND 0x64
#define I8042_RESET 0xfe
#define PORT_RESET_CONTROL 0xcf9
#define RESET_CONTROL_RESET 0x04

struct end_call {
	struct machine *machine;
	enum machine_end end;
	const char *detail;
};

static void tell_ended(void *arg)
{
	const struct end_call *call = arg;
	call->machine->config.ended(call->machine->config.data, call->end, call->detail);
}

/* The first vCPU that ends the machine tells; all stop running the guest. */
static void machine_ended(struct machine *machine, enum machine_end end, const char *detail)
{
	struct end_call call = { .machine = machine, .end = end, .detail = detail };
	if (!atomic_flag_test_and_set(&machine->ended))
		loop_call(machine->loop, tell_ended, &call);
}

/*
 * One byte of an access of `size` bytes; returns true when the guest asked for a reset. The reset ports are bytes: a double word at
 * 0xcf8 is an address in PCI configuration space.
 */
static bool port_write(struct machine *machine, uint16_t port, uint8_t value, unsigned size)
{
	if (port >= UART_PORT && port < UART_PORT + UART_PORTS)
		uart_write(&machine->uart, port - UART_PORT, value);
	if (size != 1)
		return false;
	return (port == PORT_I8042_COMMAND && value == I8042_RESET) ||
	       (port == PORT_RESET_CONTROL && (value & RESET_CONTROL_RESET));
}

static uint8_t port_read(struct machine *machine, uint16_t port)
{
	if (port >= UART_PORT && port < UART_PORT + UART_PORTS)
		return uart_read(&machine->uart, port - UART_PORT);
	/* A clock that is not being updated, or drivers wait for it. */
	if (port == PORT_CMOS_DATA)
		return 0;
	return 0xff; /* nobody drives the bus */
}

#ifdef TRVMM_BACKDOOR
/* A test build that obeys its guest. Returns true when the access was an order. */
static bool serve_backdoor(struct vcpu *vcpu)
{
	const struct kvm_run *run = vcpu->run;
	uint32_t value = 0;
	uint8_t *data = (uint8_t *)vcpu->run + run->io.data_offset;
	if (run->io.port != BACKDOOR_PORT || run->io.size != sizeof(value))
		return false;
	memcpy(&value, data, sizeof(value));
	if (run->io.direction == KVM_EXIT_IO_OUT)
		backdoor_order(vcpu->machine, value);
	value = backdoor_result();
	if (run->io.direction == KVM_EXIT_IO_IN)
		memcpy(data, &value, sizeof(value));
	return true;
}
#endif

/* Accesses wider than a byte go to that many ports, as on a bus of 8-bit devices. Returns true when a reset is asked for. */
static bool serve_port_io(struct vcpu *vcpu)
{
	const struct kvm_run *run = vcpu->run;
	uint8_t *data = (uint8_t *)vcpu->run + run->io.data_offset;
	bool reset = false;

	for (uint32_t i = 0; i < run->io.count; i++) {
		for (unsigned byte = 0; byte < run->io.size; byte++, data++) {
			const uint16_t port = (uint16_t)(run->io.port + byte);
			if (run->io.direction == KVM_EXIT_IO_OUT)
				reset |= port_write(vcpu->machine, port, *data, run->io.size);
			else
				*data = port_read(vcpu->machine, port);
		}
	}
	return reset;
}

/* Double words only, as the data sheet has it. */
static void serve_ioapic(struct machine *machine, struct kvm_run *run)
{
	const uint32_t offset = (uint32_t)(run->mmio.phys_addr - LAYOUT_IOAPIC);
	uint32_t value;
	if (run->mmio.is_write && run->mmio.len == sizeof(value)) {
		memcpy(&value, run->mmio.data, sizeof(value));
		ioapic_write(&machine->ioapic, offset, value);
	} else if (!run->mmio.is_write) {
		value = ioapic_read(&machine->ioapic, offset);
		memset(run->mmio.data, 0, sizeof(run->mmio.data));
		memcpy(run->mmio.data, &value, sizeof(value));
	}
}

static void serve_mmio(struct vcpu *vcpu)
{
	struct machine *machine = vcpu->machine;
	struct kvm_run *run = vcpu->run;
	if (machine->split_irqchip && run->mmio.phys_addr - LAYOUT_IOAPIC < LAYOUT_IOAPIC_BYTES) {
		serve_ioapic(machine, run);
		return;
	}
	const uint64_t offset = run->mmio.phys_addr - LAYOUT_VIRTIO_MMIO;
	const uint64_t index = offset / LAYOUT_VIRTIO_BYTES;
	const unsigned length = run->mmio.len <= sizeof(run->mmio.data) ? run->mmio.len : sizeof(run->mmio.data);

	if (run->mmio.phys_addr < LAYOUT_VIRTIO_MMIO || index >= machine->attached_count) {
		if (!run->mmio.is_write)
			memset(run->mmio.data, 0xff, sizeof(run->mmio.data));
		return;
	}
	struct virtio_mmio *mmio = &machine->attached[index].mmio;
	if (run->mmio.is_write)
		virtio_mmio_write(mmio, offset % LAYOUT_VIRTIO_BYTES, run->mmio.data, length);
	else
		virtio_mmio_read(mmio, offset % LAYOUT_VIRTIO_BYTES, run->mmio.data, length);
}

/* What KVM says when it cannot go on. `text` has room for `size` bytes. */
static void describe_failure(const struct kvm_run *run, char *text, size_t size)
{
	const char *hint = "";
	if (!host_has_hardware_virtualization())
		hint = " (the processor shows neither VMX nor SVM: this KVM is software only and runs no Linux guests; see trvmm "
		       "doctor)";
	if (run->exit_reason == KVM_EXIT_INTERNAL_ERROR)
		snprintf(text, size, "KVM stopped with internal error %u%s", run->internal.suberror, hint);
	else if (run->exit_reason == KVM_EXIT_FAIL_ENTRY)
		snprintf(text, size, "the processor refused to enter the guest, reason 0x%llx%s",
			 (unsigned long long)run->fail_entry.hardware_entry_failure_reason, hint);
	else
		snprintf(text, size, "KVM stopped with exit reason %u%s", run->exit_reason, hint);
}

/* Serves one exit. Returns false when the machine is at its end. */
static bool serve_exit(struct vcpu *vcpu)
{
	struct machine *machine = vcpu->machine;
	char text[256];

	switch (vcpu->run->exit_reason) {
	case KVM_EXIT_IO:
#ifdef TRVMM_BACKDOOR
		if (serve_backdoor(vcpu))
			return true;
#endif
		if (!serve_port_io(vcpu))
			return true;
		machine_ended(machine, MACHINE_RESET, "the guest reset the machine");
		return false;
	case KVM_EXIT_MMIO:
		serve_mmio(vcpu);
		return true;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		return true;
	case KVM_EXIT_SHUTDOWN:
		machine_ended(machine, MACHINE_RESET, "the guest reset the machine, or died of a triple fault");
		return false;
	case KVM_EXIT_SYSTEM_EVENT:
		machine_ended(machine, MACHINE_RESET, "the guest powered off");
		return false;
	default:
		describe_failure(vcpu->run, text, sizeof(text));
		machine_ended(machine, MACHINE_FAILED, text);
		return false;
	}
}

void vcpu_run(struct vcpu *vcpu)
{
	char text[128];

	if (vcpu->index == 0)
		timeline_mark("first KVM_RUN");
	for (;;) {
		cpu_quota_wait(&vcpu->quota);
		if (ioctl(vcpu->fd, KVM_RUN, 0) < 0) {
			/* A signal, or a processor that was not started yet: there is no exit to serve. */
			if (errno == EINTR || errno == EAGAIN)
				continue;
			if (errno == EFAULT && machine_shm_touched(vcpu))
				continue;
			snprintf(text, sizeof(text), "KVM_RUN: %s", strerror(errno));
			machine_ended(vcpu->machine, MACHINE_FAILED, text);
			return;
		}
		if (!serve_exit(vcpu))
			return;
	}
}
