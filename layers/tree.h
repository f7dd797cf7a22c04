/*
 * The merged tree: what the guest's root directory will hold, in flat arrays.
 *
 * Names hang in `entries`, what they name lies in `inodes`: two entries with the same inode are hard links. File contents are not
 * here: an inode lists extents, ranges of sources (layer files), which are read when the guest reads.
 *
 *   entries[i] --inode--> inodes[k] --first_extent--> extents[...] --source--> sources[s] (fd or memory)
 *        |                   |  \--first_xattr--> xattrs[...]
 *        | next_sibling      \--first_child--> entries[...]   (directories)
 *
 * Indices instead of pointers: half the memory, and the arrays can be written to a file and mapped again as they are. All arrays
 * are dense; entries of removed names do not occur in a finished tree. Entry 0 and inode 0 are the root.
 *
 * A tree from tree_builder_finish() or layers_load() promises more, which a reader may use and need not: entries lie breadth first,
 * so the children of a directory are neighbours (next_sibling is the next index or TREE_NONE) and stand behind their directory;
 * inodes, and with them extents and xattrs, keep the order in which the layers brought them, so contents that are neighbours in a
 * layer stay so.
 */
#ifndef TRVMM_LAYERS_TREE_H
#define TRVMM_LAYERS_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"

#define TREE_NONE UINT32_MAX

/* A name in a directory. Siblings are linked in ascending order of name (memcmp, then length). */
struct tree_entry {
	uint32_t parent;       /* the inode of the directory that holds the name; the root's is itself */
	uint32_t next_sibling; /* entry, or TREE_NONE */
	uint32_t inode;
	uint32_t name;         /* offset into strings; not terminated */
	uint16_t name_bytes;   /* 1 to 255; 0 for the root */
	uint16_t layer;        /* number of the layer that brought the name, bottom first */
};

struct tree_inode {
	int64_t mtime_s;       /* seconds since 1970, may be negative */
	uint64_t size_bytes;   /* regular files and symbolic links; else 0 */
	uint32_t mtime_ns;     /* 0 to 999,999,999 */
	uint32_t mode;         /* S_IFMT and permission bits, as in struct stat */
	uint32_t uid, gid;
	uint32_t nlink;        /* entries that name it; for a directory 2 + subdirectories */
	uint32_t layer;
	union {
		uint32_t first_child;  /* directories: entry or TREE_NONE */
		uint32_t target;       /* symbolic links: offset into strings, size_bytes long */
		uint32_t rdev;         /* device nodes: makedev() of Linux's 32-bit encoding, major << 20 | minor */
		uint32_t first_extent; /* regular files */
	};
	uint32_t extent_count; /* regular files; extents ascend by file_offset, do not overlap, gaps are holes */
	uint32_t first_xattr, xattr_count;
};

/* A range of a regular file whose bytes lie in a source. */
struct tree_extent {
	uint64_t file_offset;
	uint64_t source_offset;
	uint64_t length;       /* bytes, more than 0; the extent ends at or before the file's size */
	uint32_t source;
	uint32_t reserved;     /* 0 */
};

/* An extended attribute: full name ("user.x", "security.capability") and any bytes as value. Sorted by name within an inode. */
struct tree_xattr {
	uint32_t name;         /* offset into strings */
	uint16_t name_bytes;
	uint16_t reserved;     /* 0 */
	uint32_t value;        /* offset into strings */
	uint32_t value_bytes;  /* up to 64 KiB */
};

struct host_files;
struct chunk_check;

/* Where contents come from: a file, memory, or the files of a host directory, which lie one behind the other (host_files_internal.h). */
struct tree_source {
	int fd;                /* owned by the tree; -1: memory or host files */
	const uint8_t *memory; /* borrowed for the life of the tree */
	struct host_files *host; /* owned; NULL: it is no directory */
	uint64_t size_bytes;
	char *name;            /* owned; for messages: the layer's path */
	struct chunk_check *check; /* owned; of a layer that was inflated (inflated_file_internal.h); NULL: it is read as it is */
	uint64_t stamp;        /* file_stamp() of the file when it was opened; 0: it is not watched */
	int64_t checked_ns;    /* the last look at it; atomic */
	bool is_own;           /* bytes of this program: another version of it brings others, and the tree is the same all the same */
	bool complained;       /* atomic */
};

struct tree {
	struct tree_entry *entries;
	struct tree_inode *inodes;
	struct tree_extent *extents;
	struct tree_xattr *xattrs;
	char *strings;
	struct tree_source *sources;
	uint32_t entry_count, inode_count, extent_count, xattr_count, source_count;
	uint32_t layer_count;
	uint64_t string_bytes;
	uint64_t checksum;     /* of inodes, entries, xattrs, strings: all that is told of files but where their bytes lie; 0: none */
	void *map;             /* owned: the one mapping in which all arrays but `sources` lie. NULL: they are somebody else's */
	size_t map_bytes;
};

/*
 * Frees the tree and closes its sources (file descriptors, names, the array from malloc). Arrays that do not lie in `map` are left
 * alone, so a test may lay out a tree by hand. NULL is allowed.
 */
void tree_destroy(struct tree *tree);

/*
 * Finds `path` (with or without leading slash, components separated by slashes; "" and "/" are the root). Symbolic links are
 * followed inside the tree, at most 40, the last component's only when `follow_last`. Returns the entry, or TREE_NONE.
 */
uint32_t tree_lookup(const struct tree *tree, const char *path, int follow_last);

/*
 * Reads the bytes of a source into the vector. Returns 0; -EIO when what the layer was read from has changed, become shorter or gone,
 * -EBADMSG when its inflated copy in the cache is damaged, or another -errno. The first failure of a source is told in one message().
 * Any thread.
 *
 * What is noticed: of a host directory every change of a file. Of an archive a new size or time of modification, looked for after every
 * large read and once in a tick of the clock (a few milliseconds) for small ones; a rename or removal does no harm there.
 */
int tree_source_readv(const struct tree *tree, uint32_t source, uint64_t offset, const struct iovec *iov, unsigned count);

/*
 * The descriptors of the host directories in which files are opened when they are read, at most `most` of them. Returns how many there are.
 * They stay the tree's; what they refer to may be replaced by another descriptor of the same directory.
 */
size_t tree_directories(const struct tree *tree, int *fds, size_t most);

/* Whether contents lie in the cache, inflated: damage that is noticed there is marked in the file's times. */
bool tree_is_inflated(const struct tree *tree);

/* Closes and frees an array of sources and what they own. */
void tree_sources_free(struct tree_source *sources, uint32_t count);

/*
 * Reads all of a regular file (holes as zeroes) into a new buffer with a 0 byte behind it; the caller frees it. For small files
 * such as /etc/passwd. Returns 0, -EISDIR/-EINVAL when it is no regular file, -EFBIG beyond `limit_bytes`, -ENOMEM, or an I/O
 * error.
 */
int tree_read_file(const struct tree *tree, uint32_t inode, uint64_t limit_bytes, char **data, size_t *length);

#endif
