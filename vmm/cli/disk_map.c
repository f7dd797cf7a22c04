/*
 * The map of a planned disk as SVG: one picture, no scripts, nothing from elsewhere, readable on light and dark.
 *
 *   a bar      the whole disk to scale: what is used, what is free
 *   a field    the used part, row below row: metadata by kind, files by the layer that brought them; the names are titles, which
 *              viewers show under the pointer
 *   a legend   kinds and layers with their sizes
 *
 * Files too narrow to be seen are drawn together with their neighbours of the same layer, so the picture stays small whatever the disk
 * holds.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/cli/disk_inspect.h"

typedef unsigned long long ull;

#define WIDTH 1000.0 /* of bar and field; the picture has a margin of MARGIN around */
#define MARGIN 20
#define BAR_TOP 70
#define BAR_HEIGHT 24
#define FIELD_TOP 140
#define ROW_HEIGHT 14
#define ROWS_MAX 48
#define LEGEND_ROW 20
#define COLOURS 8 /* of layers; more layers use them again */
#define NARROW 1.0 /* what is less wide is drawn with its neighbours */

/* What neighbouring blocks are drawn as. */
struct piece {
	uint64_t first, end;
	const char *class; /* of the style; layers: NULL and `layer` */
	uint32_t layer;
	uint32_t inode; /* one file's; meaningless for several */
	uint64_t files;
	const char *name; /* of a region */
};

struct map {
	const struct view *view;
	FILE *out;
	uint64_t row_blocks;
	struct piece pending; /* end == first: none */
	bool out_of_memory;
};

static const char style[] =
    "<style>\n"
    "svg{--paper:#fff;--ink:#222;--free:#e4e4e4;--meta0:#555;--meta1:#777;--meta2:#999;font:13px "
    "sans-serif;background:var(--paper)}\n"
    "@media(prefers-color-scheme:dark){svg{--paper:#181818;--ink:#ddd;--free:#333;--meta0:#aaa;--meta1:#888;--meta2:#666}}\n"
    "text{fill:var(--ink)}.title{font-size:18px;font-weight:bold}.free{fill:var(--free)}.m0{fill:var(--meta0)}.m1{fill:var(--meta1)"
    "}\n"
    ".m2{fill:var(--meta2)}.l0{fill:#4477aa}.l1{fill:#ee6677}.l2{fill:#228833}.l3{fill:#ccbb44}.l4{fill:#66ccee}.l5{fill:#aa3377}\n"
    ".l6{fill:#ee8866}.l7{fill:#44bb99}\n"
    "</style>\n";

/* Quoted text has no bytes but printable ASCII. */
static void xml_text(FILE *out, const char *quoted)
{
	for (; *quoted; quoted++) {
		switch (*quoted) {
		case '&':
			fputs("&amp;", out);
			break;
		case '<':
			fputs("&lt;", out);
			break;
		case '>':
			fputs("&gt;", out);
			break;
		default:
			putc(*quoted, out);
		}
	}
}

