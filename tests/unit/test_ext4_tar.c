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
