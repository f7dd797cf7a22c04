/* The machine; see machine.h. */
#include "vmm/machine.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/thread.h"
#include "vmm/boot.h"
#include "vmm/machine_internal.h"
#include "vmm/sandbox.h"

#define MSR_IA32_TSC 0x10

/* ioctl on the VM or a vCPU, whose failure at set-up is told by its name. */
static int kvm_call(int fd, unsigned long request, const void *argument, const char *name, struct error *err)
{
	const int result = ioctl(fd, request, argument);
	return result < 0 ? error_set(err, -errno, "%s: %s", name, strerror(errno)) : result;
}

/* What the I/O APIC sends to the local APICs. A message for a processor that is not there is lost, as on a bus. */
static void send_message(void *data, uint32_t address, uint32_t message)
{
	const struct machine *machine = data;
	const struct kvm_msi msi = { .address_lo = address, .data = message };
	ioctl(machine->vm_fd, KVM_SIGNAL_MSI, &msi);
}

static void uart_interrupt(void *data)
{
	const struct machine *machine = data;
	irq_line_raise(&machine->uart_line);
}

/* Where interrupt lines end; NULL: at KVM's controllers. */
static struct ioapic *own_ioapic(struct machine *machine)
{
	return machine->split_irqchip ? &machine->ioapic : NULL;
}

/* Whether KVM can leave the I/O APIC to us. */
static bool can_split_irqchip(int kvm_fd)
{
	return ioctl(kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_SPLIT_IRQCHIP) > 0 &&
	       ioctl(kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_SIGNAL_MSI) > 0;
}

static int set_memory(struct machine *machine, struct error *err)
{
	for (unsigned i = 0; i < machine->mem.count; i++) {
		const struct guest_region *region = &machine->mem.regions[i];
		const struct kvm_userspace_memory_region slot = {
			.slot = i,
			.guest_phys_addr = region->start,
			.memory_size = region->size_bytes,
			.userspace_addr = (uintptr_t)region->host,
		};
		const int result = kvm_call(machine->vm_fd, KVM_SET_USER_MEMORY_REGION, &slot, "KVM_SET_USER_MEMORY_REGION", err);
		if (result < 0)
			return result;
	}
	return 0;
}

static int create_irqchip(struct machine *machine, struct error *err)
{
	if (machine->split_irqchip) {
		/* The argument is the number of pins whose routes KVM sets aside. There are none. */
		const struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 0 } };
		return kvm_call(machine->vm_fd, KVM_ENABLE_CAP, &split, "KVM_CAP_SPLIT_IRQCHIP", err);
	}
	int result = kvm_call(machine->vm_fd, KVM_CREATE_IRQCHIP, NULL, "KVM_CREATE_IRQCHIP", err);
	if (result >= 0 && machine->config.pc) {
		const struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };
		result = kvm_call(machine->vm_fd, KVM_CREATE_PIT2, &pit, "KVM_CREATE_PIT2", err);
	}
	return result;
}

static int create_vm(struct machine *machine, struct error *err)
{
	int result = kvm_call(machine->kvm_fd, KVM_CREATE_VM, NULL, "KVM_CREATE_VM", err);
	if (result < 0)
		return result;
	machine->vm_fd = result;
	const uint64_t identity_map = LAYOUT_KVM_IDENTITY_MAP;
	result = kvm_call(machine->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map, "KVM_SET_IDENTITY_MAP_ADDR", err);
	if (result >= 0 && ioctl(machine->vm_fd, KVM_SET_TSS_ADDR, LAYOUT_KVM_TSS) < 0)
		result = error_set(err, -errno, "KVM_SET_TSS_ADDR: %s", strerror(errno));
	if (result >= 0)
		result = create_irqchip(machine, err);
	return result < 0 ? result : set_memory(machine, err);
}

