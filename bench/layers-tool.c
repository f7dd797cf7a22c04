/*
 * layers-tool: what bench/layers measures, one thing at a time in a process of its own. Each command prints one JSON object.
 *
 *   make-tar FILE ENTRIES MAX_BYTES    a tar layer: directories of nine, files of up to MAX_BYTES, symbolic and hard links
 *   disk CACHE LAYER...                from layers to a disk that can be read
 *   inflate FILE                       the codec alone, to nothing
 *   image IMAGE CACHE LAYER...         writes the disk as a sparse file, for the next one; not measured
 *   reads IMAGE COUNT CACHE LAYER...   COUNT random reads of 4 KiB from the disk, and the same ones from the file; before that
 *                                      all of the disk in a row, twice
 *
 * It calls the library as the program does. Times are of this process's clock around the work, so starting a process is not in them.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "devices/virtio-blk/disk_ext4.h"
#include "ext4gen/ext4gen.h"
#include "layers/codec_internal.h"
#include "layers/layers.h"

#define WRITE_BYTES (1u << 20)

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what, const char *why)
{
	fprintf(stderr, "layers-tool: %s: %s\n", what, why);
	exit(1);
}

static uint64_t random_next(uint64_t *state)
{
	uint64_t v = *state += 0x9E3779B97F4A7C15u;
	v = (v ^ v >> 30) * 0xBF58476D1CE4E5B9u;
	v = (v ^ v >> 27) * 0x94D049BB133111EBu;
	return v ^ v >> 31;
}

/* ---- make-tar ---------------------------------------------------------------------------------------------------------------- */

struct ustar {
	char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100], magic[8], user[32], group[32];
	char major[8], minor[8], prefix[155], rest[12];
};

static void put_header(FILE *out, const char *name, char type, uint64_t size, const char *link)
{
	struct ustar h = { .type = type, .magic = "ustar" };
	memcpy(h.magic + 6, "00", 2);
	snprintf(h.name, sizeof(h.name), "%s", name);
	snprintf(h.link, sizeof(h.link), "%s", link);
	snprintf(h.mode, sizeof(h.mode), "%07o", type == '5' ? 0755 : 0644);
	snprintf(h.uid, sizeof(h.uid), "%07o", 1000);
	snprintf(h.gid, sizeof(h.gid), "%07o", 1000);
	snprintf(h.size, sizeof(h.size), "%011o", (unsigned)size);
	snprintf(h.mtime, sizeof(h.mtime), "%011o", 1700000000);
	memset(h.checksum, ' ', sizeof(h.checksum));
	unsigned sum = 0;
	for (size_t i = 0; i < sizeof(h); i++)
		sum += ((const unsigned char *)&h)[i];
	snprintf(h.checksum, sizeof(h.checksum), "%06o", sum);
	fwrite(&h, sizeof(h), 1, out);
}

/* Contents that compress about as programs do: half of it random, half of it the same. */
static void put_contents(FILE *out, uint64_t size, uint64_t *state)
{
	const uint64_t padded = (size + 511) / 512 * 512;
	for (uint64_t i = 0; i < padded; i += 8) {
		const uint64_t word = i >= size ? 0 : i % 16 ? 0x6F6E652074776F20u : random_next(state);
		fwrite(&word, 8, 1, out);
	}
}

/* Names like usr-0012/lib-03/file-000123: two levels of directories above the files, entries in the order of a depth-first walk. */
static void make_tar(const char *path, uint64_t entries, uint64_t max_bytes)
{
	FILE *out = fopen(path, "w");
	if (!out)
		die(path, strerror(errno));
	/* In pieces as large as the image's below: Linux keeps a file in pieces of the size in which it was written, and they matter. */
	static char buffer[WRITE_BYTES];
	setvbuf(out, buffer, _IOFBF, sizeof(buffer));
	char top[32] = "", directory[64] = "", name[100], last_file[100] = "";
	uint64_t state = 1;
	for (uint64_t i = 0; i < entries; i++) {
		if (i % 100 == 0) {
			snprintf(top, sizeof(top), "usr-%06llu", (unsigned long long)i);
			put_header(out, top, '5', 0, "");
		} else if (i % 10 == 1) {
			snprintf(directory, sizeof(directory), "%s/lib-%02llu", top, (unsigned long long)(i % 100));
			put_header(out, directory, '5', 0, "");
		} else if (i % 20 == 5) {
			snprintf(name, sizeof(name), "%s/link-%06llu", directory, (unsigned long long)i);
			put_header(out, name, '2', 0, "../somewhere/else");
		} else if (i % 100 == 17) {
			snprintf(name, sizeof(name), "%s/hard-%06llu", directory, (unsigned long long)i);
			put_header(out, name, '1', 0, last_file);
		} else {
			const uint64_t size = random_next(&state) % (max_bytes + 1);
			snprintf(last_file, sizeof(last_file), "%s/file-%06llu", i % 100 ? directory : top, (unsigned long long)i);
			put_header(out, last_file, '0', size, "");
			put_contents(out, size, &state);
		}
	}
	static const char end[1024];
	fwrite(end, sizeof(end), 1, out);
	if (ferror(out) | fclose(out))
		die(path, "cannot be written");
	printf("{\"entries\": %llu}\n", (unsigned long long)entries);
}

