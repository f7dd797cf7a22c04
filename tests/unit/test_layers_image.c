/* Images: OCI layouts as directories and archives, docker save; what is chosen, verified, remembered. */
#include "test_layers_cache_util.h"

#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/sha.h>

TestSuite(image, .init = set_up, .fini = tear_down);

#define HEX_BYTES 65

static void hex_of(const void *bytes, size_t length, char hex[HEX_BYTES])
{
	uint8_t digest[SHA256_DIGEST_LENGTH];
	SHA256(bytes, length, digest);
	digest_hex(digest, hex);
}

static void run(const char *format, ...)
{
	char command[1000];
	va_list args;
	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	cr_assert_eq(system(command), 0, "%s", command);
}

/* The layout under test is root/img. */
static void begin_layout(void)
{
	run("mkdir -p %s/img/blobs/sha256", root);
	write_file(in_root("img/oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}", 30);
}

static void blob_path(const char *hex, char path[200])
{
	snprintf(path, 200, "%s/img/blobs/sha256/%s", root, hex);
}

static void put_blob(const void *bytes, size_t length, char hex[HEX_BYTES])
{
	char path[200];
	hex_of(bytes, length, hex);
	blob_path(hex, path);
	write_file(path, bytes, length);
}

static void put_index(const char *text)
{
	write_file(in_root("img/index.json"), text, strlen(text));
}

struct made_layer {
	char digest[HEX_BYTES], diff_id[HEX_BYTES];
	size_t length;
};

static struct made_layer put_layer(struct archive *tar, bool compress)
{
	struct made_layer layer;
	archive_end(tar);
	hex_of(tar->bytes, tar->length, layer.diff_id);
	if (compress) {
		struct archive gz = gzip(tar->bytes, tar->length);
		free(tar->bytes);
		*tar = gz;
	}
	put_blob(tar->bytes, tar->length, layer.digest);
	layer.length = tar->length;
	free(tar->bytes);
	return layer;
}

static const char config_format[] =
    "{\"os\":\"linux\",\"architecture\":\"%s\",\"config\":{\"Env\":[\"A=%s\",\"B=2\"],\"Entrypoint\":[\"/init\"],"
    "\"Cmd\":null,\"WorkingDir\":\"/"
    "srv\",\"User\":\"nobody\"},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:%s\"%s%s%s]}}";

/* Configuration and manifest of one or two layers; the manifest's digest goes to `hex`. */
static void put_manifest(const struct made_layer *one, const struct made_layer *two, const char *word, const char *architecture,
			 char hex[HEX_BYTES])
{
	char text[2000], config[HEX_BYTES], second[300] = "";
	snprintf(text, sizeof(text), config_format, architecture, word, one->diff_id, two ? ",\"sha256:" : "",
		 two ? two->diff_id : "", two ? "\"" : "");
	put_blob(text, strlen(text), config);
	if (two)
		snprintf(second, sizeof(second), ",{\"digest\":\"sha256:%s\",\"size\":%zu}", two->digest, two->length);
	snprintf(
	    text, sizeof(text),
	    "{\"schemaVersion\":2,\"config\":{\"digest\":\"sha256:%s\"},\"layers\":[{\"digest\":\"sha256:%s\",\"size\":%zu}%s]}",
	    config, one->digest, one->length, second);
	put_blob(text, strlen(text), hex);
}

/* A manifest of one layer in which "f" holds the word. */
static void put_simple(const char *word, const char *architecture, char hex[HEX_BYTES])
{
	struct archive a = { 0 };
	ADD(&a, .name = "f", .type = '0', .text = word);
	const struct made_layer layer = put_layer(&a, false);
	put_manifest(&layer, NULL, word, architecture, hex);
}

static void put_index_of(const char *hex)
{
	char text[300];
	snprintf(text, sizeof(text), "{\"schemaVersion\":2,\"manifests\":[{\"digest\":\"sha256:%s\"}]}", hex);
	put_index(text);
}

/* Two layers, of which the upper one (compressed) hides a name of the lower one (not compressed). */
static void put_two_layers(void)
{
	struct archive low = { 0 }, high = { 0 };
	char hex[HEX_BYTES];
	begin_layout();
	ADD(&low, .name = "f", .type = '0', .text = "low");
	ADD(&low, .name = "gone", .type = '0', .text = "x");
	ADD(&low, .name = "kept", .type = '0', .text = "kept");
	ADD(&high, .name = ".wh.gone", .type = '0');
	ADD(&high, .name = "f", .type = '0', .text = "high");
	const struct made_layer one = put_layer(&low, false), two = put_layer(&high, true);
	put_manifest(&one, &two, "1", "amd64", hex);
	put_index_of(hex);
}

static bool load_config(const char *path, struct image_config *config, const char *text)
{
	struct error err = { "" };
	struct tree *tree = NULL;
	cr_assert_eq(layers_load_image(&path, 1, NULL, 0, cache, &tree, config, &err), 0, "%s", err.text);
	assert_text(tree, "f", text);
	const bool mapped = tree->map != tree->inodes;
	tree_destroy(tree);
	return mapped;
}

static void two_layers_hold(const char *path)
{
	for (int round = 0; round < 2; round++) {
		struct image_config config;
		const bool mapped = load_config(path, &config, "high");
		cr_assert_eq(mapped, round > 0, "round %d", round);
		cr_assert_str_eq(config.env[0], "A=1");
		cr_assert_str_eq(config.env[1], "B=2");
		cr_assert_null(config.env[2]);
		cr_assert_str_eq(config.entrypoint[0], "/init");
		cr_assert_null(config.entrypoint[1]);
		cr_assert_null(config.command);
		cr_assert_str_eq(config.working_dir, "/srv");
		cr_assert_str_eq(config.user, "nobody");
		image_config_free(&config);
		cr_assert_eq(count_files("images", NULL, 0), 1);
	}
	struct tree *tree = load(path);
	assert_text(tree, "kept", "kept");
	cr_assert_eq(tree_lookup(tree, "gone", 0), TREE_NONE);
	cr_assert_eq(tree->layer_count, 2);
	tree_destroy(tree);
	cr_assert_eq(count_files("layers", NULL, 0), 1, "only what is compressed is copied");
}

Test(image, layout_in_a_directory)
{
	put_two_layers();
	settle();
	two_layers_hold(in_root("img"));
}

Test(image, layout_in_an_archive_is_read_in_place)
{
	put_two_layers();
	run("tar -C %s/img -cf %s/img.tar .", root, root);
	settle();
	two_layers_hold(in_root("img.tar"));
	run("tar -C %s/img --format=pax -cf %s/img.tar oci-layout index.json blobs", root, root);
	settle();
	load_holds(in_root("img.tar"), "high");
}

Test(image, is_one_layer_among_others_and_the_topmost_configuration_wins)
{
	char hex[HEX_BYTES], other[128], image[128], plain[128];
	struct error err = { "" };
	struct tree *tree = NULL;
	struct image_config config;
	begin_layout();
	put_simple("one", "amd64", hex);
	put_index_of(hex);
	run("mv %s/img %s/other", root, root);
	put_two_layers();
	snprintf(other, sizeof(other), "%s/other", root);
	snprintf(image, sizeof(image), "%s/img", root);
	snprintf(plain, sizeof(plain), "%s", write_sample_tar("plain.tar", "plain"));
	const char *paths[3] = { image, other, plain };
	cr_assert_eq(layers_load_image(paths, 3, NULL, 0, cache, &tree, &config, &err), 0, "%s", err.text);
	assert_text(tree, "f", "plain");
	assert_text(tree, "kept", "kept");
	cr_assert_eq(tree->layer_count, 4);
	cr_assert_str_eq(config.env[0], "A=one");
	image_config_free(&config);
	tree_destroy(tree);
	cr_assert_eq(layers_load_image(&paths[2], 1, NULL, 0, cache, &tree, &config, &err), 0, "%s", err.text);
	cr_assert_null(config.env);
	tree_destroy(tree);
}

static void put_named(void)
{
	char one[HEX_BYTES], two[HEX_BYTES], text[1000];
	begin_layout();
	put_simple("one", "amd64", one);
	put_simple("two", "amd64", two);
	snprintf(text, sizeof(text),
		 "{\"manifests\":[{\"digest\":\"sha256:%s\",\"annotations\":{\"org.opencontainers.image.ref.name\":\"app:1\"}},"
		 "{\"digest\":\"sha256:%s\",\"annotations\":{\"io.containerd.image.name\":\"docker.io/library/app:2\"}}]}",
		 one, two);
	put_index(text);
}

Test(image, is_chosen_by_reference)
{
	put_named();
	load_holds(in_root("img"), "one");
	load_holds(in_root("img:app:1"), "one");
	load_holds(in_root("img:docker.io/library/app:2"), "two");
	load_holds(in_root("img:app:2"), "two");
	load_holds(in_root("img:library/app:2"), "two");
	load_refused(in_root("img:pp:2"), -ENOENT, "img:pp:2: has no image named 'pp:2'");
	load_refused(in_root("none:app:2"), -ENOENT, "there is no such file");
}

Test(image, place_may_have_colons)
{
	put_named();
	run("mv %s/img %s/a:b", root, root);
	load_holds(in_root("a:b"), "one");
	load_holds(in_root("a:b:app:2"), "two");
}

static void put_platforms(const char *last)
{
	char arm[HEX_BYTES], here[HEX_BYTES], index[HEX_BYTES], text[1000];
	begin_layout();
	put_simple("arm", "arm64", arm);
	put_simple("here", last, here);
	snprintf(text, sizeof(text),
		 "{\"manifests\":[{\"digest\":\"sha256:%s\",\"platform\":{\"os\":\"linux\",\"architecture\":\"arm64\"}},"
		 "{\"digest\":\"sha256:%s\",\"platform\":{\"os\":\"unknown\",\"architecture\":\"unknown\"}},"
		 "{\"digest\":\"sha256:%s\",\"platform\":{\"os\":\"linux\",\"architecture\":\"%s\"}}]}",
		 arm, arm, here, last);
	put_blob(text, strlen(text), index);
	put_index_of(index);
}

Test(image, is_chosen_by_platform_in_nested_indexes)
{
	put_platforms("amd64");
	load_holds(in_root("img"), "here");
}

Test(image, refuses_when_no_platform_fits)
{
	put_platforms("riscv64");
	load_refused(in_root("img"), -ENOENT, "has no image for linux/amd64");
}

Test(image, refuses_another_architecture)
{
	char hex[HEX_BYTES];
	begin_layout();
	put_simple("arm", "arm64", hex);
	put_index_of(hex);
	load_refused(in_root("img"), -EINVAL, "is an image for linux/arm64");
}

Test(image, refuses_indexes_without_end)
{
	char hex[HEX_BYTES], text[300];
	begin_layout();
	put_simple("x", "amd64", hex);
	for (int i = 0; i < 8; i++) {
		snprintf(text, sizeof(text), "{\"manifests\":[{\"digest\":\"sha256:%s\"}]}", hex);
		put_blob(text, strlen(text), hex);
	}
	put_index_of(hex);
	load_refused(in_root("img"), -ELOOP, "indexes in each other");
}

/* A layout whose only layer does not have the digest or the diffID that it should have. */
static void put_wrong(bool compress, bool diff_id, char hex[HEX_BYTES])
{
	struct archive a = sample("wrong");
	begin_layout();
	struct made_layer layer = put_layer(&a, compress);
	if (diff_id)
		layer.diff_id[0] = layer.diff_id[0] == '0' ? '1' : '0';
	put_manifest(&layer, NULL, "1", "amd64", hex);
	put_index_of(hex);
	char path[200];
	blob_path(layer.digest, path);
	if (!diff_id)
		damage(path, (off_t)layer.length / 2);
}

Test(image, refuses_a_wrong_digest)
{
	char hex[HEX_BYTES];
	put_wrong(false, false, hex);
	load_refused(in_root("img"), -EBADMSG, "layer 1 of 1, blobs/sha256/");
	load_refused(in_root("img"), -EBADMSG, "wrong digest: the image says sha256:");
}

Test(image, refuses_a_wrong_digest_of_a_compressed_layer_whether_it_inflates_or_not)
{
	char hex[HEX_BYTES];
	put_wrong(true, false, hex);
	load_refused(in_root("img"), -EBADMSG, "wrong digest");
	cr_assert_eq(count_files("layers", NULL, 0), 0);
	/* A good layer in place of another one. */
	struct archive a = sample("good"), b = sample("evil");
	char path[200];
	struct made_layer layer = put_layer(&a, true);
	put_manifest(&layer, NULL, "1", "amd64", hex);
	put_index_of(hex);
	struct archive evil = gzip(b.bytes, b.length);
	blob_path(layer.digest, path);
	write_file(path, evil.bytes, layer.length);
	cr_assert_eq(truncate(path, (off_t)layer.length), 0);
	load_refused(in_root("img"), -EBADMSG, "wrong digest");
	cr_assert_eq(count_files("layers", NULL, 0), 0);
	free(b.bytes);
	free(evil.bytes);
}

Test(image, refuses_a_diff_id_of_zeroes)
{
	struct archive a = sample("x");
	char hex[HEX_BYTES];
	begin_layout();
	struct made_layer layer = put_layer(&a, false);
	memset(layer.diff_id, '0', HEX_BYTES - 1);
	put_manifest(&layer, NULL, "1", "amd64", hex);
	put_index_of(hex);
	load_refused(in_root("img"), -EINVAL, "is no SHA-256 digest");
}

Test(image, refuses_a_wrong_diff_id)
{
	char hex[HEX_BYTES];
	put_wrong(false, true, hex);
	load_refused(in_root("img"), -EBADMSG, "wrong diffID");
	cr_assert_eq(count_files("images", NULL, 0), 0);
}

Test(image, refuses_a_wrong_diff_id_of_a_compressed_layer_also_from_the_cache)
{
	char hex[HEX_BYTES];
	put_wrong(true, true, hex);
	load_refused(in_root("img"), -EBADMSG, "wrong diffID");
	load_refused(in_root("img"), -EBADMSG, "wrong diffID");
}

Test(image, a_layer_that_was_used_alone_is_verified_all_the_same)
{
	struct archive a = sample("alone");
	char hex[HEX_BYTES], path[200];
	begin_layout();
	struct made_layer layer = put_layer(&a, true);
	blob_path(layer.digest, path);
	settle();
	load_holds(path, "alone");
	cr_assert(load_holds(path, "alone"));
	layer.diff_id[0] = layer.diff_id[0] == '0' ? '1' : '0';
	put_manifest(&layer, NULL, "1", "amd64", hex);
	put_index_of(hex);
	load_refused(in_root("img"), -EBADMSG, "wrong diffID");
}

Test(image, refuses_a_wrong_manifest)
{
	char hex[HEX_BYTES], path[200];
	begin_layout();
	put_simple("x", "amd64", hex);
	put_index_of(hex);
	blob_path(hex, path);
	damage(path, 3);
	load_refused(in_root("img"), -EBADMSG, "wrong digest");
	cr_assert_eq(unlink(path), 0);
	load_refused(in_root("img"), -ENOENT, "is missing in the layout");
}

Test(image, refuses_a_wrong_size)
{
	struct archive a = sample("x");
	char hex[HEX_BYTES];
	begin_layout();
	struct made_layer layer = put_layer(&a, false);
	layer.length++;
	put_manifest(&layer, NULL, "1", "amd64", hex);
	put_index_of(hex);
	load_refused(in_root("img"), -EBADMSG, "bytes, and should have");
}

Test(image, refuses_bad_json)
{
	static const struct {
		const char *text;
		int code;
		const char *words;
	} bad[] = {
		{ "", -EINVAL, "index.json is not the JSON that it should be: line 1" },
		{ "{\"manifests\":[}", -EINVAL, "line 1, column 15" },
		{ "{\"a\":\"\xff\"}", -EINVAL, "is not the JSON" },
		{ "{\"a\":1,\"a\":2}", -EINVAL, "is not the JSON" },
		{ "{}", -EINVAL, "the manifest's config: '' is no SHA-256 digest" },
		{ "[]", -EINVAL, "is no SHA-256 digest" },
		{ "{\"manifests\":7}", -ENOENT, "has no image for" },
		{ "{\"manifests\":[7]}", -EINVAL, "is no SHA-256 digest" },
		{ "{\"manifests\":[{\"digest\":\"sha256:../../../../../../../../etc/passwd\"}]}", -EINVAL, "is no SHA-256 digest" },
	};
	begin_layout();
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		put_index(bad[i].text);
		load_refused(in_root("img"), bad[i].code, bad[i].words);
	}
	char *deep = malloc(5000001);
	memset(deep, '[', 100000);
	deep[100000] = '\0';
	put_index(deep);
	load_refused(in_root("img"), -EINVAL, "is not the JSON");
	memset(deep, ' ', 5000000);
	deep[5000000] = '\0';
	put_index(deep);
	load_refused(in_root("img"), -EFBIG, "4 MiB are allowed");
	free(deep);
}

