/*
 * Open files and directories: what the client has a file handle for. A handle is `index | generation << 32`, so that one that was
 * released is known as such when its place has another file.
 */
#include "devices/virtio-fs/fs_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

int fs_files_init(struct fs_server *server)
{
	server->files = calloc(server->files_max, sizeof(struct fs_file *));
	server->file_generations = calloc(server->files_max, sizeof(uint32_t));
	return server->files && server->file_generations ? 0 : -ENOMEM;
}

static void close_fd(struct fs_server *server, struct fs_file *file)
{
	if (file->fd < 0 || file->borrowed)
		return;
	close(file->fd);
	server->descriptors--;
}

static void free_file(struct fs_file *file)
{
	pthread_mutex_destroy(&file->dir_lock);
	free(file->entries.bytes);
	free(file);
}

void fs_files_free(struct fs_server *server)
{
	for (uint32_t i = 0; server->files && i < server->files_max; i++)
		if (server->files[i]) {
			close_fd(server, server->files[i]);
			free_file(server->files[i]);
		}
	free(server->files);
	free(server->file_generations);
}

/* A free place, with the lock held. There is one. */
static uint32_t free_index(struct fs_server *server)
{
	while (server->files[server->file_next])
		server->file_next = (server->file_next + 1) % server->files_max;
	return server->file_next;
}

int fs_file_add(struct fs_server *server, struct fs_node *node, int fd, int flags, uint64_t *fh)
{
	struct fs_file *file = calloc(1, sizeof(*file));
	const bool borrowed = node->kind == FS_NODE_EXTRA;

	if (!file) {
		if (fd >= 0 && !borrowed)
			close(fd);
		return -ENOMEM;
	}
	pthread_mutex_init(&file->dir_lock, NULL);
	file->node = node;
	file->fd = fd;
	file->borrowed = borrowed;
	file->directory = flags & O_DIRECTORY;
	file->writable = (flags & O_ACCMODE) != O_RDONLY;
	file->open = true;
	file->refs = 1;
	if (fd >= 0 && !borrowed)
		server->descriptors++;

	pthread_mutex_lock(&server->lock);
	const bool full = server->file_count == server->files_max;
	if (!full) {
		node->refs++;
		file->index = free_index(server);
		file->generation = ++server->file_generations[file->index];
		server->files[file->index] = file;
		server->file_count++;
		*fh = file->index | (uint64_t)file->generation << 32;
	}
	pthread_mutex_unlock(&server->lock);
	if (!full)
		return 0;
	close_fd(server, file);
	free_file(file);
	return -ENFILE;
}

bool fs_files_full(struct fs_server *server)
{
	pthread_mutex_lock(&server->lock);
	const bool full = server->file_count == server->files_max;
	pthread_mutex_unlock(&server->lock);
	return full;
}

/* With the lock held. NULL: no such file. */
static struct fs_file *find(const struct fs_server *server, uint64_t fh)
{
	const uint32_t index = (uint32_t)fh;
	struct fs_file *file = index < server->files_max ? server->files[index] : NULL;
	return file && file->open && file->generation == fh >> 32 ? file : NULL;
}

int fs_file_get(struct fs_server *server, uint64_t fh, bool directory, struct fs_file **found)
{
	pthread_mutex_lock(&server->lock);
	struct fs_file *file = find(server, fh);
	if (file && file->directory == directory)
		file->refs++;
	else
		file = NULL;
	pthread_mutex_unlock(&server->lock);
	if (!file)
		return -EBADF;
	*found = file;
	return 0;
}

void fs_file_put(struct fs_server *server, struct fs_file *file)
{
	pthread_mutex_lock(&server->lock);
	const bool last = --file->refs == 0;
	if (last) {
		server->files[file->index] = NULL;
		server->file_count--;
	}
	pthread_mutex_unlock(&server->lock);
	if (!last)
		return;
	close_fd(server, file);
	if (file->node->kind == FS_NODE_HOST)
		fs_node_close(server, file->node);
	fs_node_put(server, file->node);
	free_file(file);
}

void fs_file_release(struct fs_server *server, uint64_t fh)
{
	pthread_mutex_lock(&server->lock);
	struct fs_file *file = find(server, fh);
	if (file)
		file->open = false;
	pthread_mutex_unlock(&server->lock);
	if (file)
		fs_file_put(server, file);
}

void fs_files_release_all(struct fs_server *server)
{
	for (uint32_t index = 0; index < server->files_max; index++) {
		pthread_mutex_lock(&server->lock);
		struct fs_file *file = server->files[index];
		const uint64_t fh = file ? index | (uint64_t)file->generation << 32 : UINT64_MAX;
		pthread_mutex_unlock(&server->lock);
		if (file)
			fs_file_release(server, fh);
	}
}
