/* The dumper: shows what dumpe2fs shows, in JSON that a parser of others' reads; no byte of hostile structures leads it astray. */
#include "tests/unit/ext4_helper.h"

#include <jansson.h>

#include "ext4gen/ext4_disk.h"
#include "ext4gen/ext4_dump.h"

typedef int dump_function(FILE *out, enum ext4_dump_format format, const void *bytes, size_t length);

static dump_function *const functions[] = {
	ext4_dump_super_block, ext4_dump_group_desc, ext4_dump_jbd2_superblock, ext4_dump_inode,       ext4_dump_extent_node,
	ext4_dump_dir_block,   ext4_dump_dx_root,    ext4_dump_dx_node,         ext4_dump_xattr_block, ext4_dump_xattr_inode,
};

/* The bytes go to a buffer of exactly their length, so that a sanitizer sees a look beyond. The caller frees the text. */
static char *show(dump_function *function, enum ext4_dump_format format, const void *bytes, size_t length, int *rc)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	uint8_t *copy = malloc(length + !length);
	memcpy(copy, bytes, length);
	const int result = function(out, format, copy, length);
	if (rc)
		*rc = result;
	free(copy);
	fclose(out);
	return text;
}

static json_t *show_json(dump_function *function, const void *bytes, size_t length, int expected)
{
	int rc;
	char *text = show(function, EXT4_DUMP_JSON, bytes, length, &rc);
	json_error_t error;
	json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, &error);
	cr_assert(json && json_is_object(json), "%s: %s", error.text, text);
	cr_assert(rc == expected && (rc != 0) == (json_object_get(json, "damaged") != NULL), "%d: %s", rc, text);
	free(text);
	return json;
}

static json_int_t number(const json_t *object, const char *name)
{
	cr_assert(json_is_integer(json_object_get(object, name)), "%s", name);
	return json_integer_value(json_object_get(object, name));
}

/* The value that dumpe2fs -h gives for a label. */
static void ask_dumpe2fs(const char *image, const char *label, char *out, size_t size)
{
	run(out, size, "dumpe2fs -h %s 2>/dev/null | sed -n 's/^%s: *//p'", image, label);
	out[strcspn(out, "\n")] = '\0';
}

Test(ext4_dump, super_block_as_dumpe2fs)
{
	struct hand *h = hand_rich();
	const struct ext4_options options = { .uuid = { 0xDE, 0xAD, 0xBE, 0xEF, 5 }, .label = "a'\"\\b" };
	struct ext4_plan *plan = plan_or_fail(&h->tree, &options);
	uint8_t block[EXT4_BLOCK_BYTES];
	char out[200], image[256];
	snprintf(image, sizeof(image), "%s", dump(plan));
	read_or_fail(plan, 0, block, sizeof(block));
	json_t *json = show_json(ext4_dump_super_block, block + EXT4_SUPER_OFFSET, 1024, 0);
	static const struct {
		const char *label, *field;
	} same[] = {
		{ "Inode count", "s_inodes_count" },
		{ "Block count", "s_blocks_count_lo" },
		{ "Free inodes", "s_free_inodes_count" },
		{ "Free blocks", "s_free_blocks_count_lo" },
		{ "Inodes per group", "s_inodes_per_group" },
		{ "First inode", "s_first_ino" },
		{ "Inode size", "s_inode_size" },
		{ "Overhead clusters", "s_overhead_clusters" },
	};
	for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
		ask_dumpe2fs(image, same[i].label, out, sizeof(out));
		cr_assert(strtoll(out, NULL, 10) == number(json, same[i].field), "%s: %s", same[i].label, out);
	}
	ask_dumpe2fs(image, "Filesystem UUID", out, sizeof(out));
	cr_assert_str_eq(json_string_value(json_object_get(json, "s_uuid")), out);
	cr_assert_str_eq(json_string_value(json_object_get(json, "s_volume_name")), "a\\x27\"\\x5cb");
	/* The same features in the same words. */
	ask_dumpe2fs(image, "Filesystem features", out, sizeof(out));
	char ours[200] = "";
	static const char *const sets[] = { "s_feature_compat", "s_feature_incompat", "s_feature_ro_compat" };
	for (size_t i = 0; i < 3; i++) {
		size_t k;
		json_t *name;
		json_array_foreach(json_object_get(json, sets[i]), k, name)
		    snprintf(ours + strlen(ours), sizeof(ours) - strlen(ours), "%s%s", *ours ? " " : "", json_string_value(name));
	}
	cr_assert(strstr(out, "filetype"), "%s", out);
	for (char *word = strtok(out, " "); word; word = strtok(NULL, " "))
		cr_assert(strstr(ours, word), "%s in %s", word, ours);
	json_decref(json);
	unlink(image);
	ext4_plan_destroy(plan);
	hand_destroy(h);
}

Test(ext4_dump, text)
{
	const struct ext4_inode inode = {
		.i_mode = le16_make(S_IFREG | 0644),
		.i_mtime = le32_make(86400),
		.i_flags = le32_make(EXT4_EXTENTS_FL | 1u << 31),
	};
	char *text = show(ext4_dump_inode, EXT4_DUMP_TEXT, &inode, sizeof(inode), NULL);
	cr_assert(strstr(text, "i_mode                    0100644\n"), "%s", text);
	cr_assert(strstr(text, "i_mtime                   86400 (1970-01-02 00:00:00 UTC)\n"), "%s", text);
	cr_assert(strstr(text, "i_flags                   extents,0x80000000\n"), "%s", text);
	free(text);
}