Test(image, a_change_is_noticed)
{
	char hex[HEX_BYTES], path[200];
	put_two_layers();
	settle();
	load_holds(in_root("img"), "high");
	cr_assert(load_holds(in_root("img"), "high"));
	put_simple("new", "amd64", hex);
	put_index_of(hex);
	cr_assert_not(load_holds(in_root("img"), "new"));
	settle();
	load_holds(in_root("img"), "new");
	cr_assert(load_holds(in_root("img"), "new"));
	blob_path(hex, path);
	damage(path, 3);
	load_refused(in_root("img"), -EBADMSG, "wrong digest");
}

Test(image, a_damaged_memory_is_made_anew)
{
	char memory[256];
	put_two_layers();
	settle();
	load_holds(in_root("img"), "high");
	cr_assert_eq(count_files("images", memory, sizeof(memory)), 1);
	struct stat st;
	cr_assert_eq(stat(memory, &st), 0);
	for (off_t at = 0; at < st.st_size; at += 7) {
		damage(memory, at);
		load_holds(in_root("img"), "high");
	}
	cr_assert_eq(truncate(memory, 5), 0);
	load_holds(in_root("img"), "high");
}

/* What `docker save` wrote before it wrote OCI layouts: equal layers are links. */
static void put_saved(bool wrong)
{
	struct archive low = { 0 }, image = { 0 };
	char hex[HEX_BYTES], config_hex[HEX_BYTES], name[100], text[2000];
	ADD(&low, .name = "f", .type = '0', .text = "saved");
	archive_end(&low);
	hex_of(low.bytes, low.length, hex);
	if (wrong)
		low.bytes[512] ^= 1;
	snprintf(text, sizeof(text), config_format, "amd64", "s", hex, ",\"sha256:", hex, "\"");
	hex_of(text, strlen(text), config_hex);
	snprintf(name, sizeof(name), "%s/", hex);
	ADD(&image, .name = name, .type = '5');
	snprintf(name, sizeof(name), "%s/layer.tar", hex);
	ADD(&image, .name = name, .type = '0', .text = (const char *)low.bytes, .text_bytes = low.length);
	ADD(&image, .name = "other/layer.tar", .type = '2', .link = "../first/layer.tar");
	ADD(&image, .name = "first/layer.tar", .type = '1', .link = name);
	snprintf(name, sizeof(name), "%s.json", config_hex);
	ADD(&image, .name = name, .type = '0', .text = text);
	snprintf(
	    text, sizeof(text),
	    "[{\"Config\":\"%s\",\"RepoTags\":[\"app:1\",\"registry/x/app:2\"],\"Layers\":[\"%s/layer.tar\",\"other/layer.tar\"]}]",
	    name, hex);
	ADD(&image, .name = "manifest.json", .type = '0', .text = text);
	archive_end(&image);
	write_file(in_root("saved.tar"), image.bytes, image.length);
	free(image.bytes);
	free(low.bytes);
}

