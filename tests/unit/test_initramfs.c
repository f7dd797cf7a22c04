/* vmm/cpio, modules and initramfs: what a kernel with modules starts from. The reference reader of the archive is cpio(1). */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "guest/agent/initramfs.h"
#include "vmm/cpio.h"
#include "vmm/guest_blobs.h"
#include "vmm/initramfs.h"
#include "vmm/modules.h"

/* The program has the agent in it; here something else will do. */
const uint8_t agent_blob[BLOB_SLOT_BYTES] = "#!agent";

static char folder[] = "/tmp/trvmm-initramfs.XXXXXX";
static struct error err;

__attribute__((format(printf, 1, 2))) static int shell(const char *format, ...)
{
	char command[2048];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(command, sizeof(command), format, arguments);
	va_end(arguments);
	return system(command);
}

static void open_folder(void)
{
	cr_assert(mkdtemp(folder));
	err.text[0] = '\0';
}

static void close_folder(void)
{
	shell("rm -rf '%s'", folder);
}

TestSuite(initramfs, .init = open_folder, .fini = close_folder);

/* A file that passes for a module: ELF's first bytes, and what modinfo would tell. */
static void put_module(const char *path, const char *release)
{
	char name[512];
	shell("mkdir -p '%s/m/%s' && rmdir '%s/m/%s'", folder, path, folder, path);
	snprintf(name, sizeof(name), "%s/m/%s", folder, path);
	FILE *file = fopen(name, "w");
	cr_assert(file);
	fprintf(file, "\177ELF%s%cvermagic=%s SMP mod_unload %c", path, 0, release, 0);
	fclose(file);
}

static void put_text(const char *name, const char *text)
{
	char path[512];
	snprintf(path, sizeof(path), "%s/m/%s", folder, name);
	FILE *file = fopen(path, "w");
	cr_assert(file);
	fputs(text, file);
	fclose(file);
}

#define DEP                                                                                                                        \
	"k/virtio_mmio.ko: k/virtio.ko k/ring.ko\nk/ring.ko:\nk/virtio.ko: k/ring.ko\nk/virtio-blk.ko.gz: k/virtio.ko k/ring.ko\n" \
	"k/ext4.ko: k/crc16.ko k/jbd2.ko\nk/vmw_vsock_virtio_transport.ko: k/vsock.ko k/virtio.ko "                                \
	"k/ring.ko\nk/crc32c-intel.ko.xz:\n"

static void put_all(void)
{
	static const char *const plain[] = { "k/virtio_mmio.ko", "k/ring.ko",
					     "k/virtio.ko",      "k/virtio-blk.ko",
					     "k/ext4.ko",        "k/crc16.ko",
					     "k/jbd2.ko",        "k/vmw_vsock_virtio_transport.ko",
					     "k/vsock.ko",       "k/crc32c-intel.ko" };
	for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++)
		put_module(plain[i], "6.1.0-test");
	put_text("modules.dep", DEP);
	cr_assert_eq(shell("cd '%s/m/k' && gzip virtio-blk.ko && xz --check=crc32 crc32c-intel.ko", folder), 0);
}

/* Builds it; returns the result. The archive is unpacked to FOLDER/out when there is one. */
static int build_with(const char *release, bool read_only, bool shares)
{
	struct cpio archive;
	char modules[512], path[512];
	const struct initramfs_spec spec = { .modules = modules,
					     .release = release,
					     .root = { "/dev/x", "type", "/agent", "data=1" },
					     .read_only = read_only,
					     .shares = shares };
	snprintf(modules, sizeof(modules), "%s/m", folder);
	const int result = initramfs_build(&spec, &archive, &err);
	if (result == 0) {
		snprintf(path, sizeof(path), "%s/archive", folder);
		FILE *file = fopen(path, "w");
		cr_assert(file && fwrite(archive.bytes, archive.length, 1, file) == 1 && fclose(file) == 0);
		/* Nodes need root; their entry is seen in the list. */
		cr_assert_eq(
		    shell("cd '%s' && rm -rf out && mkdir out && cd out && cpio -if --quiet dev/console <../archive", folder), 0);
	}
	cpio_destroy(&archive);
	return result;
}

static int build(const char *release, bool read_only)
{
	return build_with(release, read_only, false);
}

