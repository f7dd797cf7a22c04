/* The confinement of a run; see sandbox.h and run_internal.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "layers/tree.h"
#include "vmm/run_internal.h"
#ifdef TRVMM_BACKDOOR
#include "tests/sandbox/backdoor.h"
#endif

struct needs {
	struct sandbox_directory *directories; /* owned */
	size_t count;
	bool marks_cache;
};

static int add_directory(struct needs *needs, const struct sandbox_directory *directory)
{
	struct sandbox_directory *grown = reallocarray(needs->directories, needs->count + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	needs->directories = grown;
	grown[needs->count++] = *directory;
	return 0;
}

/* What the disk of `tree` (NULL: of no tree) does with files while the guest runs. */
static int add_needs(struct needs *needs, const struct tree *tree)
{
	const size_t more = tree ? tree_directories(tree, NULL, 0) : 0;
	needs->marks_cache |= tree && tree_is_inflated(tree);
	if (more == 0)
		return 0;
	int *fds = calloc(more, sizeof(*fds));
	int result = fds ? 0 : -ENOMEM;
	if (fds)
		tree_directories(tree, fds, more);
	for (size_t i = 0; i < more && result == 0; i++)
		result = add_directory(needs, &(struct sandbox_directory){ .fd = fds[i] });
	free(fds);
	return result;
}

int run_close_sandbox(struct run *run, struct error *err)
{
	const struct options *options = run->options;
	struct needs needs = { .directories = NULL };

	if (options->no_sandbox) {
		message("--no-sandbox: whatever breaks out of the guest may do what this user may");
		sandbox_close_descriptors(NULL);
		return 0;
	}
	int result = add_needs(&needs, run->root.tree);
	for (size_t i = 0; i < run->extra_disks.count && result == 0; i++)
		result = add_needs(&needs, run->extra_disks.disks[i].tree);
	for (size_t i = 0; i < run->shares.count && result == 0; i++) {
		struct sandbox_directory share = { .share = true };
		share.fd = fs_server_root(run->shares.all[i].server, &share.writable);
		result = add_directory(&needs, &share);
	}
	struct sandbox_spec spec = {
		.directories = needs.directories,
		.directory_count = needs.count,
		.marks_cache = needs.marks_cache,
		.action = options->sandbox_log ? SANDBOX_TELL : SANDBOX_KILL,
	};
#ifdef TRVMM_BACKDOOR
	backdoor_change_sandbox(&spec);
	backdoor_prepare();
#endif
	result = result < 0 ? error_set(err, result, "%s", strerror(-result)) : sandbox_close(&spec, NULL, err);
	free(needs.directories);
#ifdef TRVMM_BACKDOOR
	if (result == 0)
		backdoor_start_threads();
#endif
	return result;
}