/* Directory, index, extents and attributes of a real plan, found by debugfs, hold what was put there. */
Test(ext4_dump, lists)
{
	uint8_t block[EXT4_BLOCK_BYTES] = { 0 };
	const struct ext4_dir_entry dot = { le32_make(2), le16_make(12), 1, EXT4_FT_DIR };
	const struct ext4_dir_entry odd = { le32_make(12), le16_make(EXT4_BLOCK_BYTES - 12), 3, EXT4_FT_REG_FILE };
	memcpy(block, &dot, sizeof(dot));
	memcpy(block + 8, ".", 1);
	memcpy(block + 12, &odd, sizeof(odd));
	memcpy(block + 20, "a\n\xFF", 3);
	json_t *json = show_json(ext4_dump_dir_block, block, sizeof(block), 0);
	const json_t *entries = json_object_get(json, "entries");
	cr_assert(json_array_size(entries) == 2 && number(json_array_get(entries, 1), "inode") == 12);
	cr_assert_str_eq(json_string_value(json_object_get(json_array_get(entries, 1), "name")), "a\\x0a\\xff");
	json_decref(json);

	memset(block, 0, sizeof(block));
	const struct ext4_xattr_header header = { .h_magic = le32_make(EXT4_XATTR_MAGIC), .h_refcount = le32_make(1) };
	const struct ext4_xattr_entry entry = {
		.e_name_len = 4, .e_name_index = 1, .e_value_offs = le16_make(4092), .e_value_size = le32_make(3)
	};
	memcpy(block, &header, sizeof(header));
	memcpy(block + 32, &entry, sizeof(entry));
	memcpy(block + 48, "name", 4);
	memcpy(block + 4092, "abc", 3);
	json = show_json(ext4_dump_xattr_block, block, sizeof(block), 0);
	const json_t *x = json_array_get(json_object_get(json, "entries"), 0);
	cr_assert_str_eq(json_string_value(json_object_get(x, "name")), "name");
	cr_assert_str_eq(json_string_value(json_object_get(x, "value")), "abc");
	json_decref(json);
	block[32 + 8] = 5; /* a value that ends outside */
	json_decref(show_json(ext4_dump_xattr_block, block, sizeof(block), -EINVAL));
}

Test(ext4_dump, extents_of_a_file)
{
	struct hand *h = hand_create();
	const uint32_t f = hand_empty_file(h, 0, "f", 1 << 20);
	for (uint32_t i = 0; i < 3; i++)
		hand_extent(h, f, i * 40960ull, SOURCE_PATTERN, 0, 8192);
	struct ext4_plan *plan = plan_or_fail(&h->tree, NULL);
	const uint32_t ino = ext4_plan_inode_number(plan, f);
	struct ext4_group_desc desc;
	struct ext4_inode inode;
	read_or_fail(plan, EXT4_BLOCK_BYTES, &desc, sizeof(desc));
	read_or_fail(plan, (uint64_t)le32_get(desc.bg_inode_table) * EXT4_BLOCK_BYTES + (ino - 1) * EXT4_INODE_BYTES, &inode,
		     sizeof(inode));
	json_t *json = show_json(ext4_dump_extent_node, inode.i_block, sizeof(inode.i_block), 0);
	const json_t *entries = json_object_get(json, "entries");
	cr_assert(json_array_size(entries) == 3);
	for (uint32_t i = 0; i < 3; i++)
		cr_assert(number(json_array_get(entries, i), "ee_block") == i * 10 &&
			  number(json_array_get(entries, i), "ee_len") == 2);
	json_decref(json);
	inode.i_block[2] = 5; /* more entries than fit */
	json_decref(show_json(ext4_dump_extent_node, inode.i_block, sizeof(inode.i_block), -EINVAL));
	ext4_plan_destroy(plan);
	hand_destroy(h);
}

/* Every function over every length of nothing, noise, and noise behind the right magic numbers: always JSON, never a crash. */
Test(ext4_dump, hostile)
{
	uint64_t state = 5;
	uint8_t bytes[2048];
	for (uint32_t round = 0; round < 3000; round++) {
		for (size_t i = 0; i < sizeof(bytes); i++)
			bytes[i] = (uint8_t)(round % 3 == 0   ? 0
					     : round % 3 == 1 ? hand_random(&state)
							      : hand_random(&state) & hand_random(&state) & 7);
		const size_t length = round < 1100 ? round : hand_random(&state) % sizeof(bytes);
		if (round % 2) {
			memcpy(bytes, round % 4 == 1 ? "\x0A\xF3" : "\0\0\x02\xEA", round % 4 == 1 ? 2 : 4);
		}
		for (size_t f = 0; f < sizeof(functions) / sizeof(functions[0]); f++) {
			int rc;
			char *text = show(functions[f], EXT4_DUMP_JSON, bytes, length, &rc);
			json_t *json = json_loads(text, JSON_DECODE_INT_AS_REAL, NULL); /* integers of 64 bits without a sign */
			cr_assert(json && (rc == 0 || rc == -EINVAL), "function %zu: %s", f, text);
			json_decref(json);
			free(text);
			free(show(functions[f], EXT4_DUMP_TEXT, bytes, length, &rc));
		}
	}
}
