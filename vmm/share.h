/* Host directories and files in the guest, as people write them (-v). Words to structures; vmm/shares.h makes devices of them. */
#ifndef TRVMM_VMM_SHARE_H
#define TRVMM_VMM_SHARE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "devices/virtio-fs/fs_server.h"

struct share {
	char *host; /* owned; absolute */
	char *guest; /* owned; absolute, without "." and "..", "//" or a slash at the end */
	bool read_only;
	enum fs_cache cache;
	bool writeback;
	enum fs_dax dax;
};

/*
 * Parses HOST:GUEST[:OPTION...]: ro, rw, cache=none|auto|always, writeback, dax, dax=inode, with a colon or a comma between two. GUEST
 * begins at the last colon with a slash behind it. HOST is made absolute, not resolved, and need not be there. Returns 0, and
 * share_destroy() frees what is in `share`; -EINVAL or another errno with one line that begins with "-v 'HOST:GUEST'".
 */
int share_parse(const char *text, struct share *share, struct error *err);
void share_destroy(struct share *share);

/* Makes a path absolute with the working directory. Returns 0, and `absolute` is for the caller to free; or -errno. */
int share_absolute_path(const char *path, char **absolute);

/* Does one of them have files mapped into the guest? */
bool shares_map_files(const struct share *shares, size_t count);

/* How many components a guest path has. */
unsigned share_depth(const char *guest);

/*
 * Puts shares into the order in which they can be mounted: what lies in another comes behind it. Returns 0, or -EINVAL with one line when
 * two have one place in the guest.
 */
int shares_arrange(struct share *shares, size_t count, struct error *err);

#endif
