/* From index.json or manifest.json to layers and configuration. See image_internal.h. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "layers/image_internal.h"

#define INDEX_DEPTH_MAX 4
#define PLATFORM_OS "linux"
#define PLATFORM_ARCHITECTURE "amd64"

#define BLOB_NAME_BYTES (sizeof("blobs/sha256/") + DIGEST_HEX_BYTES)

static json_t *get(const json_t *object, const char *key)
{
	return json_object_get(object, key); /* NULL for what is no object */
}

static const char *get_text(const json_t *object, const char *key)
{
	return json_string_value(get(object, key));
}

static int read_json(struct image *image, const char *name, const uint8_t *digest, json_t **json, struct error *err)
{
	char *text, quoted[200];
	size_t length;
	json_error_t bad;
	const int ret = image_read_json(image, name, digest, &text, &length, err);
	if (ret)
		return ret;
	*json = json_loadb(text, length, JSON_REJECT_DUPLICATES, &bad);
	free(text);
	if (*json)
		return 0;
	return error_set(err, -EINVAL, "%s is not the JSON that it should be: line %d, column %d: '%s'", name, bad.line, bad.column,
			 error_quote(quoted, sizeof(quoted), bad.text, strnlen(bad.text, sizeof(bad.text))));
}

static bool parse_hex(const char *hex, uint8_t digest[DIGEST_BYTES])
{
	for (unsigned i = 0; i < 2 * DIGEST_BYTES; i++) {
		static const char digits[] = "0123456789abcdef";
		const char *digit = hex[i] ? strchr(digits, hex[i]) : NULL;
		if (!digit)
			return false;
		const unsigned high = i % 2 ? (unsigned)digest[i / 2] << 4 : 0;
		digest[i / 2] = (uint8_t)(high | (unsigned)(digit - digits));
	}
	return digest_is_told(digest); /* all zero, which nothing has, would mean that nothing is compared */
}

static int parse_digest(const char *text, uint8_t digest[DIGEST_BYTES], struct error *err)
{
	char quoted[120];
	if (text && strlen(text) == 7 + 2 * DIGEST_BYTES && memcmp(text, "sha256:", 7) == 0 && parse_hex(text + 7, digest))
		return 0;
	text = text ? text : "";
	return error_set(err, -EINVAL, "'%s' is no SHA-256 digest", error_quote(quoted, sizeof(quoted), text, strlen(text)));
}

static int blob_name(const json_t *descriptor, char name[BLOB_NAME_BYTES], uint8_t digest[DIGEST_BYTES], struct error *err)
{
	const int ret = parse_digest(get_text(descriptor, "digest"), digest, err);
	if (!ret) {
		strcpy(name, "blobs/sha256/");
		digest_hex(digest, name + strlen(name));
	}
	return ret;
}

static char **text_list(const json_t *array, bool *failed)
{
	if (!json_is_array(array))
		return NULL;
	size_t used = 0, i;
	json_t *item;
	char **list = calloc(json_array_size(array) + 1, sizeof(*list));
	*failed |= !list;
	json_array_foreach(array, i, item)
	{
		if (!list || !json_is_string(item))
			continue;
		list[used] = strdup(json_string_value(item));
		*failed |= !list[used];
		used += list[used] != NULL;
	}
	return list;
}

static char *text_copy(const char *text, bool *failed)
{
	char *copy = text && *text ? strdup(text) : NULL;
	*failed |= text && *text && !copy;
	return copy;
}

static int take_config(struct image *image, const json_t *json, struct error *err)
{
	const char *os = get_text(json, "os"), *architecture = get_text(json, "architecture");
	if ((os && *os && strcmp(os, PLATFORM_OS) != 0) ||
	    (architecture && *architecture && strcmp(architecture, PLATFORM_ARCHITECTURE) != 0)) {
		char quoted_os[40], quoted[40];
		return error_set(err, -EINVAL, "is an image for %s/%s; " PLATFORM_OS "/" PLATFORM_ARCHITECTURE " is needed",
				 os ? error_quote(quoted_os, sizeof(quoted_os), os, strlen(os)) : "?",
				 architecture ? error_quote(quoted, sizeof(quoted), architecture, strlen(architecture)) : "?");
	}
	const json_t *config = get(json, "config");
	bool failed = false;
	image->config.env = text_list(get(config, "Env"), &failed);
	image->config.entrypoint = text_list(get(config, "Entrypoint"), &failed);
	image->config.command = text_list(get(config, "Cmd"), &failed);
	image->config.working_dir = text_copy(get_text(config, "WorkingDir"), &failed);
	image->config.user = text_copy(get_text(config, "User"), &failed);
	return failed ? error_set(err, -ENOMEM, "out of memory") : 0;
}

