/* vmm/kernel_image and vmm/unpack: kernels, what only looks like one, and files made to harm. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <lz4.h>
#include <lzma.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <zlib.h>
#include <zstd.h>

#include "tests/unit/fake_driver.h"
#include "tests/unit/fake_kernel.h"
#include "vmm/kernel_image.h"
#include "vmm/unpack.h"

/* ---- packing ---------------------------------------------------------------------------------------------------------------- */

enum format { GZIP, ZSTD, XZ, LZMA, LZ4, FORMATS };
#define LZ4_BLOCK (8u << 20)

static size_t pack_gzip(const uint8_t *from, size_t length, uint8_t *to, size_t room)
{
	z_stream stream = { .next_out = to, .avail_out = (uInt)room, .avail_in = (uInt)length };
	memcpy(&stream.next_in, &from, sizeof(from));
	cr_assert(deflateInit2(&stream, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK);
	cr_assert(deflate(&stream, Z_FINISH) == Z_STREAM_END);
	const size_t used = stream.total_out;
	deflateEnd(&stream);
	return used;
}

static size_t pack_zstd(const uint8_t *from, size_t length, uint8_t *to, size_t room)
{
	ZSTD_CCtx *context = ZSTD_createCCtx();
	ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
	const size_t used = ZSTD_compress2(context, to, room, from, length);
	cr_assert(!ZSTD_isError(used));
	ZSTD_freeCCtx(context);
	return used;
}

static size_t pack_xz(const uint8_t *from, size_t length, uint8_t *to, size_t room)
{
	size_t used = 0;
	cr_assert(lzma_easy_buffer_encode(1, LZMA_CHECK_CRC32, NULL, from, length, to, &used, room) == LZMA_OK);
	return used;
}

static size_t pack_lzma(const uint8_t *from, size_t length, uint8_t *to, size_t room)
{
	lzma_options_lzma options;
	lzma_stream stream = LZMA_STREAM_INIT;
	cr_assert(!lzma_lzma_preset(&options, 1));
	cr_assert(lzma_alone_encoder(&stream, &options) == LZMA_OK);
	stream.next_in = from;
	stream.avail_in = length;
	stream.next_out = to;
	stream.avail_out = room;
	cr_assert(lzma_code(&stream, LZMA_FINISH) == LZMA_STREAM_END);
	const size_t used = stream.total_out;
	lzma_end(&stream);
	return used;
}

/* The legacy frame of `lz4 -l`. */
static size_t pack_lz4(const uint8_t *from, size_t length, uint8_t *to, size_t room)
{
	size_t used = 4;
	fake_put(to, 0, 0x184c2102, 4);
	for (size_t at = 0; at < length; at += LZ4_BLOCK) {
		const size_t block = length - at < LZ4_BLOCK ? length - at : LZ4_BLOCK;
		const int packed =
		    LZ4_compress_default((const char *)from + at, (char *)to + used + 4, (int)block, (int)(room - used - 4));
		cr_assert(packed > 0);
		fake_put(to, used, (uint64_t)packed, 4);
		used += 4 + (size_t)packed;
	}
	return used;
}

static size_t pack(enum format format, const uint8_t *from, size_t length, uint8_t *to, size_t room)
{
	static size_t (*const packers[FORMATS])(const uint8_t *from, size_t length, uint8_t *to,
						size_t room) = { pack_gzip, pack_zstd, pack_xz, pack_lzma, pack_lz4 };
	return packers[format](from, length, to, room);
}

/* Bytes that neither vanish nor resist when packed. */
static uint8_t *make_text(size_t length)
{
	uint64_t seed = 16;
	uint8_t *text = malloc(length + 1);
	const size_t fresh = length < 100000 ? length : 100000;
	for (size_t i = 0; i < fresh; i++)
		text[i] = i >= 64 && fake_below(&seed, 10) ? text[i - 1 - fake_below(&seed, 60)] : (uint8_t)fake_random(&seed);
	for (size_t i = fresh; i < length; i++)
		text[i] = text[i - fresh];
	return text;
}

static int new_file(void)
{
	const int fd = memfd_create("unpacked", MFD_CLOEXEC);
	cr_assert(fd >= 0);
	return fd;
}

static uint64_t size_of(int fd)
{
	struct stat st;
	cr_assert(fstat(fd, &st) == 0);
	return (uint64_t)st.st_size;
}

static void expect_content(int fd, const uint8_t *text, size_t length)
{
	uint8_t *got = malloc(length + 1);
	cr_assert_eq(size_of(fd), length);
	cr_assert_eq(pread(fd, got, length, 0), (ssize_t)length);
	cr_assert(!memcmp(got, text, length));
	free(got);
}

/* ---- unpack.h --------------------------------------------------------------------------------------------------------------- */

static void round_trip(enum format format, size_t length, size_t trailing)
{
	struct error err = { "" };
	uint8_t *text = make_text(length);
	const size_t room = length + length / 4 + 4096;
	uint8_t *packed = malloc(room);
	const size_t used = pack(format, text, length, packed, room - 64);
	/* Just the bytes: the sanitizer guards their end. The kernel's build puts the size behind them. */
	uint8_t *exact = malloc(used + trailing);
	memcpy(exact, packed, used);
	for (size_t i = 0; i < trailing; i++)
		exact[used + i] = (uint8_t)((uint64_t)length >> (8 * i));
	const int fd = new_file();
	cr_assert_eq(unpack_to_fd(exact, used + trailing, fd, 1ull << 30, &err), (int64_t)length, "format %d: %s", (int)format,
		     err.text);
	cr_assert_str_eq(err.text, "");
	expect_content(fd, text, length);
	close(fd);
	free(exact);
	free(packed);
	free(text);
}

Test(unpack, every_format)
{
	for (enum format format = 0; format < FORMATS; format++) {
		round_trip(format, 1, 0);
		round_trip(format, 1000, 0);
		round_trip(format, 262144, 0);
		round_trip(format, 700001, 0);
	}
}

Test(unpack, ignores_the_size_that_stands_behind)
{
	for (enum format format = 0; format < FORMATS; format++) {
		round_trip(format, 1000, 4);
		round_trip(format, 300000, 4);
	}
}

Test(unpack, lz4_in_several_blocks)
{
	round_trip(LZ4, LZ4_BLOCK - 1, 4);
	round_trip(LZ4, LZ4_BLOCK, 0);
	round_trip(LZ4, LZ4_BLOCK, 4);
	round_trip(LZ4, LZ4_BLOCK + 1, 4);
}

Test(unpack, lz4_that_ends_between_blocks_is_truncated)
{
	struct error err = { "" };
	const size_t length = LZ4_BLOCK + 1000;
	uint8_t *text = calloc(1, length), *packed = malloc(length);
	pack(LZ4, text, length, packed, length);
	const size_t first = 4 + 4 + (packed[4] | (size_t)packed[5] << 8 | (size_t)packed[6] << 16);
	for (size_t cut = first + 1; cut < first + 8; cut++) {
		const int fd = new_file();
		cr_assert_eq(unpack_to_fd(packed, cut, fd, 1ull << 30, &err), -EINVAL, "cut %zu bytes behind the block",
			     cut - first);
		close(fd);
	}
	free(packed);
	free(text);
}

/* Of the middle every seventh prefix. */
Test(unpack, truncated_data_is_an_error)
{
	uint8_t *text = make_text(600), packed[2000];
	for (enum format format = 0; format < FORMATS; format++) {
		const size_t used = pack(format, text, 600, packed, sizeof(packed));
		for (size_t length = 0; length < used; length += length < 40 || length + 20 > used ? 1 : 7) {
			struct error err = { "" };
			uint8_t *exact = malloc(length ? length : 1);
			memcpy(exact, packed, length);
			const int fd = new_file();
			const int64_t result = unpack_to_fd(exact, length, fd, 1 << 20, &err);
			cr_assert(result == -EINVAL || (length < 8 && result == -ENOTSUP), "format %d, %zu of %zu bytes: %lld",
				  (int)format, length, used, (long long)result);
			cr_assert(err.text[0]);
			close(fd);
			free(exact);
		}
	}
	free(text);
}

Test(unpack, corrupt_data_never_yields_other_bytes_where_there_is_a_checksum)
{
	uint64_t seed = 17;
	uint8_t *text = make_text(600), packed[2000], broken[2000], got[600];
	for (enum format format = 0; format < FORMATS; format++) {
		const size_t used = pack(format, text, 600, packed, sizeof(packed));
		for (size_t at = 0; at < used; at += 1 + (at > 40) * fake_below(&seed, 5)) {
			struct error err;
			memcpy(broken, packed, used);
			broken[at] ^= (uint8_t)(1u << fake_below(&seed, 8));
			const int fd = new_file();
			const int64_t result = unpack_to_fd(broken, used, fd, 1 << 20, &err);
			cr_assert(result <= 1 << 20 && size_of(fd) <= 1 << 20);
			if (result >= 0 && format < LZMA) {
				cr_assert_eq(result, 600);
				cr_assert_eq(pread(fd, got, 600, 0), 600);
				cr_assert(!memcmp(got, text, 600), "format %d, byte %zu", (int)format, at);
			}
			close(fd);
		}
	}
	free(text);
}

Test(unpack, limit_is_exact)
{
	const size_t length = 300000;
	uint8_t *text = make_text(length), *packed = malloc(2 * length);
	for (enum format format = 0; format < FORMATS; format++) {
		struct error err = { "" };
		const size_t used = pack(format, text, length, packed, 2 * length);
		int fd = new_file();
		cr_assert_eq(unpack_to_fd(packed, used, fd, length, &err), (int64_t)length);
		close(fd);
		fd = new_file();
		cr_assert_eq(unpack_to_fd(packed, used, fd, length - 1, &err), -EFBIG);
		cr_assert(size_of(fd) < length);
		cr_assert(strstr(err.text, "more than"), "%s", err.text);
		close(fd);
	}
	free(packed);
	free(text);
}

/* 12 MiB of zeroes pack to next to nothing. */
Test(unpack, bomb_stops_at_the_limit)
{
	const size_t length = 12u << 20;
	uint8_t *zeroes = calloc(1, length), *packed = malloc(1 << 20);
	for (enum format format = 0; format < FORMATS; format++) {
		struct error err = { "" };
		const size_t used = pack(format, zeroes, length, packed, 1 << 20);
		const int fd = new_file();
		cr_assert_eq(unpack_to_fd(packed, used, fd, 9 << 20, &err), -EFBIG);
		cr_assert(size_of(fd) <= 9 << 20);
		close(fd);
	}
	free(packed);
	free(zeroes);
}

Test(unpack, unknown_formats_are_not_supported)
{
	static const char *const unknown[] = {
		"", "B", "BZh91AY&SY........", "\x89LZO\x00\x0d\x0a\x1a\x0a", "plain text", "\x1f\x9d\x90zzzz"
	};
	for (unsigned i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
		struct error err = { "" };
		const int fd = new_file();
		cr_assert_eq(unpack_to_fd((const uint8_t *)unknown[i], strlen(unknown[i]), fd, 1 << 20, &err), -ENOTSUP);
		cr_assert(strstr(err.text, "not supported"));
		close(fd);
	}
	struct error err;
	cr_assert_eq(unpack_to_fd(NULL, 0, -1, 1, &err), -ENOTSUP);
}

Test(unpack, errors_of_write_are_reported)
{
	uint8_t *text = make_text(1000), packed[4000];
	const int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
	for (enum format format = 0; format < FORMATS; format++) {
		struct error err = { "" };
		const size_t used = pack(format, text, 1000, packed, sizeof(packed));
		cr_assert_eq(unpack_to_fd(packed, used, -1, 1 << 20, &err), -EBADF);
		if (full >= 0)
			cr_assert_eq(unpack_to_fd(packed, used, full, 1 << 20, &err), -ENOSPC);
		cr_assert(err.text[0]);
	}
	free(text);
}

/* ---- opening ---------------------------------------------------------------------------------------------------------------- */

static struct kernel_image image;
static struct error err;

static int open_path(const char *path)
{
	memset(&image, 0x5c, sizeof(image));
	struct kernel_image before;
	memcpy(&before, &image, sizeof(before));
	err.text[0] = '\0';
	const int free_fd = dup(STDERR_FILENO);
	close(free_fd);
	const int result = kernel_image_open(path, NULL, &image, &err);
	if (result < 0) {
		cr_assert(!memcmp(&before, &image, sizeof(before)), "the image was touched");
		const int now_free = dup(STDERR_FILENO);
		close(now_free);
		cr_assert_eq(free_fd, now_free, "a descriptor leaks");
		cr_assert(!strncmp(err.text, "kernel '", 8), "%s", err.text);
		cr_assert(!strchr(err.text, '\n'));
	} else {
		cr_assert_str_eq(err.text, "");
	}
	return result;
}

static int open_bytes(const void *bytes, size_t length)
{
	struct fake_file file;
	fake_file_make(&file, bytes, length);
	const int result = open_path(file.path);
	close(file.fd);
	return result;
}

static void expect_refused(const void *bytes, size_t length, int code, const char *words)
{
	cr_assert_eq(open_bytes(bytes, length), code, "%s", err.text);
	cr_assert(strstr(err.text, words), "'%s' is not in: %s", words, err.text);
}

static void expect_open(const void *bytes, size_t length)
{
	cr_assert_eq(open_bytes(bytes, length), 0, "%s", err.text);
}

Test(kernel, no_such_file)
{
	cr_assert_eq(open_path("/nowhere/at/all"), -ENOENT);
	cr_assert(strstr(err.text, "/nowhere/at/all") && strstr(err.text, "No such file"));
	cr_assert_eq(open_path(""), -ENOENT);
}

Test(kernel, directory)
{
	cr_assert_eq(open_path("/tmp"), -EISDIR);
	cr_assert(strstr(err.text, "is a directory"));
}

Test(kernel, device_or_fifo)
{
	cr_assert_eq(open_path("/dev/null"), -EINVAL);
	char path[64];
	snprintf(path, sizeof(path), "/tmp/trvmm-test-fifo-%d", (int)getpid());
	cr_assert(mkfifo(path, 0600) == 0);
	cr_assert_eq(open_path(path), -EINVAL); /* and does not wait for a writer */
	unlink(path);
	cr_assert(strstr(err.text, "no regular file"));
}

Test(kernel, name_is_quoted_in_the_message)
{
	cr_assert_eq(open_path("/nowhere/a\nb\x1b[2J"), -ENOENT);
	cr_assert(strstr(err.text, "/nowhere/a\\x0ab\\x1b[2J"));
	char path[3000];
	memset(path, 'n', sizeof(path));
	path[0] = '/';
	path[sizeof(path) - 1] = '\0';
	cr_assert_eq(open_path(path), -ENAMETOOLONG);
	cr_assert(strstr(err.text, "...': "));
}

Test(kernel, empty_file)
{
	expect_refused("", 0, -ENOEXEC, "is no kernel");
}

Test(kernel, file_that_is_no_kernel)
{
	static char text[5000];
	memset(text, '#', sizeof(text));
	expect_refused(text, 1, -ENOEXEC, "is no kernel");
	expect_refused(text, 3, -ENOEXEC, "is no kernel");
	expect_refused(text, sizeof(text), -ENOEXEC, "neither a bzImage nor an ELF");
	expect_refused("\x7f"
		       "ELF",
		       4, -ENOEXEC, "too short");
}

Test(kernel, elf_is_opened)
{
	struct fake_elf elf;
	fake_elf_init(&elf);
	expect_open(&elf, sizeof(elf));
	cr_assert(image.fd >= 0 && !image.from_bzimage && image.size_bytes == sizeof(elf));
	cr_assert(image.entry == FAKE_KERNEL_START + 16 && image.pvh_entry == FAKE_KERNEL_PVH_ENTRY);
	kernel_image_close(&image);
	cr_assert_eq(image.fd, -1);
	kernel_image_close(&image);
}

Test(kernel, elf_cut_anywhere)
{
	struct fake_elf elf;
	fake_elf_init(&elf);
	for (size_t length = 0; length < sizeof(elf); length++) {
		uint8_t bytes[sizeof(elf)];
		memcpy(bytes, &elf, length);
		expect_refused(bytes, length, -ENOEXEC, length < sizeof(elf.header) ? "is no kernel" : "is truncated");
	}
}

Test(kernel, elf_for_other_machines_names_them)
{
	static const struct {
		uint16_t machine;
		const char *name;
	} machines[] = { { EM_AARCH64, "ARM64" }, { EM_386, "32-bit x86" }, { EM_ARM, "ARM" },      { EM_RISCV, "RISC-V" },
			 { EM_PPC64, "POWER" },   { EM_S390, "s390" },      { EM_NONE, "another" }, { 0xffff, "another" } };
	for (unsigned i = 0; i < sizeof(machines) / sizeof(machines[0]); i++) {
		struct fake_elf elf;
		fake_elf_init(&elf);
		elf.header.e_machine = machines[i].machine;
		expect_refused(&elf, sizeof(elf), -ENOEXEC, machines[i].name);
	}
}

/* A 32-bit file has its machine at the same place, but is shorter. */
Test(kernel, elf_for_i386_with_its_own_header)
{
	Elf32_Ehdr elf = { .e_type = ET_EXEC, .e_machine = EM_386, .e_phentsize = sizeof(Elf32_Phdr), .e_phnum = 1 };
	uint8_t bytes[200] = { 0 };
	memcpy(elf.e_ident, ELFMAG, SELFMAG);
	elf.e_ident[EI_CLASS] = ELFCLASS32;
	memcpy(bytes, &elf, sizeof(elf));
	expect_refused(bytes, sizeof(bytes), -ENOEXEC, "32-bit x86");
}

Test(kernel, arm64_image_file)
{
	uint8_t bytes[100] = "MZ";
	memcpy(bytes + 0x38, "ARM\x64", 4);
	expect_refused(bytes, sizeof(bytes), -ENOEXEC, "ARM64");
}

Test(kernel, x32_elf)
{
	struct fake_elf elf;
	fake_elf_init(&elf);
	elf.header.e_ident[EI_CLASS] = ELFCLASS32;
	expect_refused(&elf, sizeof(elf), -ENOEXEC, "no 64-bit kernel");
}

Test(kernel, elf_that_is_a_program_library_or_object)
{
	const uint16_t types[] = { ET_NONE, ET_REL, ET_DYN, ET_CORE, 0xffff };
	for (unsigned i = 0; i < 5; i++) {
		struct fake_elf elf;
		fake_elf_init(&elf);
		elf.header.e_type = types[i];
		expect_refused(&elf, sizeof(elf), -ENOEXEC, "no kernel");
	}
}

Test(kernel, elf_with_unusable_program_headers)
{
	struct fake_elf elf;
	const uint16_t counts[] = { 0, 129, 0x7fff, 0xffff };
	for (unsigned i = 0; i < 4; i++) {
		fake_elf_init(&elf);
		elf.header.e_phnum = counts[i];
		expect_refused(&elf, sizeof(elf), -ENOEXEC, "unusable");
	}
	const uint16_t sizes[] = { 0, 55, 57, 32, 0xffff };
	for (unsigned i = 0; i < 5; i++) {
		fake_elf_init(&elf);
		elf.header.e_phentsize = sizes[i];
		expect_refused(&elf, sizeof(elf), -ENOEXEC, "unusable");
	}
	const uint64_t offsets[] = { sizeof(elf), sizeof(elf) - 3 * sizeof(Elf64_Phdr) + 1, 1ull << 40, INT64_MAX, 1ull << 63,
				     UINT64_MAX };
	for (unsigned i = 0; i < 6; i++) {
		fake_elf_init(&elf);
		elf.header.e_phoff = offsets[i];
		expect_refused(&elf, sizeof(elf), -ENOEXEC, "truncated");
	}
}

Test(kernel, elf_with_nothing_to_load)
{
	struct fake_elf elf;
	fake_elf_init(&elf);
	elf.text.p_type = elf.data.p_type = PT_NULL;
	expect_refused(&elf, sizeof(elf), -ENOEXEC, "nothing to load");
}

Test(kernel, segment_outside_the_file)
{
	const uint64_t values[] = { sizeof(struct fake_elf), 1ull << 32, 1ull << 62, INT64_MAX, 1ull << 63,
				    UINT64_MAX - 5,          UINT64_MAX };
	for (unsigned i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		struct fake_elf elf;
		fake_elf_init(&elf);
		elf.text.p_offset = values[i];
		expect_refused(&elf, sizeof(elf), -ENOEXEC, "truncated");
		fake_elf_init(&elf);
		elf.text.p_filesz = values[i];
		expect_refused(&elf, sizeof(elf), -ENOEXEC, "truncated");
	}
}

/* ---- the PVH note ----------------------------------------------------------------------------------------------------------- */

static uint64_t pvh_entry(const struct fake_elf *elf)
{
	expect_open(elf, sizeof(*elf));
	const uint64_t entry = image.pvh_entry;
	kernel_image_close(&image);
	return entry;
}

Test(pvh_note, value_of_four_bytes)
{
	struct fake_elf elf;
	fake_elf_init(&elf);
	elf.notes[1].header.n_descsz = 4;
	elf.notes[1].value[1] = 0xffffffff; /* not part of it */
	cr_assert_eq(pvh_entry(&elf), FAKE_KERNEL_PVH_ENTRY);
}

Test(pvh_note, value_of_another_size_is_none)
{
	const uint32_t sizes[] = { 0, 1, 3, 5, 7, 9 };
	for (unsigned i = 0; i < 6; i++) {
		struct fake_elf elf;
		fake_elf_init(&elf);
		elf.notes[1].header.n_descsz = sizes[i];
		cr_assert_eq(pvh_entry(&elf), 0);
	}
}

/* A 32-bit entry cannot lie above 4 GiB. */
Test(pvh_note, entry_over_32_bits_is_none)
{
	struct fake_elf elf;
	fake_elf_init(&elf);
	elf.notes[1].value[1] = 1;
	cr_assert_eq(pvh_entry(&elf), 0);
}

Test(pvh_note, other_name_or_type_is_none)
{
	struct fake_elf elf;
	fake_elf_init(&elf);
	memcpy(elf.notes[1].name, "GNU", 4);
	cr_assert_eq(pvh_entry(&elf), 0);
	fake_elf_init(&elf);
	elf.notes[1].header.n_type = 17;
	cr_assert_eq(pvh_entry(&elf), 0);
	fake_elf_init(&elf);
	elf.notes[1].header.n_namesz = 3;
	cr_assert_eq(pvh_entry(&elf), 0);
	fake_elf_init(&elf);
	elf.note.p_type = PT_NULL;
	cr_assert_eq(pvh_entry(&elf), 0);
}

Test(pvh_note, hostile_sizes)
{
	const uint32_t sizes[] = { 0x7fffffff, 0x80000000, 0xfffffffc, 0xfffffffd, 0xfffffff0, 0xffffffff, sizeof(struct fake_note),
				   1000 };
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		for (unsigned note = 0; note < 2; note++) {
			struct fake_elf elf;
			fake_elf_init(&elf);
			elf.notes[note].header.n_namesz = sizes[i];
			cr_assert_eq(pvh_entry(&elf), 0);
			fake_elf_init(&elf);
			elf.notes[note].header.n_descsz = sizes[i];
			cr_assert_eq(pvh_entry(&elf), 0);
			elf.notes[note].header.n_namesz = sizes[i];
			cr_assert_eq(pvh_entry(&elf), 0);
		}
	}
}