Test(image, docker_save)
{
	struct image_config config;
	put_saved(false);
	settle();
	load_config(in_root("saved.tar"), &config, "saved");
	cr_assert_str_eq(config.env[0], "A=s");
	image_config_free(&config);
	cr_assert(load_config(in_root("saved.tar"), &config, "saved"));
	image_config_free(&config);
	load_holds(in_root("saved.tar:app:1"), "saved");
	load_holds(in_root("saved.tar:x/app:2"), "saved");
	load_refused(in_root("saved.tar:app:3"), -ENOENT, "has no image named 'app:3'");
	put_saved(true);
	load_refused(in_root("saved.tar"), -EBADMSG, "wrong diffID");
}

Test(image, compressed_docker_save)
{
	static const char *const programs[] = { "gzip -c", "zstd -qc", "xz -0c", "bzip2 -c" };
	put_saved(false);
	for (size_t i = 0; i < sizeof(programs) / sizeof(programs[0]); i++) {
		struct image_config config;
		run("%s %s/saved.tar >%s/saved.z", programs[i], root, root);
		settle();
		cr_assert_not(load_config(in_root("saved.z"), &config, "saved"));
		cr_assert_str_eq(config.env[0], "A=s");
		image_config_free(&config);
		cr_assert(load_config(in_root("saved.z:app:1"), &config, "saved"), "%s: the tree was made anew", programs[i]);
		image_config_free(&config);
		cr_assert_eq(count_files("layers", NULL, 0), i + 1, "the archive, and no layer in it, is inflated");
	}
	run("rm -rf %s/layers", cache);
	load_holds(in_root("saved.z"), "saved");
	cr_assert_eq(count_files("layers", NULL, 0), 1);
	put_saved(true);
	run("gzip -c %s/saved.tar >%s/saved.z", root, root);
	load_refused(in_root("saved.z"), -EBADMSG, "wrong diffID");
	run("truncate -s -20 %s/saved.z", root);
	load_refused(in_root("saved.z"), -ENODATA, "saved.z: the gzip data is truncated");
}

