/* What runs in the guest and how: the command line's word over the image's configuration (OCI image-spec config.md). */
#ifndef TRVMM_VMM_COMMAND_H
#define TRVMM_VMM_COMMAND_H

#include "base/error.h"
#include "layers/layers.h"
#include "vmm/options.h"

/* The lists are owned, their strings borrowed from the options and the image's configuration. */
struct command {
	const char **argv, **env; /* end with NULL */
	const char *workdir, *user; /* NULL: the agent's default */
};

/*
 * Combines them as docker run does: the image's entrypoint, or that of --entrypoint, comes before the command; without a command (and
 * without --entrypoint) the image's own is taken. Variables of the image are set unless --env sets them;
 * with a terminal TERM is set, too. Returns 0, -EINVAL with a line when there is nothing to run, or -ENOMEM.
 */
int command_resolve(const struct options *options, const struct image_config *image, struct command *command, struct error *err);
void command_destroy(struct command *command);

#endif
