/* Has taken trvmm over, by the back door of tests/sandbox/backdoor.h, and tries everything. The table is for tests/sandbox/run. */
#include "tests/guests/guest.h"
#include "tests/sandbox/backdoor.h"

void guest_main(void)
{
	static const char *const kinds[BACKDOOR_KINDS] = { "loop", "vcpu", "disk", "disk-files", "fs", "relay", "reaper" };
	static const char *const orders[BACKDOOR_ORDERS] = BACKDOOR_NAMES;
	for (uint32_t order = 0; order < BACKDOOR_ORDERS; order++) {
		for (uint32_t kind = 0; kind < BACKDOOR_KINDS; kind++) {
			outl(BACKDOOR_PORT, kind << 8 | order);
			const uint32_t result = inl(BACKDOOR_PORT);
			print("order ");
			print(kinds[kind]);
			print(" ");
			print_hex(result);
			print(" ");
			print(orders[order]);
			print("\n");
		}
	}
	print("done\n");
}