/* Whichever byte of the inflated archive is lost: header, manifest, configuration, layer. The first start that reads it makes it anew. */
Test(image, damage_of_an_inflated_archive_is_healed_at_once)
{
	char entry[256];
	struct image_config config;
	put_saved(false);
	run("gzip -c %s/saved.tar >%s/saved.z", root, root);
	settle();
	load_config(in_root("saved.z"), &config, "saved");
	image_config_free(&config);
	struct stat st;
	cr_assert_eq(stat(in_root("saved.tar"), &st), 0);
	for (off_t at = 0; at < st.st_size; at += at < 4096 ? 100 : 300) {
		cr_assert_eq(count_files("layers", entry, sizeof(entry)), 1);
		run("rm -rf %s/trees %s/images", cache, cache);
		damage(entry, at);
		load_config(in_root("saved.z"), &config, "saved");
		cr_assert_str_eq(config.env[0], "A=s", "damage at %lld", (long long)at);
		image_config_free(&config);
	}
}

Test(image, compressed_archive_of_a_layout)
{
	put_two_layers();
	run("tar -C %s/img -czf %s/img.tar.gz .", root, root);
	settle();
	for (int round = 0; round < 3; round++) {
		struct image_config config;
		cr_assert_eq(load_config(in_root("img.tar.gz"), &config, "high"), round > 0, "round %d", round);
		cr_assert_str_eq(config.working_dir, "/srv");
		image_config_free(&config);
		cr_assert_eq(count_files("layers", NULL, 0), 2, "the archive, and the layer that is compressed in it");
	}
	struct tree *tree = load(in_root("img.tar.gz"));
	assert_text(tree, "kept", "kept");
	/* What is open stays readable when the cache is emptied, or the archive goes. */
	run("rm -rf %s %s/img.tar.gz", cache, root);
	settle();
	assert_text(tree, "kept", "kept");
	assert_text(tree, "f", "high");
	tree_destroy(tree);
}

