/* Kernel files; see kernel_image.h. */
#include "vmm/kernel_image.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/iov.h"
#include "layers/cache.h"
#include "vmm/unpack.h"

#define XEN_ELFNOTE_PHYS32_ENTRY 18
#define PROGRAM_HEADERS_MAX 128
#define NOTES_BYTES_MAX (64u << 10)
#define KERNEL_BYTES_MAX (1ull << 30)

/* Offsets in a bzImage (Documentation/x86/boot.rst). */
#define SETUP_SECTS 0x1f1
#define BOOT_FLAG 0x1fe
#define HEADER_MAGIC 0x202
#define VERSION 0x206
#define KERNEL_VERSION 0x20e
#define XLOADFLAGS 0x236
#define PAYLOAD_OFFSET 0x248
#define PAYLOAD_LENGTH 0x24c
#define HEADER_END 0x290

/* ---- ELF ---- */

static const char *machine_name(unsigned machine)
{
	switch (machine) {
	case EM_386:
		return "32-bit x86";
	case EM_AARCH64:
		return "ARM64";
	case EM_ARM:
		return "ARM";
	case EM_RISCV:
		return "RISC-V";
	case EM_PPC64:
		return "POWER";
	case EM_S390:
		return "s390";
	default:
		return "another architecture";
	}
}

/* Finds the 32-bit PVH entry in one PT_NOTE segment; 0 when it is not there. */
static uint64_t pvh_entry_in(const uint8_t *notes, size_t length)
{
	size_t at = 0;
	while (length - at >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr note;
		memcpy(&note, notes + at, sizeof(note));
		const uint64_t name_at = at + sizeof(note);
		const uint64_t value_at = name_at + ((note.n_namesz + 3ull) & ~3ull);
		const uint64_t end = value_at + ((note.n_descsz + 3ull) & ~3ull);
		if (end > length)
			break;
		if (note.n_type == XEN_ELFNOTE_PHYS32_ENTRY && note.n_namesz == 4 && !memcmp(notes + name_at, "Xen", 4) &&
		    (note.n_descsz == 4 || note.n_descsz == 8)) {
			uint64_t entry = 0;
			memcpy(&entry, notes + value_at, note.n_descsz);
			return entry <= UINT32_MAX ? entry : 0; /* the guest starts in 32-bit mode */
		}
		at = end;
	}
	return 0;
}

static int read_program_headers(const struct kernel_image *image, Elf64_Phdr *headers, unsigned *count, struct error *err)
{
	Elf64_Ehdr elf;
	int result = pread_full(image->fd, &elf, sizeof(elf), 0);
	if (result < 0)
		return error_set(err, result, "is no kernel: too short");
	if (elf.e_phentsize != sizeof(Elf64_Phdr) || elf.e_phnum == 0 || elf.e_phnum > PROGRAM_HEADERS_MAX)
		return error_set(err, -ENOEXEC, "is no kernel: its ELF program headers are unusable");
	*count = elf.e_phnum;
	result = pread_full(image->fd, headers, elf.e_phnum * sizeof(*headers), elf.e_phoff);
	if (result < 0)
		return error_set(err, -ENOEXEC, "is truncated: its ELF program headers are missing");
	return 0;
}