/* ---- disks ------------------------------------------------------------------------------------------------------------------- */

struct loaded {
	struct tree *tree;
	struct ext4_plan *plan;
	struct disk *disk;
	uint64_t load_ns, plan_ns;
};

static struct loaded load(const char *cache, char **layers, int count)
{
	struct loaded loaded = { 0 };
	struct error err = { "" };
	const char *paths[64];
	for (int i = 0; i < count && i < 64; i++)
		paths[i] = layers[i];
	const uint64_t start = now_ns();
	if (layers_load(paths, (size_t)count, NULL, 0, cache, &loaded.tree, &err))
		die(layers[0], err.text);
	const uint64_t loaded_at = now_ns();
	const struct ext4_options options = { .size_bytes = 0 };
	if (ext4_plan_build(loaded.tree, &options, &loaded.plan, &err) || disk_ext4_create(loaded.plan, false, &loaded.disk))
		die(layers[0], err.text);
	loaded.load_ns = loaded_at - start;
	loaded.plan_ns = now_ns() - loaded_at;
	return loaded;
}

static void unload(struct loaded *loaded)
{
	disk_destroy(loaded->disk);
	ext4_plan_destroy(loaded->plan);
	tree_destroy(loaded->tree);
}

/* Pages of this process that are in memory, in bytes: its own and those of mapped files. (/proc/self/statm is off by some.) */
static uint64_t resident_bytes(void)
{
	char line[256];
	unsigned long long kib = 0;
	FILE *file = fopen("/proc/self/smaps_rollup", "r");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "Rss: %llu kB", &kib) == 1)
			break;
	if (!kib)
		die("/proc/self/smaps_rollup", "cannot be read");
	fclose(file);
	return kib << 10;
}

static void measure_disk(const char *cache, char **layers, int count)
{
	const uint64_t before = resident_bytes();
	struct loaded loaded = load(cache, layers, count);
	const uint64_t after = resident_bytes();
	/* Readable: the superblock and the root's inode come out of it. */
	uint8_t block[4096];
	const struct iovec iov = { block, sizeof(block) };
	if (loaded.disk->ops->readv(loaded.disk, 0, &iov, 1))
		die(layers[0], "cannot be read");
	uint64_t names = 0;
	for (uint32_t i = 0; i < loaded.tree->entry_count; i++)
		names += loaded.tree->entries[i].name_bytes;
	printf("{\"load_ns\": %llu, \"plan_ns\": %llu, \"entries\": %u, \"resident_bytes\": %llu, \"name_bytes\": %llu}\n",
	       (unsigned long long)loaded.load_ns, (unsigned long long)loaded.plan_ns, loaded.tree->entry_count,
	       (unsigned long long)(after - before), (unsigned long long)names);
	unload(&loaded);
}

/* ---- inflate ----------------------------------------------------------------------------------------------------------------- */

static void measure_inflate(const char *path)
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	if (fd < 0 || fstat(fd, &st))
		die(path, strerror(errno));
	enum { OUT_BYTES = 1 << 18 };
	static uint8_t out[OUT_BYTES];
	const uint64_t start = now_ns();
	const uint8_t *in = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
	const struct codec *codec = in == MAP_FAILED || st.st_size < 8 ? NULL : codec_find(in);
	void *state = codec ? codec->create() : NULL;
	if (!state)
		die(path, "is not compressed");
	struct codec_buffers io = { .in = in, .in_bytes = (size_t)st.st_size };
	const char *why = "out of memory";
	uint64_t bytes = 0;
	while (io.in_bytes) {
		int ret = codec->begin(state);
		while (ret == CODEC_GOES_ON) {
			io.out = out;
			io.out_bytes = OUT_BYTES;
			ret = codec->decode(state, &io, &why);
			bytes += OUT_BYTES - io.out_bytes;
		}
		if (ret < 0)
			die(path, why);
	}
	printf("{\"inflate_ns\": %llu, \"bytes\": %llu}\n", (unsigned long long)(now_ns() - start), (unsigned long long)bytes);
	codec->destroy(state);
	close(fd);
}

/* ---- image ------------------------------------------------------------------------------------------------------------------- */