/* "12.3 MiB" */
static void print_bytes(FILE *out, uint64_t blocks)
{
	static const char *const units[] = { "KiB", "MiB", "GiB", "TiB" };
	double value = (double)blocks * EXT4_BLOCK_BYTES / 1024;
	unsigned unit = 0;
	for (; value >= 1024 && unit < 3; unit++)
		value /= 1024;
	fprintf(out, value < 10 && unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
}

static void print_class(FILE *out, const struct piece *piece)
{
	if (piece->class)
		fprintf(out, "class=\"%s\"", piece->class);
	else
		fprintf(out, "class=\"l%u\"", piece->layer % COLOURS);
}

static void print_title(struct map *map, const struct piece *piece)
{
	FILE *out = map->out;
	fputs("<title>", out);
	if (piece->name) {
		fputs(piece->name, out);
	} else if (piece->files == 1) {
		char *path = view_path(map->view, piece->inode);
		map->out_of_memory |= !path;
		xml_text(out, path ? path : "");
		free(path);
	} else {
		fprintf(out, "%llu files", (ull)piece->files);
	}
	if (!piece->name)
		fprintf(out, ", layer %u", piece->layer);
	fprintf(out, ", blocks %llu to %llu</title>", (ull)piece->first, (ull)(piece->end - 1));
}

/* A piece of the field: a rectangle in each row that it reaches. */
static void draw_piece(struct map *map, const struct piece *piece)
{
	if (piece->first == piece->end)
		return;
	fputs("<g ", map->out);
	print_class(map->out, piece);
	putc('>', map->out);
	print_title(map, piece);
	for (uint64_t at = piece->first; at < piece->end;) {
		const uint64_t row = at / map->row_blocks, row_end = (row + 1) * map->row_blocks;
		const uint64_t end = piece->end < row_end ? piece->end : row_end;
		fprintf(map->out, "<rect x=\"%.2f\" y=\"%llu\" width=\"%.2f\" height=\"%d\"/>",
			MARGIN + (double)(at % map->row_blocks) * WIDTH / (double)map->row_blocks,
			(ull)(FIELD_TOP + row * ROW_HEIGHT), (double)(end - at) * WIDTH / (double)map->row_blocks, ROW_HEIGHT - 2);
		at = end;
	}
	fputs("</g>\n", map->out);
}

static bool is_narrow(const struct map *map, const struct piece *piece)
{
	return (double)(piece->end - piece->first) * WIDTH / (double)map->row_blocks < NARROW;
}

/* Draws pieces in the order of their blocks, narrow ones of a layer together. */
static void add_piece(struct map *map, const struct piece *piece)
{
	struct piece *pending = &map->pending;
	const bool same_file = pending->files == 1 && pending->inode == piece->inode;
	if (pending->first != pending->end && !piece->class && !pending->class && pending->layer == piece->layer &&
	    pending->end == piece->first && (same_file || (is_narrow(map, pending) && is_narrow(map, piece)))) {
		pending->end = piece->end;
		pending->files += !same_file;
		pending->inode = piece->inode;
		return;
	}
	draw_piece(map, pending);
	*pending = *piece;
}

static void draw_field(struct map *map, const struct ext4_region *regions, unsigned region_count)
{
	static const char *const classes[] = { "m0", "m1", "m2" };
	struct ext4_run run;
	/* The last two regions are contents and free space. */
	for (unsigned i = 0; i + 2 < region_count; i++) {
		const struct piece piece = {
			.first = regions[i].first, .end = regions[i].end, .class = classes[i % 3], .name = regions[i].name
		};
		add_piece(map, &piece);
	}
	for (uint32_t index = 0; ext4_plan_run(map->view->root->plan, index, &run); index++) {
		const struct piece piece = { .first = run.first,
					     .end = run.first + run.count,
					     .inode = run.tree_inode,
					     .files = 1,
					     .layer = map->view->tree->inodes[run.tree_inode].layer };
		add_piece(map, &piece);
	}
	draw_piece(map, &map->pending);
}

static double at_least_a_line(double width)
{
	return width < NARROW ? NARROW : width;
}

/* The whole disk; what is used is at least a line. */
static void draw_bar(const struct map *map, uint64_t metadata, uint64_t used, uint64_t all)
{
	const double scale = WIDTH / (double)all;
	const struct {
		const char *class, *name;
		uint64_t first, end;
	} parts[] = { { "free", "free space", 0, all }, { "m2", "file contents", 0, used }, { "m0", "metadata", 0, metadata } };
	for (unsigned i = 0; i < 3; i++) {
		fprintf(map->out, "<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%.2f\" height=\"%d\"><title>%s</title></rect>\n",
			parts[i].class, MARGIN, BAR_TOP, at_least_a_line((double)parts[i].end * scale), BAR_HEIGHT, parts[i].name);
	}
}

static void draw_legend_row(FILE *out, unsigned row, int top, const char *class)
{
	fprintf(out, "<rect class=\"%s\" x=\"%d\" y=\"%u\" width=\"14\" height=\"14\"/><text x=\"%d\" y=\"%u\">", class, MARGIN,
		(unsigned)top + row * LEGEND_ROW, MARGIN + 22, (unsigned)top + row * LEGEND_ROW + 12);
}

/* Kinds of metadata, layers, free space, each with what it takes. */
static void draw_legend(const struct map *map, const struct ext4_region *regions, unsigned region_count,
			const uint64_t *layer_blocks, int top)
{
	static const char *const classes[] = { "m0", "m1", "m2" };
	FILE *out = map->out;
	unsigned row = 0;
	for (unsigned i = 0; i < region_count; i++) {
		if (i == region_count - 2)
			continue;
		draw_legend_row(out, row++, top, i == region_count - 1 ? "free" : classes[i % 3]);
		fprintf(out, "%s, ", regions[i].name);
		print_bytes(out, regions[i].end - regions[i].first);
		fputs("</text>\n", out);
	}
	for (uint32_t i = 0; i < map->view->tree->layer_count; i++) {
		if (!layer_blocks[i])
			continue;
		char class[4] = { 'l', (char)('0' + i % COLOURS), '\0' };
		draw_legend_row(out, row++, top, class);
		fprintf(out, "layer %u, ", i);
		xml_text(out, map->view->layer_names[i] ? map->view->layer_names[i] : "?");
		fputs(", ", out);
		print_bytes(out, layer_blocks[i]);
		fputs("</text>\n", out);
	}
}

/* Adds up what each layer brought; returns how many brought something. */
static unsigned count_layers(const struct view *view, uint64_t *layer_blocks)
{
	struct ext4_run run;
	unsigned count = 0;
	for (uint32_t index = 0; ext4_plan_run(view->root->plan, index, &run); index++) {
		uint64_t *blocks = &layer_blocks[view->tree->inodes[run.tree_inode].layer];
		count += *blocks == 0;
		*blocks += run.count;
	}
	return count;
}

int map_print(const struct view *view, FILE *out, struct error *err)
{
	struct ext4_region regions[EXT4_REGIONS_MAX];
	const unsigned region_count = ext4_plan_regions(view->root->plan, regions);
	const uint64_t used = regions[region_count - 1].first, all = regions[region_count - 1].end;
	struct map map = { .view = view, .out = out };
	uint64_t *layer_blocks = calloc((size_t)view->tree->layer_count + 1, sizeof(*layer_blocks));
	if (!layer_blocks)
		return error_set(err, -ENOMEM, "out of memory");
	const unsigned layers = count_layers(view, layer_blocks);
	map.row_blocks = used / ROWS_MAX + 1;
	const int rows = (int)((used + map.row_blocks - 1) / map.row_blocks);
	const int legend_top = FIELD_TOP + rows * ROW_HEIGHT + 30;
	const int height = legend_top + (int)(region_count - 1 + layers) * LEGEND_ROW + MARGIN;

	fprintf(out, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" role=\"img\">\n",
		(int)WIDTH + 2 * MARGIN, height, (int)WIDTH + 2 * MARGIN, height);
	fputs("<title>Map of the disk</title>\n", out);
	fputs(style, out);
	fprintf(out,
		"<text class=\"title\" x=\"%d\" y=\"30\">Map of the disk</text>\n<text x=\"%d\" y=\"%d\">The whole disk: ", MARGIN,
		MARGIN, BAR_TOP - 10);
	print_bytes(out, all);
	fputs(", of which ", out);
	print_bytes(out, used);
	fputs(" are used</text>\n", out);
	draw_bar(&map, regions[region_count - 2].first, used, all);
	fprintf(out, "<text x=\"%d\" y=\"%d\">The used part, ", MARGIN, FIELD_TOP - 10);
	print_bytes(out, map.row_blocks);
	fputs(" a row: metadata in greys, files in the colour of their layer</text>\n", out);
	draw_field(&map, regions, region_count);
	draw_legend(&map, regions, region_count, layer_blocks, legend_top);
	fputs("</svg>\n", out);
	free(layer_blocks);
	return map.out_of_memory ? error_set(err, -ENOMEM, "out of memory") : 0;
}