Test(image, a_layer_that_looks_like_an_image_is_a_layer)
{
	struct archive a = { 0 };
	ADD(&a, .name = "blobs/", .type = '5');
	ADD(&a, .name = "f", .type = '0', .text = "layer");
	archive_end(&a);
	write_file(in_root("layer"), a.bytes, a.length);
	free(a.bytes);
	load_holds(in_root("layer"), "layer");
}

Test(image, every_truncation_of_an_archive_is_refused)
{
	struct stat st;
	put_saved(false);
	cr_assert_eq(stat(in_root("saved.tar"), &st), 0);
	for (off_t length = st.st_size - 1024 - 1; length > 0; length -= length > 1400 ? 97 : 13) {
		const char *path = in_root("saved.tar");
		struct error err = { "" };
		struct tree *tree = NULL;
		cr_assert_eq(truncate(path, length), 0);
		/* Where all that is left is a whole archive of other files, it is a layer. */
		if (layers_load(&path, 1, NULL, 0, cache, &tree, &err) == 0)
			cr_assert_eq(length % 512, 0, "%ld", (long)length);
		tree_destroy(tree);
	}
}

static bool have(const char *program)
{
	char command[100];
	snprintf(command, sizeof(command), "command -v %s >/dev/null", program);
	return system(command) == 0;
}

