/*
 * A peaceful guest beside the attackers: for PINGS_US it reads a sector, sends a few bytes to the host and gets them back, again and again,
 * and each time within LATE_US. All machines share the host's processors, so that is generous; an attacker that stops its neighbour is
 * worse.
 */
#include "tests/guests/guest_vsock.h"

#define PINGS_US 20000000ull
#define LATE_US 2000000ull

void guest_main(void)
{
	static struct device disk;
	static uint64_t data[WORLD_SECTOR_WORDS];
	const uint64_t end = deadline_us(PINGS_US);
	uint64_t worst = 0, pings = 0;

	EXPECT(device_find(&disk, 0, VIRTIO_ID_BLOCK) && device_find(&vsock, 2, VIRTIO_ID_VSOCK));
	EXPECT(blk_start(&disk) && vsock_start(true) && vsock_connect_echo());
	while (rdtsc() < end) {
		const uint64_t start = rdtsc();
		const uint64_t sector = pings % 64;
		EXPECT(blk_read(&disk, sector, data, 1) == VIRTIO_BLK_S_OK && sector_is(data, sector));
		vsock_fill_payload(32, (uint8_t)pings);
		if (!EXPECT(vsock_send_data(32) && vsock_echo_is(32)))
			break;
		const uint64_t took = rdtsc() - start;
		worst = took > worst ? took : worst;
		pings++;
		delay_us(1000);
	}
	EXPECT(pings > 10);
	EXPECT(worst < deadline_us(LATE_US) - deadline_us(0));
	print("# pings: ");
	print_hex(pings);
	print(", the slowest in units of 1024 ticks: ");
	print_hex(worst >> 10);
	print("\n");
	test_end("pings come on time while neighbours attack");
}