/* Adds a layer; `digest` may be NULL. `diff_id` is the configuration's entry for it. */
static int add_layer(struct image *image, const char *name, const uint8_t *digest, const json_t *size, const json_t *diff_id,
		     struct error *err)
{
	struct image_part *part;
	int ret = image_add_part(image, name, &part, err);
	if (ret)
		return ret;
	part->is_layer = true;
	if (digest)
		memcpy(part->expected.digest, digest, DIGEST_BYTES);
	if (part->length == 0)
		return error_set(err, -EINVAL, "%s is empty", name);
	if (json_is_integer(size) && json_integer_value(size) != (json_int_t)part->length)
		return error_set(err, -EBADMSG, "%s has %llu bytes, and should have %lld", name, (unsigned long long)part->length,
				 (long long)json_integer_value(size));
	return parse_digest(json_string_value(diff_id), part->expected.diff_id, err);
}

static int check_counts(const json_t *layers, const json_t *diff_ids, struct error *err)
{
	const size_t count = json_array_size(layers);
	if (!json_is_array(layers) || !json_is_array(diff_ids))
		return error_set(err, -EINVAL, "is no container image: its manifest or configuration lists no layers");
	if (count > IMAGE_LAYERS_MAX)
		return error_set(err, -E2BIG, "has %zu layers; %u are allowed", count, IMAGE_LAYERS_MAX);
	if (count != json_array_size(diff_ids))
		return error_set(err, -EINVAL, "the configuration has diffIDs for %zu layers, and the manifest has %zu",
				 json_array_size(diff_ids), count);
	return 0;
}

static int resolve_manifest(struct image *image, const json_t *manifest, struct error *err)
{
	char name[BLOB_NAME_BYTES];
	uint8_t digest[DIGEST_BYTES];
	json_t *config = NULL, *layer;
	size_t i;
	int ret = blob_name(get(manifest, "config"), name, digest, err);
	if (ret)
		return error_prefix(err, ret, "the manifest's config");
	ret = read_json(image, name, digest, &config, err);
	if (ret)
		return ret;
	const json_t *layers = get(manifest, "layers"), *diff_ids = get(get(config, "rootfs"), "diff_ids");
	ret = check_counts(layers, diff_ids, err);
	if (!ret)
		ret = take_config(image, config, err);
	json_array_foreach(layers, i, layer)
	{
		if (!ret)
			ret = blob_name(layer, name, digest, err);
		if (!ret)
			ret = add_layer(image, name, digest, get(layer, "size"), json_array_get(diff_ids, i), err);
	}
	json_decref(config);
	return ret;
}

/* 2: it is this name; 1: it is the end of it ("debian:12" of "docker.io/library/debian:12"); 0: no. */
static int name_matches(const char *name, const char *reference)
{
	if (!name)
		return 0;
	const size_t length = strlen(name), wanted = strlen(reference);
	if (length < wanted || strcmp(name + length - wanted, reference) != 0)
		return 0;
	return length == wanted ? 2 : name[length - wanted - 1] == '/';
}

/* How well a descriptor of the layout's index is what was asked for; 0: not at all. */
static int reference_matches(const json_t *descriptor, const char *reference)
{
	static const char *const keys[] = { "org.opencontainers.image.ref.name", "io.containerd.image.name" };
	int best = reference ? 0 : 1;
	for (size_t i = 0; reference && i < sizeof(keys) / sizeof(keys[0]); i++) {
		const int match = name_matches(get_text(get(descriptor, "annotations"), keys[i]), reference);
		best = match > best ? match : best;
	}
	return best;
}

/* The same for its platform; one that does not tell may be right. */
static int platform_matches(const json_t *descriptor)
{
	const json_t *platform = get(descriptor, "platform");
	const char *os = get_text(platform, "os"), *architecture = get_text(platform, "architecture");
	if (!os || !architecture)
		return 1;
	return strcmp(os, PLATFORM_OS) == 0 && strcmp(architecture, PLATFORM_ARCHITECTURE) == 0 ? 2 : 0;
}