Test(pvh_note, segment_cut_in_the_note)
{
	for (uint64_t length = 0; length <= sizeof(struct fake_note) * 2; length++) {
		struct fake_elf elf;
		fake_elf_init(&elf);
		elf.note.p_filesz = length;
		cr_assert_eq(pvh_entry(&elf), length == sizeof(struct fake_note) * 2 ? FAKE_KERNEL_PVH_ENTRY : 0);
	}
}

Test(pvh_note, segment_outside_the_file)
{
	struct fake_elf elf;
	fake_elf_init(&elf);
	elf.note.p_filesz = UINT64_MAX;
	expect_refused(&elf, sizeof(elf), -ENOEXEC, "truncated");
}

Test(pvh_note, overlong_segment_is_not_searched)
{
	static uint8_t bytes[sizeof(struct fake_elf) + (65u << 10)];
	struct fake_elf elf;
	fake_elf_init(&elf);
	elf.note.p_filesz = (64u << 10) + 1;
	memcpy(bytes, &elf, sizeof(elf));
	expect_open(bytes, sizeof(bytes));
	cr_assert_eq(image.pvh_entry, 0);
	kernel_image_close(&image);
}

/* ---- loading ---------------------------------------------------------------------------------------------------------------- */

#define RAM_BYTES (4u << 20)