static void expect_file(const char *path, const char *text)
{
	char name[512], found[1024] = "";
	snprintf(name, sizeof(name), "%s/out/%s", folder, path);
	FILE *file = fopen(name, "r");
	cr_assert(file, "%s is missing", path);
	(void)!fread(found, 1, sizeof(found) - 1, file);
	fclose(file);
	cr_expect_str_eq(found, text);
}

Test(initramfs, modules_in_order_each_once_and_unpacked)
{
	put_all();
	cr_assert_eq(build("6.1.0-test", false), 0, "%s", err.text);
	expect_file(
	    "plan",
	    "rw /dev/x type /agent data=1\n/modules/00-ring\n/modules/01-virtio\n/modules/02-virtio_mmio\n/modules/03-virtio-blk\n"
	    "/modules/04-crc32c-intel\n/modules/05-jbd2\n/modules/06-crc16\n/modules/07-ext4\n/modules/08-vsock\n"
	    "/modules/09-vmw_vsock_virtio_transport\n");
	expect_file("modules/03-virtio-blk", "\177ELFk/virtio-blk.ko");
	expect_file("modules/04-crc32c-intel", "\177ELFk/crc32c-intel.ko");
	expect_file("init", "#!agent");
	cr_expect_eq(shell("cd '%s' && cpio -tv --quiet <archive | grep -q '^crw------- .* 5, *1 .* dev/console$'", folder), 0);
}

Test(initramfs, read_only)
{
	put_all();
	cr_assert_eq(build("", true), 0, "%s", err.text);
	cr_expect_eq(shell("head -n 1 '%s/out/plan' | grep -qx 'ro /dev/x type /agent data=1'", folder), 0);
}

Test(initramfs, what_is_built_in_needs_no_module)
{
	put_all();
	put_text("modules.dep", "k/virtio_mmio.ko: k/virtio.ko k/ring.ko\n");
	put_text("modules.builtin", "k/ext4.ko\nk/virtio_blk.ko\nk/vmw_vsock_virtio_transport.ko\n");
	cr_assert_eq(build("6.1.0-test", false), 0, "%s", err.text);
	expect_file("plan", "rw /dev/x type /agent data=1\n/modules/00-ring\n/modules/01-virtio\n/modules/02-virtio_mmio\n");
}

Test(initramfs, shares_need_their_driver)
{
	put_all();
	cr_assert_eq(build_with("", false, true), -ENOENT);
	cr_expect(strstr(err.text, "there is no virtiofs, which drives shares"), "%s", err.text);
	put_module("k/virtiofs.ko", "6.1.0-test");
	put_text("modules.dep", DEP "k/virtiofs.ko: k/virtio.ko k/ring.ko\n");
	cr_assert_eq(build_with("", false, true), 0, "%s", err.text);
	cr_expect_eq(shell("tail -n 1 '%s/out/plan' | grep -qx /modules/10-virtiofs", folder), 0);
	cr_assert_eq(build("", false), 0);
	cr_expect_eq(shell("grep -q virtiofs '%s/out/plan'", folder) == 0, false);
}

Test(initramfs, refuses_a_directory_that_is_not_there)
{
	cr_assert_eq(build("", false), -ENOENT);
	cr_expect(strstr(err.text, "No such file or directory"), "%s", err.text);
}

Test(initramfs, refuses_a_directory_without_modules_dep)
{
	put_all();
	shell("rm '%s/m/modules.dep'", folder);
	cr_assert_eq(build("", false), -ENOENT);
	cr_expect(strstr(err.text, "run depmod"), "%s", err.text);
}

Test(initramfs, refuses_modules_of_another_version)
{
	put_all();
	cr_assert_eq(build("6.1.0-other", false), -EINVAL);
	cr_expect(strstr(err.text, "are of kernel 6.1.0-test, but --kernel is 6.1.0-other; give /lib/modules/6.1.0-other"), "%s",
		  err.text);
}

Test(initramfs, refuses_a_driver_that_is_nowhere)
{
	put_all();
	put_text("modules.dep", "k/virtio_mmio.ko: k/virtio.ko k/ring.ko\n");
	cr_assert_eq(build("6.1.0-test", false), -ENOENT);
	cr_expect(strstr(err.text, "there is no virtio_blk, which drives the root disk"), "%s", err.text);
}

