/* Small kernel files made by hand: an ELF vmlinux with two segments and a PVH note, and a bzImage around any payload. */
#ifndef TRVMM_TESTS_FAKE_KERNEL_H
#define TRVMM_TESTS_FAKE_KERNEL_H

#include <assert.h>
#include <elf.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FAKE_KERNEL_START 0x200000u /* where the first segment goes */
#define FAKE_KERNEL_DATA 0x300000u
#define FAKE_KERNEL_BSS_BYTES 0x1000u
#define FAKE_KERNEL_PVH_ENTRY 0x200040u

struct fake_note {
	Elf64_Nhdr header;
	char name[4];
	uint32_t value[2];
};

struct fake_elf {
	Elf64_Ehdr header;
	Elf64_Phdr text, data, note;
	struct fake_note notes[2];
	uint8_t code[300];
	uint8_t values[100];
};

static inline void fake_elf_init(struct fake_elf *elf)
{
	memset(elf, 0, sizeof(*elf));
	memcpy(elf->header.e_ident, ELFMAG, SELFMAG);
	elf->header.e_ident[EI_CLASS] = ELFCLASS64;
	elf->header.e_ident[EI_DATA] = ELFDATA2LSB;
	elf->header.e_ident[EI_VERSION] = EV_CURRENT;
	elf->header.e_type = ET_EXEC;
	elf->header.e_machine = EM_X86_64;
	elf->header.e_version = EV_CURRENT;
	elf->header.e_entry = FAKE_KERNEL_START + 16;
	elf->header.e_phoff = offsetof(struct fake_elf, text);
	elf->header.e_ehsize = sizeof(elf->header);
	elf->header.e_phentsize = sizeof(Elf64_Phdr);
	elf->header.e_phnum = 3;
	elf->text = (Elf64_Phdr){
		.p_type = PT_LOAD,
		.p_offset = offsetof(struct fake_elf, code),
		.p_paddr = FAKE_KERNEL_START,
		.p_filesz = sizeof(elf->code),
		.p_memsz = sizeof(elf->code),
	};
	elf->data = (Elf64_Phdr){
		.p_type = PT_LOAD,
		.p_offset = offsetof(struct fake_elf, values),
		.p_paddr = FAKE_KERNEL_DATA,
		.p_filesz = sizeof(elf->values),
		.p_memsz = sizeof(elf->values) + FAKE_KERNEL_BSS_BYTES,
	};
	elf->note = (Elf64_Phdr){ .p_type = PT_NOTE,
				  .p_offset = offsetof(struct fake_elf, notes),
				  .p_filesz = sizeof(elf->notes),
				  .p_memsz = sizeof(elf->notes) };
	elf->notes[0] = (struct fake_note){ { .n_namesz = 4, .n_descsz = 8, .n_type = 6 }, "Xen", { 0x1234, 0 } };
	elf->notes[1] = (struct fake_note){ { .n_namesz = 4, .n_descsz = 8, .n_type = 18 }, "Xen", { FAKE_KERNEL_PVH_ENTRY, 0 } };
	for (size_t i = 0; i < sizeof(elf->code); i++)
		elf->code[i] = (uint8_t)(i * 7 + 1);
	for (size_t i = 0; i < sizeof(elf->values); i++)
		elf->values[i] = (uint8_t)(i * 3 + 5);
}

/* Bytes as a file in memory; `path` names it. The descriptor stays open. */
struct fake_file {
	int fd;
	char path[40];
};

static inline void fake_file_make(struct fake_file *file, const void *bytes, size_t length)
{
	file->fd = memfd_create("fake", MFD_CLOEXEC);
	assert(file->fd >= 0);
	const ssize_t n = write(file->fd, bytes, length);
	assert(n == (ssize_t)length);
	snprintf(file->path, sizeof(file->path), "/proc/self/fd/%d", file->fd);
}

/* Offsets of Documentation/x86/boot.rst. */
#define FAKE_BZ_SETUP_SECTS 0x1f1
#define FAKE_BZ_BOOT_FLAG 0x1fe
#define FAKE_BZ_JUMP 0x201
#define FAKE_BZ_MAGIC 0x202
#define FAKE_BZ_VERSION 0x206
#define FAKE_BZ_XLOADFLAGS 0x236
#define FAKE_BZ_PAYLOAD_OFFSET 0x248
#define FAKE_BZ_PAYLOAD_LENGTH 0x24c

static inline void fake_put(uint8_t *bytes, size_t offset, uint64_t value, size_t length)
{
	for (size_t i = 0; i < length; i++)
		bytes[offset + i] = (uint8_t)(value >> (8 * i));
}

#define FAKE_BZ_SECTS 3u
#define FAKE_BZ_STUB 0x80u /* protected-mode code before the payload */
#define FAKE_BZ_PAYLOAD ((FAKE_BZ_SECTS + 1) * 512 + FAKE_BZ_STUB)

/* Writes a bzImage to `bytes`, which has room for FAKE_BZ_PAYLOAD + length. Returns its size. */
static inline size_t fake_bzimage(uint8_t *bytes, const void *payload, size_t length)
{
	memset(bytes, 0x90, FAKE_BZ_PAYLOAD);
	memset(bytes + 0x1f1, 0, 0x290 - 0x1f1);
	bytes[FAKE_BZ_SETUP_SECTS] = FAKE_BZ_SECTS;
	fake_put(bytes, FAKE_BZ_BOOT_FLAG, 0xaa55, 2);
	bytes[FAKE_BZ_JUMP - 1] = 0xeb;
	bytes[FAKE_BZ_JUMP] = 0x6a;
	memcpy(bytes + FAKE_BZ_MAGIC, "HdrS", 4);
	fake_put(bytes, FAKE_BZ_VERSION, 0x20f, 2);
	fake_put(bytes, FAKE_BZ_XLOADFLAGS, 1, 2);
	fake_put(bytes, FAKE_BZ_PAYLOAD_OFFSET, FAKE_BZ_STUB, 4);
	fake_put(bytes, FAKE_BZ_PAYLOAD_LENGTH, length, 4);
	memcpy(bytes + FAKE_BZ_PAYLOAD, payload, length);
	return FAKE_BZ_PAYLOAD + length;
}

#endif
