/*
 * One stream of a session: descriptors for the vsock device, and the knowledge whether all that the guest sent has been delivered.
 *
 *   guest -> device -> out.fd                          delivered when the device has closed it
 *   guest -> device -> out.fd -> thread -> stdout      delivered when, after that, the thread has ended (done_fd hangs up)
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/container.h"
#include "vmm/session_internal.h"

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void stream_destroy(struct stream *stream)
{
	struct stream **link = &stream->guest->streams;
	while (*link != stream)
		link = &(*link)->next;
	*link = stream->next;
	if (stream->done.fd >= 0)
		loop_remove(stream->guest->loop, &stream->done);
	close_fd(&stream->done.fd);
	close_fd(&stream->probe_fd);
	stdio_discard(&stream->in);
	stdio_discard(&stream->out);
	if (!stream->connected) {
		close_fd(&stream->in.fd);
		close_fd(&stream->out.fd);
	}
	free(stream);
}

void stream_release(struct stream *stream)
{
	stream->session = NULL;
	if (!stream->connected || stream->closed)
		stream_destroy(stream);
}

/* The thread has written all and ended. */
static void stream_done(struct loop_source *source, uint32_t events)
{
	struct stream *stream = container_of(source, struct stream, done);
	(void)events;
	loop_remove(stream->guest->loop, source);
	close_fd(&source->fd);
	if (stream->session)
		session_stream_changed(stream->session);
}

/* The device has let go of the connection. */
static void stream_closed(void *data)
{
	struct stream *stream = data;
	stream->closed = true;
	/* The thread sees its end only when no duplicate is left. */
	close_fd(&stream->probe_fd);
	if (stream->session)
		session_stream_changed(stream->session);
	else
		stream_destroy(stream);
}

static int open_ends(struct stream *stream, const struct session_spec *spec, int in, int out, struct error *err)
{
	int result = 0;
	if (in >= 0)
		result = spec->given ? stdio_take(in, &stream->in) : stdio_prepare_read(in, &stream->in);
	if (result < 0)
		return error_set(err, result, "standard input: %s", strerror(-result));
	if (out >= 0)
		result = spec->given ? stdio_take(out, &stream->out) : stdio_prepare_write(out, &stream->out);
	if (result < 0)
		return error_set(err, result, "standard output: %s", strerror(-result));
	return 0;
}

int stream_start(struct stream *stream)
{
	const int result = stdio_start(&stream->in);
	return result < 0 ? result : stdio_start(&stream->out);
}

int stream_create(struct session *session, enum agent_stream which, const struct session_spec *spec, struct error *err)
{
	struct guest *guest = session->guest;
	struct stream *stream = calloc(1, sizeof(*stream));
	if (!stream)
		return error_set(err, -ENOMEM, "out of memory");
	stream->guest = guest;
	stream->next = guest->streams;
	guest->streams = stream;
	stream->session = session;
	session->streams[which] = stream;
	stream->in = stream->out = (struct stdio_end){ -1, -1, NULL };
	stream->probe_fd = -1;
	stream->done = (struct loop_source){ .fd = -1, .events = EPOLLIN, .ready = stream_done };
	stream->output = session->terminal || which != AGENT_STDIN;

	const int in = which == AGENT_STDIN ? spec->stdin_fd : -1;
	int out = which == AGENT_STDERR ? spec->stderr_fd : spec->stdout_fd;
	if (which == AGENT_STDIN && !session->terminal)
		out = -1;
	int result = open_ends(stream, spec, in, out, err);
	if (result == 0 && !spec->start_later && (result = stream_start(stream)) < 0)
		error_set(err, result, "starting a thread: %s", strerror(-result));
	if (result < 0 || stream->out.done_fd < 0)
		return result;
	stream->done.fd = stream->out.done_fd;
	result = loop_add(guest->loop, &stream->done);
	return result < 0 ? error_set(err, result, "epoll: %s", strerror(-result)) : 0;
}

int stream_accept(struct stream *stream, struct vsock_ends *ends)
{
	if (stream->connected)
		return -ECONNREFUSED;
	if (stream->out.fd >= 0) {
		stream->probe_fd = fcntl(stream->out.fd, F_DUPFD_CLOEXEC, 3);
		if (stream->probe_fd < 0)
			return -errno;
	}
	ends->read_fd = stream->in.fd;
	ends->write_fd = stream->out.fd;
	ends->closed = stream_closed;
	ends->closed_data = stream;
	ends->write_error = &stream->write_error;
	stream->connected = true;
	return 0;
}

bool stream_is_delivered(const struct stream *stream)
{
	return !stream->output || !stream->connected || (stream->closed && stream->done.fd < 0);
}

bool stream_is_waiting_for_host(const struct stream *stream)
{
	/* What is with the thread, the guest cannot hold up any more. */
	if (stream->closed)
		return stream->done.fd >= 0;
	struct pollfd p = { .fd = stream->probe_fd, .events = POLLOUT };
	return stream->probe_fd >= 0 && poll(&p, 1, 0) == 0;
}