static int load(const struct fake_elf *elf, uint32_t ram_bytes, gpa_t *end, uint8_t **ram)
{
	struct guest_mem mem;
	*ram = calloc(1, ram_bytes);
	guest_mem_from_buffer(&mem, 0, *ram, ram_bytes);
	expect_open(elf, sizeof(*elf));
	const int result = kernel_image_load(&image, &mem, end, &err);
	kernel_image_close(&image);
	return result;
}

static void expect_loads(const struct fake_elf *elf, uint32_t ram_bytes)
{
	uint8_t *ram;
	gpa_t end = 0;
	cr_assert_eq(load(elf, ram_bytes, &end, &ram), 0, "%s", err.text);
	free(ram);
}

static void expect_does_not_load(const struct fake_elf *elf)
{
	uint8_t *ram;
	gpa_t end = 77;
	cr_assert_eq(load(elf, RAM_BYTES, &end, &ram), -ENOMEM);
	cr_assert_eq(end, 77);
	cr_assert(strstr(err.text, "--memory"), "%s", err.text);
	free(ram);
}

Test(kernel_load, segments_go_to_their_physical_addresses)
{
	struct fake_elf elf;
	uint8_t *ram;
	gpa_t end = 0;
	fake_elf_init(&elf);
	cr_assert_eq(load(&elf, RAM_BYTES, &end, &ram), 0);
	cr_assert_eq(end, FAKE_KERNEL_DATA + sizeof(elf.values) + FAKE_KERNEL_BSS_BYTES);
	cr_assert(!memcmp(ram + FAKE_KERNEL_START, elf.code, sizeof(elf.code)));
	cr_assert(!memcmp(ram + FAKE_KERNEL_DATA, elf.values, sizeof(elf.values)));
	/* Nothing else was written. */
	memset(ram + FAKE_KERNEL_START, 0, sizeof(elf.code));
	memset(ram + FAKE_KERNEL_DATA, 0, sizeof(elf.values));
	for (size_t i = 0; i < RAM_BYTES; i++)
		cr_assert_eq(ram[i], 0);
	free(ram);
}