static void write_range(struct disk *disk, int fd, uint64_t offset, uint64_t end)
{
	static uint8_t buffer[WRITE_BYTES];
	while (offset < end) {
		const size_t take = end - offset < sizeof(buffer) ? (size_t)(end - offset) : sizeof(buffer);
		const struct iovec iov = { buffer, take };
		if (disk->ops->readv(disk, offset, &iov, 1) || pwrite(fd, buffer, take, (off_t)offset) != (ssize_t)take)
			die("image", "failed");
		offset += take;
	}
}

static void write_image(const char *path, const char *cache, char **layers, int count)
{
	struct loaded loaded = load(cache, layers, count);
	const int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)loaded.disk->size_bytes))
		die(path, strerror(errno));
	uint64_t begin, end = 0, bytes = 0;
	while (ext4_plan_next_data(loaded.plan, end, &begin, &end)) {
		write_range(loaded.disk, fd, begin, end);
		bytes += end - begin;
	}
	close(fd);
	printf("{\"bytes\": %llu}\n", (unsigned long long)bytes);
	unload(&loaded);
}

/* ---- reads ------------------------------------------------------------------------------------------------------------------- */

/* All that is not free space, in a row. Returns how long it takes. */
static uint64_t read_all(const struct loaded *loaded, uint64_t *bytes)
{
	enum { CHUNK = 1 << 18 };
	static uint8_t buffer[CHUNK];
	const uint64_t start = now_ns();
	uint64_t begin, end = 0;
	*bytes = 0;
	while (ext4_plan_next_data(loaded->plan, end, &begin, &end)) {
		for (uint64_t at = begin; at < end; at += CHUNK) {
			const struct iovec iov = { buffer, end - at < CHUNK ? (size_t)(end - at) : CHUNK };
			if (loaded->disk->ops->readv(loaded->disk, at, &iov, 1))
				die("reads", "failed");
			*bytes += iov.iov_len;
		}
	}
	return now_ns() - start;
}

/* Both sides read the same random blocks of what is not free space, in turns, so that the machine's mood hits both. */
static void measure_reads(const char *path, uint64_t count, const char *cache, char **layers, int layer_count)
{
	enum { ROUNDS = 10 };
	struct loaded loaded = load(cache, layers, layer_count);
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		die(path, strerror(errno));
	uint64_t begin, end = 0, ns[2] = { 0, 0 }, differing = 0, bytes;
	const uint64_t first_ns = read_all(&loaded, &bytes), again_ns = read_all(&loaded, &bytes);
	while (ext4_plan_next_data(loaded.plan, end, &begin, &end))
		;
	const uint64_t first = begin / 4096, blocks = (end - begin) / 4096;
	uint8_t ours[4096], theirs[4096];
	const struct iovec iov = { ours, sizeof(ours) };
	for (unsigned round = 0; round < 2 * ROUNDS; round++) {
		uint64_t state = round / 2;
		const uint64_t start = now_ns();
		for (uint64_t i = 0; i < count / ROUNDS; i++) {
			const uint64_t offset = (first + random_next(&state) % blocks) * 4096;
			if (round % 2 ? loaded.disk->ops->readv(loaded.disk, offset, &iov, 1) != 0
				      : pread(fd, theirs, sizeof(theirs), (off_t)offset) != sizeof(theirs))
				die("reads", "failed");
		}
		ns[round % 2] += now_ns() - start;
		differing += round % 2 && memcmp(ours, theirs, sizeof(ours)) != 0;
	}
	if (differing)
		die("reads", "the image is not of these layers");
	printf("{\"disk_ns\": %llu, \"pread_ns\": %llu, \"first_ns\": %llu, \"again_ns\": %llu, \"bytes\": %llu}\n",
	       (unsigned long long)ns[1], (unsigned long long)ns[0], (unsigned long long)first_ns, (unsigned long long)again_ns,
	       (unsigned long long)bytes);
	close(fd);
	unload(&loaded);
}

int main(int argc, char **argv)
{
	const char *command = argc > 1 ? argv[1] : "";
	if (strcmp(command, "make-tar") == 0 && argc == 5)
		make_tar(argv[2], strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10));
	else if (strcmp(command, "disk") == 0 && argc > 3)
		measure_disk(argv[2], argv + 3, argc - 3);
	else if (strcmp(command, "inflate") == 0 && argc == 3)
		measure_inflate(argv[2]);
	else if (strcmp(command, "image") == 0 && argc > 4)
		write_image(argv[2], argv[3], argv + 4, argc - 4);
	else if (strcmp(command, "reads") == 0 && argc > 5)
		measure_reads(argv[2], strtoull(argv[3], NULL, 10), argv[4], argv + 5, argc - 5);
	else
		die("usage", "see the comment in bench/layers-tool.c");
	return 0;
}