static int not_found(const char *reference, struct error *err)
{
	char quoted[200];
	return error_set(err, -ENOENT, "has no image named '%s'",
			 error_quote(quoted, sizeof(quoted), reference, strlen(reference)));
}

/* The first of the best. */
static int choose(const json_t *index, const char *reference, const json_t **chosen, struct error *err)
{
	const json_t *manifests = get(index, "manifests");
	json_t *item;
	size_t i;
	int best = 0;
	bool named = false;
	json_array_foreach(manifests, i, item)
	{
		const int name = reference_matches(item, reference), platform = platform_matches(item);
		const int score = name && platform ? name * 4 + platform : 0;
		named |= name > 0;
		if (score > best) {
			best = score;
			*chosen = item;
		}
	}
	if (best)
		return 0;
	return reference && !named ? not_found(reference, err)
				   : error_set(err, -ENOENT, "has no image for " PLATFORM_OS "/" PLATFORM_ARCHITECTURE);
}

static int resolve_index(struct image *image, struct error *err)
{
	const char *reference = image->reference;
	json_t *json = NULL;
	int ret = read_json(image, "index.json", NULL, &json, err);
	for (unsigned depth = 0; !ret && get(json, "manifests"); depth++) {
		const json_t *descriptor = NULL;
		char name[BLOB_NAME_BYTES];
		uint8_t digest[DIGEST_BYTES];
		json_t *next = NULL;
		ret = depth < INDEX_DEPTH_MAX ? choose(json, reference, &descriptor, err)
					      : error_set(err, -ELOOP, "more than %d indexes in each other", INDEX_DEPTH_MAX);
		if (!ret)
			ret = blob_name(descriptor, name, digest, err);
		if (!ret)
			ret = read_json(image, name, digest, &next, err);
		if (!ret) {
			json_decref(json);
			json = next;
		}
		reference = NULL;
	}
	if (!ret)
		ret = resolve_manifest(image, json, err);
	json_decref(json);
	return ret;
}

static const json_t *choose_saved(const json_t *manifests, const char *reference)
{
	const json_t *chosen = NULL;
	json_t *item, *tag;
	size_t i, k;
	int best = 0;
	if (!reference)
		return json_array_get(manifests, 0);
	json_array_foreach(manifests, i, item)
	{
		json_array_foreach(get(item, "RepoTags"), k, tag)
		{
			const int match = name_matches(json_string_value(tag), reference);
			if (match > best) {
				best = match;
				chosen = item;
			}
		}
	}
	return chosen;
}

/* The list of `docker save`: names of files in the archive. Digests are told by diffIDs, and by the configuration's own name. */
static int resolve_saved(struct image *image, struct error *err)
{
	json_t *json = NULL, *config = NULL, *layer;
	uint8_t digest[DIGEST_BYTES];
	size_t i;
	int ret = read_json(image, "manifest.json", NULL, &json, err);
	const json_t *manifest = ret ? NULL : choose_saved(json, image->reference);
	const char *name = get_text(manifest, "Config");
	if (!ret && !manifest && image->reference)
		ret = not_found(image->reference, err);
	else if (!ret && !name)
		ret = error_set(err, -EINVAL, "manifest.json names no configuration");
	if (!ret && name) {
		const char *slash = strrchr(name, '/'), *base = slash ? slash + 1 : name;
		ret = read_json(image, name, parse_hex(base, digest) ? digest : NULL, &config, err);
	}
	const json_t *layers = get(manifest, "Layers"), *diff_ids = get(get(config, "rootfs"), "diff_ids");
	if (!ret)
		ret = check_counts(layers, diff_ids, err);
	if (!ret)
		ret = take_config(image, config, err);
	json_array_foreach(layers, i, layer)
	{
		if (!ret && !json_is_string(layer))
			ret = error_set(err, -EINVAL, "manifest.json: layer %zu is no name", i + 1);
		if (!ret)
			ret = add_layer(image, json_string_value(layer), NULL, NULL, json_array_get(diff_ids, i), err);
	}
	json_decref(config);
	json_decref(json);
	return ret;
}

int image_resolve(struct image *image, struct error *err)
{
	return image_has(image, "index.json") ? resolve_index(image, err) : resolve_saved(image, err);
}