Test(image, what_umoci_and_skopeo_make)
{
	if (!have("umoci") || !have("skopeo"))
		cr_skip_test("umoci or skopeo is not installed");
	run("cd %s && umoci init --layout u && umoci new --image u:empty && umoci unpack --rootless --image u:empty b >/dev/null "
	    "2>&1 && "
	    "echo -n one >b/rootfs/f && echo x >b/rootfs/gone && umoci repack --image u:one b >/dev/null 2>&1 && rm -r b && "
	    "umoci unpack --rootless --image u:one b >/dev/null 2>&1 && echo -n two >b/rootfs/f && rm b/rootfs/gone && "
	    "umoci repack --image u:two b >/dev/null 2>&1 && "
	    "umoci config --image u:two --config.env A=skopeo --config.user 7:8 --config.cmd /bin/true",
	    root);
	run("cd %s && skopeo --insecure-policy copy -q oci:u:two oci-archive:two.oci:app:2 && "
	    "skopeo --insecure-policy copy -q oci:u:two docker-archive:two.tar:app:2 && "
	    "skopeo --insecure-policy copy -q --dest-compress-format zstd oci:u:two oci:z:two",
	    root);
	settle();
	load_holds(in_root("u:one"), "one");
	static const char *const images[] = { "u:two", "two.oci", "two.oci:app:2", "two.tar", "two.tar:app:2", "z:two" };
	for (size_t i = 0; i < sizeof(images) / sizeof(images[0]); i++) {
		struct image_config config;
		load_config(in_root(images[i]), &config, "two");
		image_config_free(&config);
		cr_assert(load_config(in_root(images[i]), &config, "two"), "%s was not mapped from the cache", images[i]);
		cr_assert_str_eq(config.user, "7:8");
		cr_assert_str_eq(config.command[0], "/bin/true");
		image_config_free(&config);
		struct tree *tree = load(in_root(images[i]));
		cr_assert_eq(tree_lookup(tree, "gone", 0), TREE_NONE);
		tree_destroy(tree);
	}
}