static int create_vcpu(struct machine *machine, unsigned index, struct error *err)
{
	struct vcpu *vcpu = &machine->vcpus[index];
	vcpu->machine = machine;
	vcpu->index = index;
	const int fd = ioctl(machine->vm_fd, KVM_CREATE_VCPU, index);
	if (fd < 0)
		return error_set(err, -errno, "KVM_CREATE_VCPU: %s", strerror(errno));
	vcpu->fd = fd;
	vcpu->run = mmap(NULL, machine->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (vcpu->run == MAP_FAILED) {
		vcpu->run = NULL;
		return error_set(err, -errno, "mapping a vCPU: %s", strerror(errno));
	}
	int result = vcpu_set_cpuid(vcpu, err);
	if (result == 0 && machine->config.shm)
		result = machine_shm_prepare_vcpu(vcpu, err);
	return result < 0 ? result : vcpu_set_msrs(vcpu, err);
}

int machine_create_vm(struct machine *machine, struct error *err)
{
	int result = create_vm(machine, err);
	if (result < 0)
		return result;
	result = kvm_call(machine->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, NULL, "KVM_GET_VCPU_MMAP_SIZE", err);
	if (result < 0)
		return result;
	machine->run_bytes = (size_t)result;
	for (unsigned i = 0; i < machine->config.cpus; i++) {
		result = create_vcpu(machine, i, err);
		if (result < 0)
			return result;
	}
	return 0;
}

static void *vcpu_thread(void *arg)
{
	struct vcpu *vcpu = arg;
	const int result = cpu_quota_start(&vcpu->quota, vcpu->machine->config.cpu_thousandths);
	if (result < 0)
		message("--cpu-quota: %s; the guest runs without", strerror(-result));
	sandbox_enter(SANDBOX_VCPU);
	pthread_mutex_lock(&vcpu->machine->gate);
	pthread_mutex_unlock(&vcpu->machine->gate);
	vcpu_run(vcpu);
	return NULL;
}

static int create_parts(struct machine *machine, struct error *err)
{
	int result = guest_mem_create(&machine->mem, machine->config.memory_bytes);
	if (result < 0)
		return error_set(err, result, "%llu MiB of guest memory: %s; give less with --memory",
				 (unsigned long long)(machine->config.memory_bytes >> 20), strerror(-result));
	machine->split_irqchip = !machine->config.pc && can_split_irqchip(machine->kvm_fd);
	return irq_line_init(&machine->uart_line, own_ioapic(machine), LAYOUT_IRQ_COM1, err);
}

int machine_create(int kvm_fd, const struct machine_config *config, struct loop *loop, struct machine **result, struct error *err)
{
	struct machine *machine = calloc(1, sizeof(*machine));
	if (!machine)
		return error_set(err, -ENOMEM, "out of memory");
	assert(config->cpus >= 1 && config->cpus <= LAYOUT_CPUS_MAX);
	machine->config = *config;
	pthread_mutex_init(&machine->gate, NULL);
	machine->loop = loop;
	machine->kvm_fd = kvm_fd;
	machine->vm_fd = machine->uart_line.fd = -1;
	for (unsigned i = 0; i < LAYOUT_CPUS_MAX; i++)
		machine->vcpus[i].fd = -1;
	uart_init(&machine->uart, config->console_fd, uart_interrupt, machine);
	const int code = create_parts(machine, err);
	if (code < 0) {
		machine_destroy(machine);
		return code;
	}
	*result = machine;
	return 0;
}

void machine_destroy(struct machine *machine)
{
	if (!machine)
		return;
	for (unsigned i = 0; i < machine->attached_count; i++) {
		struct attached *attached = &machine->attached[i];
		for (unsigned queue = 0; queue < attached->mmio.dev->ops->queue_count; queue++) {
			if (attached->kicks[queue].source.fd < 0)
				continue;
			loop_remove(attached->mmio.dev->loop, &attached->kicks[queue].source);
			close(attached->kicks[queue].source.fd);
		}
		irq_line_close(&attached->line);
	}
	for (unsigned i = 0; i < LAYOUT_CPUS_MAX; i++) {
		if (machine->vcpus[i].run)
			munmap(machine->vcpus[i].run, machine->run_bytes);
		if (machine->vcpus[i].fd >= 0)
			close(machine->vcpus[i].fd);
	}
	irq_line_close(&machine->uart_line);
	if (machine->vm_fd >= 0)
		close(machine->vm_fd);
	guest_mem_destroy(&machine->mem);
	free(machine);
}

const struct guest_mem *machine_mem(struct machine *machine)
{
	return &machine->mem;
}

/* ---- devices ---- */

static void device_interrupt(struct virtio_device *dev)
{
	const struct attached *attached = dev->wiring;
	irq_line_raise(&attached->line);
}

static void device_kick(struct virtio_device *dev, unsigned queue)
{
	const struct attached *attached = dev->wiring;
	/* Fails only when the counter is at its end: the notification is pending anyway. */
	(void)!eventfd_write(attached->kicks[queue].source.fd, 1);
}

static void queue_kicked(struct loop_source *source, uint32_t events)
{
	struct queue_kick *kick = (struct queue_kick *)source;
	(void)events;
	virtio_mmio_notified(&kick->attached->mmio, kick->queue);
}

/*
 * Makes the eventfd that will stand in front of one queue's notification, and listens to it: to each write (EPOLLET), so that its counter
 * is never read, one system call less for a request. Where another thread takes a loop over, it looks at the queues first (virtio_fs.c).
 */
static int attach_queue(struct attached *attached, unsigned queue, struct error *err)
{
	struct queue_kick *kick = &attached->kicks[queue];
	const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (fd < 0)
		return error_set(err, -errno, "eventfd: %s", strerror(errno));
	*kick = (struct queue_kick){ .source = { .fd = fd, .events = EPOLLIN | EPOLLET, .ready = queue_kicked },
				     .attached = attached,
				     .queue = queue };
	const int result = loop_add(attached->mmio.dev->loop, &kick->source);
	return result < 0 ? error_set(err, result, "epoll: %s", strerror(-result)) : 0;
}

int machine_attach(struct machine *machine, struct virtio_device *dev, struct error *err)
{
	static const unsigned irqs[LAYOUT_DEVICES_MAX] = LAYOUT_DEVICE_IRQS;
	if (machine->attached_count == LAYOUT_DEVICES_MAX)
		return error_set(err, -ENOSPC, "too many devices: %d at most", LAYOUT_DEVICES_MAX);
	struct attached *attached = &machine->attached[machine->attached_count];
	attached->machine = machine;
	attached->line.fd = -1;
	attached->address = LAYOUT_VIRTIO_MMIO + machine->attached_count * LAYOUT_VIRTIO_BYTES;
	virtio_mmio_init(&attached->mmio, dev);
	machine_shm_place(machine, dev);
	dev->interrupt = device_interrupt;
	dev->kick = device_kick;
	dev->wiring = attached;
	for (unsigned queue = 0; queue < dev->ops->queue_count; queue++)
		attached->kicks[queue].source.fd = -1;
	int result = irq_line_init(&attached->line, own_ioapic(machine), irqs[machine->attached_count++], err);
	for (unsigned queue = 0; result == 0 && queue < dev->ops->queue_count; queue++)
		result = attach_queue(attached, queue, err);
	return result;
}

/* Joins the device's eventfds with the VM: notifications come out of it, interrupts go in. */
static int connect_device(struct machine *machine, struct attached *attached, struct error *err)
{
	int result = irq_line_connect(&attached->line, machine->vm_fd, err);
	for (unsigned queue = 0; result >= 0 && queue < attached->mmio.dev->ops->queue_count; queue++) {
		const struct kvm_ioeventfd ioeventfd = {
			.datamatch = queue,
			.addr = attached->address + VIRTIO_MMIO_QUEUE_NOTIFY,
			.len = 4,
			.fd = attached->kicks[queue].source.fd,
			.flags = KVM_IOEVENTFD_FLAG_DATAMATCH,
		};
		result = kvm_call(machine->vm_fd, KVM_IOEVENTFD, &ioeventfd, "KVM_IOEVENTFD", err);
	}
	return result < 0 ? result : 0;
}

/* ---- start ---- */

int machine_boot(struct machine *machine, const struct kernel_image *kernel, enum boot_protocol protocol, const char *cmdline,
		 struct error *err)
{
	struct boot_device devices[LAYOUT_DEVICES_MAX];
	char *line = NULL;
	size_t length = 0;
	unsigned last_pin = LAYOUT_IRQ_COM1;

	FILE *stream = open_memstream(&line, &length);
	if (!stream)
		return error_set(err, -ENOMEM, "out of memory");
	fputs(cmdline, stream);
	for (unsigned i = 0; i < machine->attached_count; i++) {
		const struct attached *attached = &machine->attached[i];
		devices[i] = (struct boot_device){ .mmio = attached->address, .irq = attached->line.irq };
		last_pin = attached->line.irq > last_pin ? attached->line.irq : last_pin;
		fprintf(stream, " virtio_mmio.device=4K@0x%llx:%u", (unsigned long long)attached->address, attached->line.irq);
	}
	const unsigned pins = machine->split_irqchip ? last_pin + 1 : IOAPIC_PINS_MAX;
	ioapic_init(&machine->ioapic, pins, send_message, machine);
	const struct boot_machine tables = {
		.cpus = machine->config.cpus,
		.ioapic_pins = pins,
		.pic = !machine->split_irqchip,
		.devices = devices,
		.device_count = machine->attached_count,
	};
	int result = fclose(stream) ? error_set(err, -ENOMEM, "out of memory") : 0;
	if (result == 0)
		result = boot_prepare(&machine->mem, kernel, protocol, line, &tables, err);
	free(line);
	machine->boot_kernel = *kernel;
	machine->boot_protocol = protocol;
	return result;
}

static int set_boot_registers(struct machine *machine, struct error *err)
{
	struct kvm_regs regs = { 0 };
	struct kvm_sregs sregs = { 0 };
	const int fd = machine->vcpus[0].fd;
	int result = kvm_call(fd, KVM_GET_SREGS, &sregs, "KVM_GET_SREGS", err);
	if (result < 0)
		return result;
	boot_set_registers(&machine->boot_kernel, machine->boot_protocol, &regs, &sregs);
	result = kvm_call(fd, KVM_SET_SREGS, &sregs, "KVM_SET_SREGS", err);
	return result < 0 ? result : kvm_call(fd, KVM_SET_REGS, &regs, "KVM_SET_REGS", err);
}

int machine_start(struct machine *machine, struct error *err)
{
	int result = irq_line_connect(&machine->uart_line, machine->vm_fd, err);
	for (unsigned i = 0; result >= 0 && i < machine->attached_count; i++)
		result = connect_device(machine, &machine->attached[i], err);
	if (result >= 0)
		result = machine_shm_map(machine, err);
	if (result >= 0)
		result = set_boot_registers(machine, err);
	if (result < 0)
		return result;
	pthread_mutex_lock(&machine->gate);
	for (unsigned i = 0; i < machine->config.cpus; i++) {
		struct vcpu *vcpu = &machine->vcpus[i];
		result = thread_start(&vcpu->thread, vcpu_thread, vcpu);
		if (result < 0)
			return error_set(err, result, "starting a vCPU: %s", strerror(-result)); /* with the gate closed for good */
	}
	if (machine->config.starting)
		machine->config.starting(machine->config.data);
	pthread_mutex_unlock(&machine->gate);
	return 0;
}

int machine_watch_time(struct machine *machine)
{
	struct kvm_msr_entry entry = { .index = MSR_IA32_TSC };
	union {
		uint8_t bytes[sizeof(struct kvm_msrs) + sizeof(entry)];
		struct kvm_msrs head; /* behind the other, for clang: it ends with an array without a length */
	} msrs = { .head = { .nmsrs = 1 } };
	struct timespec now;
	const int fd = machine->vcpus[0].fd;
	const int khz = ioctl(fd, KVM_GET_TSC_KHZ, 0);
	if (khz <= 0)
		return -ENOTSUP;
	memcpy(msrs.bytes + sizeof(struct kvm_msrs), &entry, sizeof(entry));
	if (ioctl(fd, KVM_GET_MSRS, &msrs) != 1 || clock_gettime(CLOCK_MONOTONIC, &now) < 0)
		return -ENOTSUP;
	memcpy(&entry, msrs.bytes + sizeof(struct kvm_msrs), sizeof(entry));
	machine->tsc_khz = (uint64_t)khz;
	machine->tsc = entry.data;
	machine->tsc_ns = now.tv_sec * 1000000000ll + now.tv_nsec;
	return 0;
}

int64_t machine_time_of(const struct machine *machine, uint64_t tsc)
{
	if (!machine->tsc_khz)
		return 0;
	/* The guest names `tsc`: one that is wrong gives a time that is. */
	return (int64_t)(machine->tsc_ns + ((__int128)tsc - machine->tsc) * 1000000 / (__int128)machine->tsc_khz);
}

uint64_t machine_cpu_ns(const struct machine *machine)
{
	uint64_t sum = 0;
	for (unsigned i = 0; i < machine->config.cpus; i++) {
		struct timespec used;
		clockid_t clock;
		if (pthread_getcpuclockid(machine->vcpus[i].thread, &clock) == 0 && clock_gettime(clock, &used) == 0)
			sum += (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
	}
	return sum;
}

int machine_vm_fd(const struct machine *machine)
{
	return machine->vm_fd;
}

size_t machine_console_tail(struct machine *machine, unsigned lines, char *out, size_t out_size)
{
	return uart_tail(&machine->uart, lines, out, out_size);
}
