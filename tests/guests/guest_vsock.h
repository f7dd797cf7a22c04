/*
 * The guest's end of virtio-vsock: whole packets in and out, one at a time, by polling; and the world's echo service at the other end.
 * Nothing here minds whether a packet makes sense.
 */
#ifndef TRVMM_TESTS_GUESTS_GUEST_VSOCK_H
#define TRVMM_TESTS_GUESTS_GUEST_VSOCK_H

#include <linux/virtio_vsock.h>

#include "tests/guests/guest.h"

#define VSOCK_RX 0
#define VSOCK_TX 1
#define VSOCK_EVENT 2
#define VSOCK_QUEUE_SIZE 16u
#define VSOCK_HOST_CID 2u
#define VSOCK_GUEST_PORT 5000u
#define VSOCK_BUF_ALLOC 65536u
#define VSOCK_PAYLOAD 1024u

struct vsock_packet {
	struct virtio_vsock_hdr header;
	uint8_t payload[VSOCK_PAYLOAD];
};

extern struct device vsock;
extern struct vsock_packet vsock_rx[VSOCK_QUEUE_SIZE]; /* buffers for the device */
extern struct vsock_packet vsock_received, vsock_tx; /* the last that came, the one that goes */
extern unsigned vsock_rx_room; /* length of the buffers that are offered */
extern uint32_t vsock_fwd_cnt; /* bytes that were taken on the connection at hand */
extern uint32_t vsock_buf_alloc; /* what we grant */

/* Starts the device anew, with rx buffers or without. */
bool vsock_start(bool with_rx);
void vsock_rx_offer(uint16_t index);
void vsock_rx_fill(void);

/* A packet from VSOCK_GUEST_PORT to the echo service. */
struct virtio_vsock_hdr vsock_header_of(uint16_t op, uint32_t length);
/* Sends `vsock_tx`, of `length` bytes in all, in one buffer, and waits until it was taken. */
bool vsock_send_tx(uint32_t length);
bool vsock_send_header(struct virtio_vsock_hdr header);
bool vsock_send_op(uint16_t op);
/* Sends the first `length` bytes of the payload. */
bool vsock_send_data(uint32_t length);

/* Takes the next packet into `vsock_received` and offers its buffer again. */
bool vsock_receive(void);
/* The next packet but news of credit, which come when the host likes: true when it is `op`, on the connection of `vsock_tx`. */
bool vsock_receive_op(uint16_t op);
/* Nothing comes for a while. */
bool vsock_silence(void);

bool vsock_connect_echo(void);
bool vsock_disconnect(void);
void vsock_fill_payload(uint32_t length, uint8_t first);
/* Receives `length` bytes of data, in as many packets as they come, and compares them with the payload of `vsock_tx`. */
bool vsock_echo_is(uint32_t length);

/* Connects, sends, gets back and disconnects; the same after a reset. */
bool vsock_works(void);
bool vsock_recovers(void);

#endif
