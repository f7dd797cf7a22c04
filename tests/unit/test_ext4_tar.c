/* From a tar layer to a mounted disk, judged by GNU tar: what it reads there is what it wrote. */
#include "tests/unit/ext4_helper.h"

#include <sched.h>
#include <sys/mount.h>

#include "layers/layers.h"

Test(ext4_tar, tar_compare)
{
	static char out[65536];
	char layer[256], image[256], point[300];
	snprintf(layer, sizeof(layer), "%s", scratch("layer.tar"));
	snprintf(point, sizeof(point), "%s", scratch("mount"));
	if (geteuid() != 0 || unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		cr_skip_test("mounting needs root");
	/* Something that every development machine has: thousands of files, links, large directories. */
	run(out, sizeof(out), "tar --format=pax -C / -cf %s usr/include usr/share/man 2>&1", layer);

	struct error err = { "" };
	struct tree_builder *builder = tree_builder_create();
	struct tree *tree = NULL;
	cr_assert(layers_apply_file(builder, layer, NULL, &err) == 0, "%s", err.text);
	cr_assert(tree_builder_finish(builder, &tree, &err) == 0, "%s", err.text);
	tree_builder_destroy(builder);
	struct ext4_plan *plan = plan_or_fail(tree, NULL);
	snprintf(image, sizeof(image), "%s", dump(plan));
	ext4_plan_destroy(plan);
	tree_destroy(tree);
	fsck(image);

	cr_assert(mkdir(point, 0700) == 0);
	const bool mounted = run(out, sizeof(out), "mount -t ext4 -o loop,ro %s %s 2>&1", image, point) == 0;
	int status = 0;
	if (mounted) {
		status = run(out, sizeof(out), "tar --compare -f %s -C %s 2>&1", layer, point);
		umount2(point, 0);
	}
	rmdir(point);
	unlink(image);
	unlink(layer);
	if (!mounted)
		cr_skip_test("no loop mount of ext4 here");
	cr_assert(status == 0, "tar --compare: %d\n%s", status, out);
}

/* Plans the layer, writes the image, and has it compared with what GNU tar unpacks to `tree`. Everything is removed. */
static void compare_with_tar(const char *layer, const char *tree)
{
	static char out[65536];
	char image[256];
	struct error err = { "" };
	struct tree_builder *builder = tree_builder_create();
	struct tree *merged = NULL;
	cr_assert(layers_apply_file(builder, layer, NULL, &err) == 0, "%s", err.text);
	cr_assert(tree_builder_finish(builder, &merged, &err) == 0, "%s", err.text);
	tree_builder_destroy(builder);
	struct ext4_plan *plan = plan_or_fail(merged, NULL);
	snprintf(image, sizeof(image), "%s", dump(plan));
	ext4_plan_destroy(plan);
	tree_destroy(merged);
	fsck(image);
	int status =
	    run(out, sizeof(out), "mkdir %s && tar --xattrs --xattrs-include='*' --acls --numeric-owner -xpf %s -C %s 2>&1", tree,
		layer, tree);
	cr_assert(status == 0, "tar: %s", out);
	status = run(out, sizeof(out), "tests/compare-image %s %s 2>&1", image, tree);
	run(NULL, 0, "rm -rf %s %s", tree, image);
	cr_assert(status == 0 && strstr(out, "the same"), "%d\n%s", status, out);
}

/* What a Debian root has few of: devices, attributes in all places and of all kinds, ACLs, odd times, holes, links of all sorts. */
Test(ext4_tar, attributes_by_tar_and_debugfs, .timeout = 60)
{
	static char out[65536];
	char from[256], tree[256], layer[256];
	if (geteuid() != 0)
		cr_skip_test("devices and attributes need root");
	snprintf(from, sizeof(from), "%s", scratch("from"));
	snprintf(tree, sizeof(tree), "%s", scratch("unpacked"));
	snprintf(layer, sizeof(layer), "%s", scratch("layer.tar"));
	const int status =
	    run(out, sizeof(out),
		"set -e; mkdir -p %s/d/e && cd %s && umask 0 && "
		"mknod c1 c 1 3 && mknod c2 c 300 70000 && mknod b b 259 1000 && mkfifo -m 0621 p && "
		"echo one >f && ln f d/hard && ln f d/e/harder && chmod 6755 f && chown 70000:4000000000 f && "
		"ln -s f short && ln -s \"$(printf 'x%%.0s' $(seq 200))\" d/long && chmod 1777 d && "
		"setfattr -n user.small -v value f && setfattr -n security.capability -v 0sAQAAAgAgAAAAAAAAAAAAAAAAAAA= f && "
		"setfattr -h -n trusted.link -v t short && "
		"setfattr -n user.block -v \"$(head -c 1500 /dev/zero | tr '\\0' b)\" d && "
		"for i in $(seq 40); do setfattr -n user.many-$i -v $i d/e; done && "
		"setfacl -m u:1000:r,g:5:rwx,d:u:70000:rx d && setfacl -m u:1:rwx f && "
		"truncate -s 100M holes && dd if=/dev/urandom of=holes bs=4096 count=5 seek=1000 conv=notrunc 2>/dev/null && "
		"touch -d '1969-12-31 23:59:58.987654321 UTC' d/e && touch -d '1901-12-13 20:45:53 UTC' f && "
		"touch -h -d '2200-02-03 04:05:06.000000001 UTC' short && touch -d @2147483648.5 c1 && "
		"tar --format=pax --xattrs --xattrs-include='*' --acls --sparse -cf %s . 2>&1",
		from, from, layer);
	if (strstr(out, "not permitted") || strstr(out, "not supported"))
		cr_skip_test("not all kinds of files and attributes can be made here: %s", out);
	cr_assert(status == 0, "%s", out);
	compare_with_tar(layer, tree);
	run(NULL, 0, "rm -rf %s %s", from, layer);
}

/* All of a Debian root; the layer that tests/debian-layer keeps, if somebody has made it. */
Test(ext4_tar, debian_by_tar_and_debugfs, .timeout = 300)
{
	static char layer[4096];
	char tree[256];
	if (geteuid() != 0)
		cr_skip_test("owners need root");
	run(layer, sizeof(layer),
	    "grep -q 'layer=' tests/debian-layer && ls -t ${XDG_CACHE_HOME:-$HOME/.cache}/trvmm-build/debian-????????????????.tar "
	    "2>/dev/null | head -n 1");
	layer[strcspn(layer, "\n")] = '\0';
	if (!*layer)
		cr_skip_test("tests/debian-layer was not run here");
	snprintf(tree, sizeof(tree), "%s", scratch("debian"));
	compare_with_tar(layer, tree);
}