Test(kernel_load, end_is_of_the_highest_segment)
{
	struct fake_elf elf;
	uint8_t *ram;
	gpa_t end = 0;
	fake_elf_init(&elf);
	elf.data.p_paddr = 0x100000;
	cr_assert_eq(load(&elf, RAM_BYTES, &end, &ram), 0);
	cr_assert_eq(end, FAKE_KERNEL_START + sizeof(elf.code));
	free(ram);
}

Test(kernel_load, segment_that_ends_with_ram)
{
	struct fake_elf elf;
	fake_elf_init(&elf);
	elf.data.p_paddr = RAM_BYTES - elf.data.p_memsz;
	expect_loads(&elf, RAM_BYTES);
	elf.data.p_paddr++;
	expect_does_not_load(&elf);
}

Test(kernel_load, segments_outside_ram)
{
	const uint64_t addresses[] = { RAM_BYTES, 0xd0000000, 1ull << 32, 1ull << 63, UINT64_MAX - 100, UINT64_MAX };
	for (unsigned i = 0; i < 6; i++) {
		struct fake_elf elf;
		fake_elf_init(&elf);
		elf.data.p_paddr = addresses[i];
		expect_does_not_load(&elf);
	}
	const uint64_t sizes[] = { RAM_BYTES, 1ull << 32, 0ull - FAKE_KERNEL_DATA, 0ull - FAKE_KERNEL_DATA + 1, UINT64_MAX };
	for (unsigned i = 0; i < 5; i++) {
		struct fake_elf elf;
		fake_elf_init(&elf);
		elf.data.p_memsz = sizes[i];
		expect_does_not_load(&elf);
	}
}

