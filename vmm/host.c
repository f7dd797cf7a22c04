/* What this host can do for guests; see host.h. */
#include "vmm/host.h"

#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/kernel_image.h"

#define KVM_PATH "/dev/kvm"
#define LEAST_MEMORY_MIB 64

bool host_has_hardware_virtualization(void)
{
	unsigned eax, ebx, ecx, edx;
	if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & (1u << 5)))
		return true; /* VMX */
	if (__get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx) && (ecx & (1u << 2)))
		return true; /* SVM */
	return false;
}

/* The name of group `gid` from /etc/group, or its number. A static program has no getgrgid(). */
static void group_name(unsigned gid, char *name, size_t size)
{
	char line[1024];
	snprintf(name, size, "%u", gid);
	FILE *file = fopen("/etc/group", "re");
	if (!file)
		return;
	while (fgets(line, sizeof(line), file)) {
		char *password = strchr(line, ':');
		char *number = password ? strchr(password + 1, ':') : NULL;
		if (!number || strtoul(number + 1, NULL, 10) != gid)
			continue;
		*password = '\0';
		snprintf(name, size, "%.63s", line);
		break;
	}
	fclose(file);
}

static int open_failed(int error, struct error *err)
{
	struct stat st;
	char group[64];

	switch (error) {
	case ENOENT:
	case ENXIO:
	case ENODEV:
		return error_set(err, -error,
				 "there is no usable " KVM_PATH ": enable virtualization in the firmware and load kvm_intel or kvm_amd "
				 "(modprobe); in a VM, enable nested virtualization; in a container, pass --device " KVM_PATH);
	case EACCES:
	case EPERM:
		if (stat(KVM_PATH, &st) < 0)
			st.st_gid = 0;
		group_name(st.st_gid, group, sizeof(group));
		return error_set(err, -error,
				 "no permission to open " KVM_PATH ": join the group that owns it (usermod -aG %s USER, then log in again)",
				 group);
	default:
		return error_set(err, -error, KVM_PATH ": %s", strerror(error));
	}
}

int host_open_kvm(struct error *err)
{
	const int fd = open(KVM_PATH, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return open_failed(errno, err);
	const int version = ioctl(fd, KVM_GET_API_VERSION, 0);
	if (version != KVM_API_VERSION) {
		close(fd);
		return error_set(err, -ENOTSUP, KVM_PATH " is no KVM of version %d", KVM_API_VERSION);
	}
	return fd;
}

static uint64_t meminfo(const char *field)
{
	char line[256];
	uint64_t kib = 0;
	FILE *file = fopen("/proc/meminfo", "re");
	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file))
		if (!strncmp(line, field, strlen(field)))
			kib = strtoull(line + strlen(field), NULL, 10);
	fclose(file);
	return kib << 10;
}

uint64_t host_memory_total(void)
{
	return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t host_memory_available(void)
{
	return meminfo("MemAvailable:");
}

static bool verdict(bool ok, const char *what, const char *mend)
{
	printf("%-8s%s%s%s\n", ok ? "ok" : "FAILED", what, ok || !mend ? "" : ": ", ok || !mend ? "" : mend);
	return ok;
}

static bool kvm_has(int kvm, int capability)
{
	return ioctl(kvm, KVM_CHECK_EXTENSION, capability) > 0;
}

static bool doctor_kernel(const char *path)
{
	struct error err = { "" };
	struct kernel_image image;

	if (!path)
		return verdict(false, "the guest kernel", "the default one is not installed; run make, or give --kernel FILE");
	if (kernel_image_open(path, NULL, &image, &err) < 0)
		return verdict(false, err.text, NULL);
	const char *missing = kernel_image_missing_driver(&image);
	kernel_image_close(&image);
	char mend[256] = "";
	if (missing)
		snprintf(mend, sizeof(mend), "%s lacks %s; build it in (=y, not =m), or give its modules: --modules /lib/modules/VERSION",
			 path, missing);
	return verdict(!missing, "the guest kernel has its drivers", mend);
}

int host_doctor(const char *kernel)
{
	struct error err = { "" };
	char text[128];
	bool good = true;

	const int kvm = host_open_kvm(&err);
	good &= verdict(kvm >= 0, kvm >= 0 ? KVM_PATH " can be opened" : err.text, NULL);
	if (kvm >= 0) {
		good &= verdict(host_has_hardware_virtualization(), "the processor virtualizes in hardware",
				"it shows neither VMX nor SVM, so this KVM is software only and cannot run Linux guests; use a machine "
				"with hardware virtualization, or enable nested virtualization for this VM");
		const int vm = ioctl(kvm, KVM_CREATE_VM, 0);
		good &= verdict(vm >= 0, "a virtual machine can be created", strerror(errno));
		if (vm >= 0)
			close(vm);
		good &= verdict(kvm_has(kvm, KVM_CAP_IRQCHIP) && kvm_has(kvm, KVM_CAP_IRQFD) && kvm_has(kvm, KVM_CAP_IOEVENTFD),
				"KVM has irqchip, irqfd and ioeventfd", "the host's kernel is too old or built without them");
		close(kvm);
	}
	const uint64_t available = host_memory_available() >> 20;
	snprintf(text, sizeof(text), "%llu MiB of memory are available", (unsigned long long)available);
	good &= verdict(available == 0 || available >= LEAST_MEMORY_MIB, text, "close programs, a guest needs more");
	good &= doctor_kernel(kernel);
	return good ? 0 : 1;
}