static int elf_open(struct kernel_image *image, struct error *err)
{
	Elf64_Ehdr elf;
	struct stat st;
	if (fstat(image->fd, &st) < 0)
		return error_set(err, -errno, "%s", strerror(errno));
	image->size_bytes = (uint64_t)st.st_size;
	int result = pread_full(image->fd, &elf, sizeof(elf), 0);
	if (result < 0)
		return error_set(err, -ENOEXEC, "is no kernel: too short");
	if (elf.e_machine != EM_X86_64)
		return error_set(err, -ENOEXEC, "is a kernel for %s; trvmm runs x86-64 kernels", machine_name(elf.e_machine));
	if (elf.e_ident[EI_CLASS] != ELFCLASS64)
		return error_set(err, -ENOEXEC, "is no 64-bit kernel; trvmm runs x86-64 kernels");
	if (elf.e_type != ET_EXEC)
		return error_set(err, -ENOEXEC, "is an ELF file but no kernel (a vmlinux is of type EXEC)");
	image->entry = elf.e_entry;

	Elf64_Phdr headers[PROGRAM_HEADERS_MAX] = { { 0 } };
	unsigned count = 0;
	result = read_program_headers(image, headers, &count, err);
	if (result < 0)
		return result;
	bool loads = false;
	for (unsigned i = 0; i < count; i++) {
		const Elf64_Phdr *ph = &headers[i];
		if (ph->p_offset > image->size_bytes || ph->p_filesz > image->size_bytes - ph->p_offset)
			return error_set(err, -ENOEXEC, "is truncated: a segment ends at byte %llu, the file at %llu",
					 (unsigned long long)(ph->p_offset + ph->p_filesz), (unsigned long long)image->size_bytes);
		loads |= ph->p_type == PT_LOAD;
		if (ph->p_type == PT_LOAD && elf.e_entry >= ph->p_paddr && elf.e_entry - ph->p_paddr < ph->p_memsz)
			image->entry_loaded = true;
		if (ph->p_type != PT_NOTE || ph->p_filesz > NOTES_BYTES_MAX || image->pvh_entry)
			continue;
		uint8_t *notes = malloc(ph->p_filesz + 1);
		if (notes && pread_full(image->fd, notes, ph->p_filesz, ph->p_offset) == 0)
			image->pvh_entry = pvh_entry_in(notes, ph->p_filesz);
		free(notes);
	}
	if (!loads)
		return error_set(err, -ENOEXEC, "is an ELF file but no kernel: nothing to load");
	return 0;
}

/* ---- bzImage ---- */

static uint32_t field(const uint8_t *head, unsigned offset, unsigned bytes)
{
	uint32_t value = 0;
	memcpy(&value, head + offset, bytes);
	return value;
}

/* Unpacks the payload at [offset, offset + length) of `fd` to `out`. Returns 0 or -errno. */
static int unpack_payload(int fd, uint64_t offset, uint64_t length, int out, struct error *err)
{
	uint8_t *payload = malloc(length);
	if (!payload)
		return error_set(err, -ENOMEM, "out of memory");
	int result = pread_full(fd, payload, length, offset);
	if (result < 0) {
		error_set(err, result, "is truncated: its payload ends at byte %llu", (unsigned long long)(offset + length));
	} else {
		const int64_t unpacked = unpack_to_fd(payload, length, out, KERNEL_BYTES_MAX, err);
		result = unpacked < 0 ? (int)unpacked : 0;
	}
	free(payload);
	return result;
}

/* The same into a new memory file, which is returned; or -errno. */
static int unpack_to_memory(int fd, uint64_t offset, uint64_t length, struct error *err)
{
	const int out = memfd_create("trvmm-kernel", MFD_CLOEXEC);
	if (out < 0)
		return error_set(err, -errno, "a memory file: %s", strerror(errno));
	const int result = unpack_payload(fd, offset, length, out, err);
	if (result < 0)
		close(out);
	return result < 0 ? result : out;
}

/*
 * The same by way of the cache, where the unpacked kernel stays. Returns the descriptor, or -errno: then `err` is not set and the caller
 * unpacks into memory, which tells what is wrong with the file, if anything is.
 */
static int unpack_to_cache(const char *cache_dir, int fd, const struct stat *st, uint64_t offset, uint64_t length)
{
	uint8_t digest[DIGEST_BYTES];
	char name[2 * DIGEST_BYTES + 1];
	struct cache_file file;
	struct cache cache;
	bool remembered;

	int result = cache_open(&cache, *cache_dir ? cache_dir : NULL, NULL);
	if (result < 0)
		return result;
	int lock = -1;
	result = digest_find(&cache, fd, st, digest, &remembered, NULL);
	if (result < 0)
		goto out;
	for (unsigned i = 0; i < DIGEST_BYTES; i++)
		sprintf(name + 2 * i, "%02x", digest[i]);
	result = cache_open_file(&cache, "kernels", name);
	if (result >= 0)
		goto out;
	uint64_t key;
	memcpy(&key, digest, sizeof(key));
	result = lock = cache_lock(&cache, key);
	if (result < 0)
		goto out;
	result = cache_create(&cache, "kernels", name, &file);
	if (result < 0)
		goto out;
	result = unpack_payload(fd, offset, length, file.fd, NULL);
	if (result < 0) {
		cache_drop(&file);
		goto out;
	}
	result = cache_publish(&file);
	if (result >= 0 && !remembered)
		digest_remember(&cache, st, digest);
out:
	if (lock >= 0)
		close(lock);
	cache_close(&cache);
	return result;
}