Test(kernel_load, segment_with_more_in_the_file_than_in_memory)
{
	struct fake_elf elf;
	uint8_t *ram;
	gpa_t end;
	fake_elf_init(&elf);
	elf.data.p_memsz = elf.data.p_filesz - 1;
	cr_assert(load(&elf, RAM_BYTES, &end, &ram) < 0);
	free(ram);
}

Test(kernel_load, empty_segments_are_skipped)
{
	struct fake_elf elf;
	fake_elf_init(&elf);
	elf.data.p_memsz = elf.data.p_filesz = 0;
	elf.data.p_paddr = UINT64_MAX;
	expect_loads(&elf, RAM_BYTES);
	fake_elf_init(&elf);
	elf.data.p_filesz = 0; /* .bss alone */
	expect_loads(&elf, RAM_BYTES);
}

Test(kernel_load, file_that_shrank_since_it_was_opened)
{
	struct fake_elf elf;
	struct fake_file file;
	struct guest_mem mem;
	gpa_t end;
	uint8_t *ram = calloc(1, RAM_BYTES);
	guest_mem_from_buffer(&mem, 0, ram, RAM_BYTES);
	fake_elf_init(&elf);
	fake_file_make(&file, &elf, sizeof(elf));
	cr_assert_eq(open_path(file.path), 0);
	const size_t cuts[] = { sizeof(elf) - 1, sizeof(elf.header) + 1, 1, 0 };
	for (unsigned i = 0; i < 4; i++) {
		cr_assert(ftruncate(file.fd, (off_t)cuts[i]) == 0);
		cr_assert(kernel_image_load(&image, &mem, &end, &err) < 0);
	}
	kernel_image_close(&image);
	free(ram);
}