Test(initramfs, refuses_a_module_that_is_listed_and_not_there)
{
	put_all();
	shell("rm '%s/m/k/jbd2.ko'", folder);
	cr_assert_eq(build("6.1.0-test", false), -ENOENT);
	cr_expect(strstr(err.text, "k/jbd2.ko: No such file"), "%s", err.text);
}

Test(initramfs, refuses_what_is_no_module)
{
	put_all();
	put_text("k/jbd2.ko", "text");
	cr_assert(build("6.1.0-test", false) < 0);
	cr_expect(strstr(err.text, "k/jbd2.ko"), "%s", err.text);
	put_text("k/jbd2.ko", "");
	cr_assert(build("6.1.0-test", false) < 0);
	/* Compressed, but not a module. */
	shell("cd '%s/m/k' && echo text | gzip >jbd2.ko", folder);
	cr_assert_eq(build("6.1.0-test", false), -ENOEXEC);
	cr_expect(strstr(err.text, "no kernel module"), "%s", err.text);
}

Test(initramfs, refuses_a_damaged_module)
{
	put_all();
	shell("cd '%s/m/k' && gz=virtio-blk.ko.gz && head -c 20 $gz >x && mv x $gz", folder);
	cr_assert(build("6.1.0-test", false) < 0);
	cr_expect(strstr(err.text, "virtio-blk.ko.gz"), "%s", err.text);
}

Test(initramfs, refuses_paths_that_lead_out)
{
	static const char *const bad[] = { "/etc/ext4.ko: \n", "k/../../ext4.ko:\n", "../ext4.ko:\n" };
	put_all();
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char text[1024];
		snprintf(text, sizeof(text), "%s%s", bad[i], DEP);
		put_text("modules.dep", text);
		cr_assert_eq(build("6.1.0-test", false), -EINVAL);
		cr_expect(strstr(err.text, "leads out"), "%s", err.text);
	}
}

Test(initramfs, strange_tables_are_no_harm)
{
	static const char *const strange[] = { "",
					       "\n\n\n",
					       ":",
					       ":::\n",
					       "k/ext4.ko",
					       "k/ext4.ko:",
					       "k/ext4.ko: ",
					       "k/ext4.ko:     \n",
					       "ext4.ko\next4.ko:\n",
					       ".ko:\n",
					       "k/ext4.ko.: k/a\n" };
	put_all();
	for (size_t i = 0; i < sizeof(strange) / sizeof(strange[0]); i++) {
		put_text("modules.dep", strange[i]);
		cr_expect(build("6.1.0-test", false) < 0, "'%s'", strange[i]);
	}
}

Test(initramfs, too_many_modules)
{
	char *text = malloc(1 << 16);
	size_t used = (size_t)sprintf(text, "k/virtio_mmio.ko:");
	put_all();
	for (int i = 0; i < MODULES_LIST_MAX + 1; i++)
		used += (size_t)sprintf(text + used, " k/x%d.ko", i);
	strcpy(text + used, "\n");
	put_text("modules.dep", text);
	free(text);
	cr_assert_eq(build("6.1.0-test", false), -E2BIG);
}

/* Names and contents of all lengths modulo 4. */
Test(initramfs, cpio_pads_and_keeps_all_bytes)
{
	struct cpio archive = { .bytes = NULL };
	char path[512];
	cpio_add(&archive, "d", S_IFDIR | 0755, 0, NULL, 0);
	for (int length = 0; length < 8; length++) {
		snprintf(path, sizeof(path), "d/%.*s", length + 1, "xxxxxxxx");
		cpio_add(&archive, path, S_IFREG | 0640, 0, "12345678", (size_t)length);
	}
	cr_assert_eq(cpio_finish(&archive), 0);
	cr_expect_eq(archive.length % 4, 0);
	snprintf(path, sizeof(path), "%s/archive", folder);
	FILE *file = fopen(path, "w");
	cr_assert(file && fwrite(archive.bytes, archive.length, 1, file) == 1 && fclose(file) == 0);
	cpio_destroy(&archive);
	cr_expect_eq(
	    shell(
		"cd '%s' && cpio -i --quiet <archive && [ \"$(cat d/x d/xx d/xxx d/xxxx d/xxxxx d/xxxxxx d/xxxxxxx d/xxxxxxxx)\" = "
		"1121231234123451234561234567 ] && [ $(stat -c %%a d/xx) = 640 ]",
		folder),
	    0);
}