/* The first word of the text that the header points to, which lies before the payload; no text is no error. */
static void read_release(struct kernel_image *image, const uint8_t *head)
{
	const uint32_t pointer = field(head, KERNEL_VERSION, 2);
	char text[sizeof(image->release)] = "";
	if (!pointer || pread(image->fd, text, sizeof(text) - 1, pointer + 0x200) <= 0)
		return;
	size_t length = 0;
	while (text[length] > ' ' && text[length] < 0x7f)
		length++;
	memcpy(image->release, text, length);
	image->release[length] = '\0';
}

static int bzimage_open(struct kernel_image *image, const uint8_t *head, const char *cache_dir, struct error *err)
{
	const uint32_t version = field(head, VERSION, 2);
	if (version < 0x208)
		return error_set(err, -ENOEXEC, "has boot protocol %u.%02u; 2.08 or later is needed (Linux 2.6.26)", version >> 8,
				 version & 0xff);
	/* XLF_KERNEL_64 came with 2.12; before, a 64-bit kernel cannot be told from a 32-bit one until its payload is seen. */
	if (version >= 0x20c && !(field(head, XLOADFLAGS, 2) & 1))
		return error_set(err, -ENOEXEC, "is a kernel for 32-bit x86; trvmm runs x86-64 kernels");
	unsigned setup_sects = head[SETUP_SECTS];
	if (setup_sects == 0)
		setup_sects = 4;
	const uint64_t offset = (setup_sects + 1) * 512ull + field(head, PAYLOAD_OFFSET, 4);
	const uint64_t length = field(head, PAYLOAD_LENGTH, 4);
	struct stat st;
	if (fstat(image->fd, &st) < 0)
		return error_set(err, -errno, "%s", strerror(errno));
	if (length == 0 || offset + length > (uint64_t)st.st_size)
		return error_set(err, -ENOEXEC, "is truncated: its payload ends at byte %llu, the file at %llu",
				 (unsigned long long)(offset + length), (unsigned long long)st.st_size);
	read_release(image, head);
	int unpacked = cache_dir ? unpack_to_cache(cache_dir, image->fd, &st, offset, length) : -ENOENT;
	if (unpacked < 0)
		unpacked = unpack_to_memory(image->fd, offset, length, err);
	if (unpacked < 0)
		return unpacked;
	close(image->fd);
	image->fd = unpacked;
	image->from_bzimage = true;
	/* The header's own length: the jump's target behind its two bytes at 0x200. */
	const size_t header_end = 0x202u + head[0x201];
	memcpy(image->setup_header, head + SETUP_SECTS, (header_end < HEADER_END ? header_end : HEADER_END) - SETUP_SECTS);

	uint8_t magic[SELFMAG];
	if (pread_full(image->fd, magic, sizeof(magic), 0) < 0 || memcmp(magic, ELFMAG, SELFMAG))
		return error_set(err, -ENOEXEC, "is a bzImage whose payload is no ELF kernel");
	return elf_open(image, err);
}