/* ---- bzImage ---------------------------------------------------------------------------------------------------------------- */

static uint8_t bz[64 << 10];

/* A bzImage of the small kernel. */
static size_t make_bz(enum format format)
{
	static uint8_t payload[16 << 10];
	struct fake_elf elf;
	fake_elf_init(&elf);
	const size_t used = pack(format, (const uint8_t *)&elf, sizeof(elf), payload, sizeof(payload) - 4);
	fake_put(payload, used, sizeof(elf), 4);
	return fake_bzimage(bz, payload, used + 4);
}

/* The header points to the version's text; what it points to may be anything. */
Test(bzimage, release)
{
	static const struct {
		const char *text;
		uint64_t pointer;
		const char *release;
	} cases[] = {
		{ "6.1.0-56-amd64 (debian-kernel@lists.debian.org) #1 SMP", 0x100, "6.1.0-56-amd64" },
		{ "6.1.0-56-amd64 (debian-kernel@lists.debian.org) #1 SMP", 0, "" },
		{ "6.1\n#1", 0x100, "6.1" },
		{ " 6.1", 0x100, "" },
		{ "6.1", 0xffff, "" },
		{ "0123456789012345678901234567890123456789012345678901234567890123456789", 0x100,
		  "012345678901234567890123456789012345678901234567890123456789012" },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const size_t size = make_bz(GZIP);
		strcpy((char *)bz + 0x300, cases[i].text);
		fake_put(bz, 0x20e, cases[i].pointer, 2);
		expect_open(bz, size);
		cr_expect_str_eq(image.release, cases[i].release);
		kernel_image_close(&image);
	}
}

