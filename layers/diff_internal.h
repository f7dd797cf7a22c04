/* What the parts of the comparison share: diff_compare.c tells whether two inodes are the same, diff.c walks and writes. */
#ifndef TRVMM_LAYERS_DIFF_INTERNAL_H
#define TRVMM_LAYERS_DIFF_INTERNAL_H

#include "layers/diff.h"

struct diff_pair {
	const struct diff_side *base, *changed;
	const struct diff_options *options;
};

/* Whether mode, owner, time and extended attributes are the same; of what a directory is, that is all. */
bool diff_same_attributes(const struct diff_pair *pair, const struct tree_inode *base, const struct tree_inode *changed);

/* Whether two inodes that are no directories are the same. Reads contents where it has to. Returns 0, or -errno of reading. */
int diff_same_inode(const struct diff_pair *pair, const struct tree_inode *base, const struct tree_inode *changed, bool *same);

#endif
