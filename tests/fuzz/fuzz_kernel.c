/*
 * libFuzzer target: kernel files. The first byte chooses how the rest is meant: as a file; as changes (where: 2 bytes, what: 1) to a good
 * ELF kernel; as the payload of a good bzImage; as changes to the header of one. What is accepted is loaded into a small guest's RAM and
 * booted by both protocols, up to the registers. Checked: a refusal has one line that says why.
 */
#include <stdlib.h>

#include "tests/fuzz/input.h"
#include "tests/unit/fake_kernel.h"
#include "vmm/boot.h"
#include "vmm/layout.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RAM_BYTES (4u << 20)

static struct guest_mem mem;
static uint8_t *ram;

static void change(struct input *in, uint8_t *bytes, size_t length)
{
	while (in->left) {
		const size_t at = take(in, 2) % length;
		bytes[at] = (uint8_t)take(in, 1);
	}
}

/* Makes the kernel's file. Returns its size. */
static size_t make(struct input *in, uint8_t **file)
{
	const uint64_t kind = take(in, 1) % 4;
	uint8_t *bytes = malloc(in->left + sizeof(struct fake_elf) + FAKE_BZ_PAYLOAD);
	size_t length = in->left;

	assert(bytes);
	*file = bytes;
	if (kind == 0) {
		memcpy(bytes, in->at, length);
	} else if (kind == 1) {
		fake_elf_init((struct fake_elf *)(void *)bytes);
		length = sizeof(struct fake_elf);
		change(in, bytes, length);
	} else if (kind == 2) {
		length = fake_bzimage(bytes, in->at, in->left);
	} else {
		struct fake_elf elf;
		fake_elf_init(&elf);
		length = fake_bzimage(bytes, &elf, sizeof(elf));
		change(in, bytes, FAKE_BZ_PAYLOAD);
	}
	return length;
}

static void boot(const struct kernel_image *image, enum boot_protocol protocol)
{
	static const struct boot_device devices[] = { { LAYOUT_VIRTIO_MMIO, 5 } };
	const struct boot_machine machine = { .cpus = 2, .ioapic_pins = 8, .devices = devices, .device_count = 1 };
	struct kvm_regs regs = { 0 };
	struct kvm_sregs sregs = { 0 };
	struct error err = { "" };

	const int result = boot_prepare(&mem, image, protocol, "console=ttyS0", &machine, &err);
	assert((result == 0) == (err.text[0] == '\0') && !strchr(err.text, '\n'));
	if (result == 0)
		boot_set_registers(image, protocol, &regs, &sregs);
	memset(ram, 0, RAM_BYTES);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { .at = data, .left = size };
	struct kernel_image image;
	struct error err = { "" };
	struct fake_file file;
	uint8_t *bytes;

	if (!ram) {
		ram = calloc(1, RAM_BYTES);
		assert(ram);
		guest_mem_from_buffer(&mem, 0, ram, RAM_BYTES);
	}
	const size_t length = make(&in, &bytes);
	fake_file_make(&file, bytes, length);
	free(bytes);
	const int result = kernel_image_open(file.path, NULL, &image, &err);
	assert((result == 0) == (err.text[0] == '\0') && !strchr(err.text, '\n'));
	if (result == 0) {
		(void)kernel_image_missing_driver(&image);
		boot(&image, BOOT_LINUX64);
		boot(&image, BOOT_PVH);
		kernel_image_close(&image);
	}
	close(file.fd);
	return 0;
}