Test(bzimage, every_compression)
{
	struct fake_elf elf;
	fake_elf_init(&elf);
	for (enum format format = 0; format < FORMATS; format++) {
		const size_t size = make_bz(format);
		expect_open(bz, size);
		cr_assert(image.from_bzimage && image.size_bytes == sizeof(elf));
		cr_assert(image.entry == FAKE_KERNEL_START + 16 && image.pvh_entry == FAKE_KERNEL_PVH_ENTRY);
		expect_content(image.fd, (const uint8_t *)&elf, sizeof(elf));
		kernel_image_close(&image);
	}
}

Test(bzimage, setup_header_is_kept_as_long_as_it_says)
{
	const size_t size = make_bz(GZIP);
	for (unsigned jump = 0; jump < 256; jump++) {
		bz[FAKE_BZ_JUMP] = (uint8_t)jump;
		expect_open(bz, size);
		const size_t end = 0x202 + jump < 0x290 ? 0x202 + jump : 0x290;
		cr_assert(!memcmp(image.setup_header, bz + 0x1f1, end - 0x1f1));
		for (size_t i = end - 0x1f1; i < sizeof(image.setup_header); i++)
			cr_assert_eq(image.setup_header[i], 0);
		kernel_image_close(&image);
	}
}

Test(bzimage, boot_protocol_before_2_08)
{
	const size_t size = make_bz(GZIP);
	fake_put(bz, FAKE_BZ_VERSION, 0x207, 2);
	expect_refused(bz, size, -ENOEXEC, "boot protocol 2.07");
	fake_put(bz, FAKE_BZ_VERSION, 0, 2);
	expect_refused(bz, size, -ENOEXEC, "boot protocol 0.00");
	fake_put(bz, FAKE_BZ_VERSION, 0x208, 2);
	expect_open(bz, size);
	kernel_image_close(&image);
}

Test(bzimage, for_32_bit_x86)
{
	const size_t size = make_bz(GZIP);
	fake_put(bz, FAKE_BZ_XLOADFLAGS, 0xfffe, 2);
	expect_refused(bz, size, -ENOEXEC, "32-bit x86");
	fake_put(bz, FAKE_BZ_VERSION, 0x20c, 2);
	expect_refused(bz, size, -ENOEXEC, "32-bit x86");
	/* Before 2.12 there was no such flag. */
	fake_put(bz, FAKE_BZ_VERSION, 0x20b, 2);
	expect_open(bz, size);
	kernel_image_close(&image);
}

Test(bzimage, no_setup_sectors_means_four)
{
	const size_t size = make_bz(GZIP);
	static uint8_t moved[80 << 10];
	memcpy(moved, bz, FAKE_BZ_PAYLOAD);
	memcpy(moved + FAKE_BZ_PAYLOAD + 512, bz + FAKE_BZ_PAYLOAD, size - FAKE_BZ_PAYLOAD);
	moved[FAKE_BZ_SETUP_SECTS] = 0;
	expect_open(moved, size + 512);
	kernel_image_close(&image);
}

Test(bzimage, without_its_magic_numbers)
{
	size_t size = make_bz(GZIP);
	bz[FAKE_BZ_MAGIC] = 'h';
	expect_refused(bz, size, -ENOEXEC, "neither a bzImage");
	size = make_bz(GZIP);
	bz[FAKE_BZ_BOOT_FLAG] = 0;
	expect_refused(bz, size, -ENOEXEC, "neither a bzImage");
}

Test(bzimage, cut_anywhere)
{
	const size_t size = make_bz(ZSTD);
	for (size_t length = 0; length < size; length += length < 0x280 || length > 0x2a0 ? 7 : 1)
		expect_refused(bz, length, -ENOEXEC, length < 0x290 ? "is no kernel" : "is truncated");
}

Test(bzimage, payload_outside_the_file)
{
	const uint32_t values[] = { 0xffffffff, 0x80000000, 0x7fffffff, 1u << 20 };
	for (unsigned i = 0; i < 4; i++) {
		size_t size = make_bz(GZIP);
		fake_put(bz, FAKE_BZ_PAYLOAD_OFFSET, values[i], 4);
		expect_refused(bz, size, -ENOEXEC, "truncated");
		size = make_bz(GZIP);
		fake_put(bz, FAKE_BZ_PAYLOAD_LENGTH, values[i], 4);
		expect_refused(bz, size, -ENOEXEC, "truncated");
		fake_put(bz, FAKE_BZ_PAYLOAD_OFFSET, values[i], 4);
		expect_refused(bz, size, -ENOEXEC, "truncated");
	}
}

Test(bzimage, empty_payload)
{
	const size_t size = make_bz(GZIP);
	fake_put(bz, FAKE_BZ_PAYLOAD_LENGTH, 0, 4);
	cr_assert_eq(open_bytes(bz, size), -ENOEXEC);
}

Test(bzimage, payload_of_unknown_compression)
{
	const size_t size = fake_bzimage(bz, "BZh91AY&SYxxxxxx", 16);
	expect_refused(bz, size, -ENOTSUP, "compression is not supported");
}

Test(bzimage, corrupt_payload)
{
	for (enum format format = GZIP; format <= XZ; format++) {
		const size_t size = make_bz(format);
		for (size_t i = 0; i < 40; i++)
			bz[size - 60 + i] ^= 0x55;
		expect_refused(bz, size, -EINVAL, "corrupt");
	}
}

Test(bzimage, payload_shorter_than_the_stream)
{
	for (enum format format = 0; format < FORMATS; format++) {
		const size_t size = make_bz(format);
		fake_put(bz, FAKE_BZ_PAYLOAD_LENGTH, size - FAKE_BZ_PAYLOAD - 30, 4);
		expect_refused(bz, size, -EINVAL, "corrupt or truncated");
	}
}