static int kernel_image_identify(struct kernel_image *image, const char *cache_dir, struct error *err)
{
	uint8_t head[HEADER_END + 0x10] = { 0 };
	struct stat st;

	if (fstat(image->fd, &st) < 0)
		return error_set(err, -errno, "%s", strerror(errno));
	if (S_ISDIR(st.st_mode))
		return error_set(err, -EISDIR, "is a directory; give a bzImage or vmlinux file");
	if (!S_ISREG(st.st_mode))
		return error_set(err, -EINVAL, "is no regular file; give a bzImage or vmlinux file");
	const ssize_t n = pread_up_to(image->fd, head, sizeof(head), 0);
	if (n < 0)
		return error_set(err, (int)n, "%s", strerror((int)-n));
	if ((size_t)n >= SELFMAG && !memcmp(head, ELFMAG, SELFMAG))
		return elf_open(image, err);
	if ((size_t)n >= HEADER_END && !memcmp(head + HEADER_MAGIC, "HdrS", 4) && field(head, BOOT_FLAG, 2) == 0xaa55)
		return bzimage_open(image, head, cache_dir, err);
	if ((size_t)n >= 64 && !memcmp(head + 0x38, "ARM\x64", 4))
		return error_set(err, -ENOEXEC, "is a kernel for ARM64; trvmm runs x86-64 kernels");
	return error_set(err, -ENOEXEC, "is no kernel: neither a bzImage nor an ELF vmlinux");
}

int kernel_image_open(const char *path, const char *cache_dir, struct kernel_image *result, struct error *err)
{
	struct kernel_image image = { .fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK) };
	char name[256];

	error_quote(name, sizeof(name), path, strlen(path));
	if (image.fd < 0)
		return error_set(err, -errno, "kernel '%s': %s", name, strerror(errno));
	const int code = kernel_image_identify(&image, cache_dir, err);
	if (code < 0) {
		kernel_image_close(&image);
		return error_prefix(err, code, "kernel '%s'", name);
	}
	*result = image;
	return 0;
}

void kernel_image_close(struct kernel_image *image)
{
	if (image->fd >= 0)
		close(image->fd);
	image->fd = -1;
}

int kernel_image_load(const struct kernel_image *image, const struct guest_mem *mem, gpa_t *end, struct error *err)
{
	Elf64_Phdr headers[PROGRAM_HEADERS_MAX] = { { 0 } };
	unsigned count = 0;
	gpa_t last = 0;

	int result = read_program_headers(image, headers, &count, err);
	if (result < 0)
		return error_prefix(err, result, "the kernel");
	for (unsigned i = 0; i < count; i++) {
		const Elf64_Phdr *ph = &headers[i];
		if (ph->p_type != PT_LOAD || ph->p_memsz == 0)
			continue;
		/* RAM is zero from the start, so the part that is not in the file needs nothing. */
		uint8_t *to = guest_ptr(mem, ph->p_paddr, ph->p_memsz);
		if (ph->p_filesz > ph->p_memsz)
			return error_set(err, -ENOEXEC, "the kernel is corrupt: a segment is larger in the file than in memory");
		if (!to)
			return error_set(err, -ENOMEM, "the kernel does not fit into %llu MiB of memory; give more with --memory",
					 (unsigned long long)(mem->size_bytes >> 20));
		result = pread_full(image->fd, to, ph->p_filesz, ph->p_offset);
		if (result < 0)
			return error_set(err, result, "the kernel cannot be read: %s", strerror(-result));
		if (ph->p_paddr + ph->p_memsz > last)
			last = ph->p_paddr + ph->p_memsz;
	}
	*end = last;
	return 0;
}

const char *kernel_image_missing_driver(const struct kernel_image *image)
{
	static const struct {
		const char *text, *option;
	} needed[] = {
		{ "virtio-mmio", "CONFIG_VIRTIO_MMIO" },
		{ "virtio_blk", "CONFIG_VIRTIO_BLK" },
		{ "ext4", "CONFIG_EXT4_FS" },
		{ "vmw_vsock_virtio_transport", "CONFIG_VIRTIO_VSOCKETS" },
	};
	const char *missing = NULL;
	void *map = mmap(NULL, image->size_bytes, PROT_READ, MAP_PRIVATE, image->fd, 0);
	if (map == MAP_FAILED)
		return NULL;
	for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]) && !missing; i++)
		if (!memmem(map, image->size_bytes, needed[i].text, strlen(needed[i].text)))
			missing = needed[i].option;
	munmap(map, image->size_bytes);
	return missing;
}
