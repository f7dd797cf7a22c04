/* The same tree and options give the same bytes, on every machine and in every order of reading: digests of whole images. */
#define OPENSSL_SUPPRESS_DEPRECATED /* one shot of SHA-256 is what is needed */
#include "tests/unit/ext4_helper.h"

#include <openssl/sha.h>

/* One of everything, a directory with an index, attributes in all places. */
static struct hand *fixed_tree(void)
{
	struct hand *h = hand_rich();
	char name[64], value[6000];
	for (size_t i = 0; i < sizeof(value); i++)
		value[i] = (char)(i * 7 % 251);
	const uint32_t dir = hand_dir(h, 0, "z");
	for (uint32_t k = 0; k < 3000; k++) {
		snprintf(name, sizeof(name), "a-name-%u", k * 7919 % 3000);
		hand_file(h, dir, name, k % 300);
	}
	hand_xattr(h, dir, "security.selinux", value, 40);
	hand_xattr(h, dir, "user.block", value, 1000);
	hand_xattr(h, dir, "user.inode", value, sizeof(value));
	return h;
}

/* What is free space counts with its place alone. `piece`: how much is read at once. */
static void digest_of(const struct ext4_plan *plan, size_t piece, char hex[65])
{
	static uint8_t buffer[1 << 20];
	uint8_t digest[SHA256_DIGEST_LENGTH];
	SHA256_CTX sha;
	SHA256_Init(&sha);
	uint64_t begin, end = 0;
	while (ext4_plan_next_data(plan, end, &begin, &end)) {
		const uint64_t range[2] = { begin, end };
		SHA256_Update(&sha, range, sizeof(range));
		for (uint64_t at = begin; at < end; at += piece) {
			const size_t take = end - at < piece ? (size_t)(end - at) : piece;
			read_or_fail(plan, at, buffer, take);
			SHA256_Update(&sha, buffer, take);
		}
	}
	SHA256_Final(digest, &sha);
	for (size_t i = 0; i < sizeof(digest); i++)
		snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}

/* A change of these digests is a change of what everybody's disks look like: say so in the commit that brings it. */
Test(ext4_same, known_digests)
{
	static const struct {
		struct ext4_options options;
		const char *digest;
	} known[] = {
		{ { .size_bytes = 0 }, "598520a0ea4343e184b0052d6bace0eab460601806c40844296c83377c373332" },
		{ { .size_bytes = 200 << 20, .journal = true },
		  "a05182891bf294ba851de74b293e04910d49148bb00aedc1c952dc86a3c60d77" },
		{ { .size_bytes = 200 << 20, .metadata_csum = true },
		  "b0df3df07f33f54848596d6f8cfeeafd3cd5e1db48c1dabed5348aeec77d4c16" },
		{ { .size_bytes = 20ull << 30,
		    .metadata_csum = true,
		    .journal = true,
		    .uuid = { 1 },
		    .hash_seed = { 2 },
		    .label = "l" },
		  "8f6e49e1fbf491c7c11669fc887d685921177b1ccb74bb9d49d16f5dc22c6409" },
	};
	struct hand *h = fixed_tree(), *again = fixed_tree();
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		char first[65], second[65];
		struct ext4_plan *plan = plan_or_fail(&h->tree, &known[i].options);
		digest_of(plan, 1 << 20, first);
		ext4_plan_destroy(plan);
		plan = plan_or_fail(&again->tree, &known[i].options);
		digest_of(plan, 5000, second);
		fsck(dump(plan));
		unlink(scratch("image"));
		ext4_plan_destroy(plan);
		cr_assert_str_eq(first, second);
		cr_expect_str_eq(first, known[i].digest, "image %zu is %s", i, first);
	}
	hand_destroy(h);
	hand_destroy(again);
}