Test(bzimage, payload_that_is_no_elf)
{
	uint8_t payload[200];
	const size_t used = pack(GZIP, (const uint8_t *)"just some text", 14, payload, sizeof(payload));
	expect_refused(bz, fake_bzimage(bz, payload, used), -ENOEXEC, "payload is no ELF");
	const size_t none = pack(GZIP, (const uint8_t *)"", 0, payload, sizeof(payload));
	expect_refused(bz, fake_bzimage(bz, payload, none), -ENOEXEC, "payload is no ELF");
}

Test(bzimage, payload_that_is_another_machines_elf)
{
	struct fake_elf elf;
	static uint8_t payload[4096];
	fake_elf_init(&elf);
	elf.header.e_machine = EM_386;
	const size_t used = pack(XZ, (const uint8_t *)&elf, sizeof(elf), payload, sizeof(payload));
	expect_refused(bz, fake_bzimage(bz, payload, used), -ENOEXEC, "32-bit x86");
}

/* ---- drivers ---------------------------------------------------------------------------------------------------------------- */

Test(kernel_drivers, missing_one_is_named)
{
	static const struct {
		const char *text, *option;
	} drivers[] = { { "virtio-mmio", "CONFIG_VIRTIO_MMIO" },
			{ "virtio_blk", "CONFIG_VIRTIO_BLK" },
			{ "ext4", "CONFIG_EXT4_FS" },
			{ "vmw_vsock_virtio_transport", "CONFIG_VIRTIO_VSOCKETS" } };
	for (unsigned missing = 0; missing <= 4; missing++) {
		struct fake_elf elf;
		size_t at = 0;
		fake_elf_init(&elf);
		for (unsigned i = 0; i < 4; i++) {
			if (i == missing)
				continue;
			memcpy(elf.code + at, drivers[i].text, strlen(drivers[i].text));
			at += strlen(drivers[i].text) + 1;
		}
		expect_open(&elf, sizeof(elf));
		const char *option = kernel_image_missing_driver(&image);
		if (missing == 4)
			cr_assert_null(option);
		else
			cr_assert(option && !strcmp(option, drivers[missing].option));
		kernel_image_close(&image);
	}
}

/* ---- anything --------------------------------------------------------------------------------------------------------------- */

/* Opens and loads what the mutations left; whatever comes of it, the sanitizers and the assertions of open_path() watch. */
static void try(const uint8_t *bytes, size_t length, unsigned *opened)
{
	static uint8_t ram[RAM_BYTES];
	struct guest_mem mem;
	gpa_t end;
	guest_mem_from_buffer(&mem, 0, ram, RAM_BYTES);
	if (open_bytes(bytes, length) < 0)
		return;
	(*opened)++;
	(void)kernel_image_missing_driver(&image);
	(void)kernel_image_load(&image, &mem, &end, &err);
	kernel_image_close(&image);
}

static void mutate(uint64_t *seed, uint8_t *bytes, size_t length)
{
	static const uint8_t favourites[] = { 0, 1, 4, 0x7f, 0x80, 0xff };
	for (unsigned count = 1 + fake_below(seed, 6); count; count--) {
		const size_t at = fake_below(seed, (uint32_t)(fake_below(seed, 2) ? length : length < 300 ? length : 300));
		if (fake_below(seed, 2))
			bytes[at] ^= (uint8_t)(1u << fake_below(seed, 8));
		else
			memset(bytes + at, favourites[fake_below(seed, 6)],
			       length - at < 8 ? length - at : 1 + fake_below(seed, 8));
	}
}

Test(kernel_random, mutated_elf)
{
	uint64_t seed = 18;
	unsigned opened = 0;
	for (unsigned round = 0; round < 6000; round++) {
		struct fake_elf elf;
		fake_elf_init(&elf);
		mutate(&seed, (uint8_t *)&elf, sizeof(elf));
		try((const uint8_t *)&elf, fake_below(&seed, 8) ? sizeof(elf) : fake_below(&seed, sizeof(elf)), &opened);
	}
	cr_assert(opened > 500, "only %u of the files got past the checks", opened);
}

Test(kernel_random, mutated_bzimage)
{
	uint64_t seed = 19;
	unsigned opened = 0;
	for (unsigned round = 0; round < 500; round++) {
		const size_t size = make_bz(round % FORMATS);
		mutate(&seed, bz + 0x1f1, fake_below(&seed, 2) ? 0x290 - 0x1f1 : size - 0x1f1);
		if (fake_below(&seed, 3) == 0)
			mutate(&seed, bz + FAKE_BZ_PAYLOAD, size - FAKE_BZ_PAYLOAD);
		try(bz, size, &opened);
	}
	cr_assert(opened > 100, "only %u of the files got past the checks", opened);
}

Test(kernel_random, mutated_elf_in_a_bzimage)
{
	uint64_t seed = 20;
	unsigned opened = 0;
	static uint8_t payload[4096];
	for (unsigned round = 0; round < 500; round++) {
		struct fake_elf elf;
		fake_elf_init(&elf);
		mutate(&seed, (uint8_t *)&elf, sizeof(elf));
		const size_t used = pack(GZIP, (const uint8_t *)&elf, sizeof(elf), payload, sizeof(payload));
		try(bz, fake_bzimage(bz, payload, used), &opened);
	}
	cr_assert(opened > 100, "only %u of the files got past the checks", opened);
}
