/* A graph index as one file: a header of one page, then each table at a page boundary as it lies in memory, so that a
 * mapped file is searched in place and processes share one copy. Layout in docs/graph.md.
 *
 * Every table has its checksum in the header. Opening verifies the header always and the tables when asked: reading
 * them all would defeat the mapping. A search in tables that are damaged stays inside of them: links and entries that
 * point nowhere are passed over. */
#include "base/error.h"
#include "base/memory.h"
#include "index/graph.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { VERSION = 1, PAGE = 4096 };
#define ENDIAN 0x01020304u
static const char magic[8] = {'L', 'K', 'G', 'R', 'A', 'P', 'H', '\n'};

typedef enum table_kind {
    CODES,
    RESIDUALS,
    EXTRA,
    LINKS,
    IDS,
    DEAD,
    ENTRIES,
    OFFSET,
    SIGNS,
    PROJECTED,
    PROJECTION,
    PROJECTION_GRID,
    TABLES,
    LATER = PROJECTED
} table_kind;
static const char *const table_names[TABLES] = {"codes",    "residuals",       "lengths",    "links",
                                                "ids",      "removed",         "entries",    "offsets",
                                                "rotation", "projected codes", "projection", "projection's grid"};

typedef struct file_table {
    uint64_t offset, size; /* from the start of the file; size 0 = absent */
    uint64_t sum[2];       /* XXH3-128: low, high */
} file_table;

typedef struct file_header {
    char magic[8];
    uint32_t version, endian;
    uint64_t dim, count, live, degree, build_effort, entry_count, seed, size; /* size of the file */
    uint32_t metric, exact;
    float spread, step, longest, unused;
    file_table tables[16]; /* the first TABLES are used */
    uint64_t sum[2];       /* of the header before it */
} file_header;
_Static_assert(sizeof(file_header) == 632, "the header is part of the file format");

typedef struct piece {
    const void *bytes;
    uint64_t size;
} piece;

static void list_tables(const lk_graph_index *g, piece *out)
{
    uint64_t n = g->count, stride = g->quantiser.stride;
    out[CODES] = (piece){g->codes, n * stride};
    out[RESIDUALS] = (piece){g->residuals, g->residuals ? n * stride : 0};
    out[EXTRA] = (piece){g->extra, g->extra ? n * sizeof *g->extra : 0};
    out[LINKS] = (piece){g->links, n * g->link_stride * sizeof *g->links};
    out[IDS] = (piece){g->ids, n * sizeof *g->ids};
    out[DEAD] = (piece){g->dead, (n + 63) / 64 * sizeof *g->dead};
    out[ENTRIES] = (piece){g->entries, g->entry_count * sizeof *g->entries};
    out[OFFSET] = (piece){g->quantiser.offset, g->dim * sizeof(float)};
    bool rotated = g->quantiser.rotation.signs;
    out[SIGNS] = (piece){g->quantiser.rotation.signs, rotated ? LK_ROTATION_ROUNDS * g->dim * sizeof(float) : 0};
    const lk_projection *p = &g->projection;
    out[PROJECTED] = (piece){g->projected, n * p->width};
    out[PROJECTION] = (piece){p->rows, p->width * p->stride};
    out[PROJECTION_GRID] = (piece){p->grid, p->width ? (p->width + 2) * sizeof *p->grid : 0};
}

static uint64_t next_page(uint64_t offset)
{
    return (offset + PAGE - 1) / PAGE * PAGE;
}

uint64_t lk_graph_index_file_bytes(const lk_graph_index *g)
{
    piece pieces[TABLES];
    uint64_t size = PAGE;
    list_tables(g, pieces);
    for (int t = 0; t < TABLES; t++) size = next_page(size + pieces[t].size);
    return size;
}

static void fill_header(const lk_graph_index *g, const piece *pieces, file_header *h)
{
    *h = (file_header){.version = VERSION,
                       .endian = ENDIAN,
                       .dim = g->dim,
                       .count = g->count,
                       .live = g->live,
                       .degree = g->degree,
                       .build_effort = g->build_effort,
                       .entry_count = g->entry_count,
                       .seed = g->seed,
                       .metric = (uint32_t)g->metric,
                       .exact = g->quantiser.exact,
                       .spread = g->spread,
                       .step = g->quantiser.step,
                       .longest = g->longest};
    memcpy(h->magic, magic, sizeof magic);
    uint64_t at = PAGE;
    for (int t = 0; t < TABLES; t++) {
        lk_hash128 sum = lk_hash(pieces[t].bytes, pieces[t].size);
        if (pieces[t].size == 0 && t >= LATER) continue; /* as files from before there were such tables */
        h->tables[t] = (file_table){at, pieces[t].size, {sum.low, sum.high}};
        at = next_page(at + pieces[t].size);
    }
    h->size = at;
    lk_hash128 sum = lk_hash(h, offsetof(file_header, sum));
    h->sum[0] = sum.low;
    h->sum[1] = sum.high;
}

lk_status lk_graph_index_save(const lk_graph_index *g, const char *path)
{
    static const char zeros[PAGE];
    piece pieces[TABLES];
    file_header h;
    lk_atomic_file *file = NULL;
    pthread_mutex_lock((pthread_mutex_t *)&g->writer); /* searches go on, also those that come while it is written */
    list_tables(g, pieces);
    fill_header(g, pieces, &h);
    lk_status s = lk_atomic_open(path, &file);
    if (s != LK_OK) goto done;
    LK_TRY(lk_atomic_write(file, &h, sizeof h));
    uint64_t at = sizeof h;
    for (int t = 0; t < TABLES; t++) {
        if (h.tables[t].offset == 0) continue;
        LK_TRY(lk_atomic_write(file, zeros, h.tables[t].offset - at));
        LK_TRY(lk_atomic_write(file, pieces[t].bytes, pieces[t].size));
        at = h.tables[t].offset + pieces[t].size;
    }
    LK_TRY(lk_atomic_write(file, zeros, h.size - at));
    s = lk_atomic_commit(file);
    file = NULL;
done:
    pthread_mutex_unlock((pthread_mutex_t *)&g->writer);
    lk_atomic_abandon(file);
    return s;
}

/* Whether the header's numbers agree with each other and with the size of the file. */
static bool plausible(const file_header *h, uint64_t size)
{
    if (h->size != size || h->dim == 0 || h->dim > LK_CODES_MAX_DIM || h->count == 0 || h->count > INT32_MAX ||
        h->live > h->count || h->degree == 0 || h->degree > LK_GRAPH_MAX_DEGREE || h->entry_count > h->count ||
        h->entry_count > LK_GRAPH_ENTRIES || h->metric > LK_L2 || !(h->step > 0) || !isfinite(h->step) ||
        !(h->spread >= 1) || !isfinite(h->longest) || h->build_effort == 0 || h->build_effort > INT32_MAX)
        return false;
    uint64_t n = h->count, stride = (h->dim + 63) / 64 * 64;
    uint64_t want[TABLES] = {[CODES] = n * stride,
                             [RESIDUALS] = h->tables[RESIDUALS].size ? n * stride : 0,
                             [EXTRA] = h->metric == LK_INNER_PRODUCT ? n * 4 : 0,
                             [LINKS] = n * h->degree * 4,
                             [IDS] = n * 8,
                             [DEAD] = (n + 63) / 64 * 8,
                             [ENTRIES] = h->entry_count * 4,
                             [OFFSET] = h->dim * 4,
                             [SIGNS] = h->tables[SIGNS].size ? LK_ROTATION_ROUNDS * h->dim * 4 : 0};
    uint64_t width = h->tables[PROJECTED].size / n;
    if (width > 0) {
        if (width % 64 != 0 || width > LK_PROJECTION_MOST_WIDTH || stride > LK_PROJECTION_MOST) return false;
        want[PROJECTED] = n * width;
        want[PROJECTION] = width * stride;
        want[PROJECTION_GRID] = (width + 2) * 4;
    }
    uint64_t at = PAGE;
    for (int t = 0; t < TABLES; t++) {
        if (t >= LATER && want[t] == 0 && h->tables[t].size == 0 && h->tables[t].offset == 0) continue;
        if (h->tables[t].size != want[t] || h->tables[t].offset != at) return false;
        at = next_page(at + want[t]);
    }
    return at == size;
}

static lk_status check_header(const char *path, const lk_map *map, file_header *h)
{
    if (map->size < PAGE)
        return lk_fail(LK_CORRUPT, "%s: is too short (%zu bytes) to be a graph index", path, map->size);
    memcpy(h, map->bytes, sizeof *h);
    if (memcmp(h->magic, magic, sizeof magic) != 0)
        return lk_fail(LK_CORRUPT, "%s: does not start as a graph index does", path);
    if (h->endian != ENDIAN)
        return lk_fail(LK_UNSUPPORTED, "%s: was written on a machine with another byte order", path);
    if (h->version != VERSION)
        return lk_fail(LK_UNSUPPORTED, "%s: has format version %u; this program reads version %d: %s", path, h->version,
                       VERSION, h->version > VERSION ? "use a newer one, or build it again" : "build it again");
    lk_hash128 sum = lk_hash(h, offsetof(file_header, sum));
    if (sum.low != h->sum[0] || sum.high != h->sum[1])
        return lk_fail(LK_CORRUPT, "%s: the header's checksum does not match", path);
    if (!plausible(h, map->size))
        return lk_fail(LK_CORRUPT, "%s: its header does not fit its %zu bytes: it was cut short or added to", path,
                       map->size);
    return LK_OK;
}

static lk_status verify_tables(const char *path, const lk_map *map, const file_header *h)
{
    for (int t = 0; t < TABLES; t++) {
        const file_table *table = &h->tables[t];
        if (table->offset == 0) continue;
        lk_hash128 sum = lk_hash(map->bytes + table->offset, table->size);
        if (sum.low != table->sum[0] || sum.high != table->sum[1])
            return lk_fail(LK_CORRUPT, "%s: the checksum of its %s does not match", path, table_names[t]);
    }
    return LK_OK;
}

static void point_into(lk_graph_index *g, const file_header *h)
{
    uint8_t *base = (uint8_t *)g->map.bytes; /* never written: a mapped graph refuses changes */
    const file_table *t = h->tables;
    g->codes = base + t[CODES].offset;
    if (t[RESIDUALS].size) g->residuals = (int8_t *)(base + t[RESIDUALS].offset);
    if (t[PROJECTED].size) g->projected = base + t[PROJECTED].offset;
    if (t[EXTRA].size) g->extra = (float *)(void *)(base + t[EXTRA].offset);
    g->links = (uint32_t *)(void *)(base + t[LINKS].offset);
    g->ids = (uint64_t *)(void *)(base + t[IDS].offset);
    g->dead = (uint64_t *)(void *)(base + t[DEAD].offset);
    g->entries = (uint32_t *)(void *)(base + t[ENTRIES].offset);
    if (!g->map.copied) madvise((void *)g->map.bytes, g->map.size, MADV_RANDOM);
}

/* What a search relies on beyond the sizes: entries that exist, and as many removed vectors as the header says. */
static lk_status check_tables(const char *path, lk_graph_index *g)
{
    size_t dead = 0;
    for (size_t i = 0; i < g->entry_count; i++)
        if (g->entries[i] >= g->count) return lk_fail(LK_CORRUPT, "%s: an entry points to no vertex", path);
    for (size_t word = 0; word < g->count / 64; word++) dead += (size_t)__builtin_popcountll(g->dead[word]);
    for (size_t v = g->count / 64 * 64; v < g->count; v++) dead += lk_graph_index_is_dead(g, (uint32_t)v);
    if (dead != g->count - g->live)
        return lk_fail(LK_CORRUPT, "%s: %zu vectors are marked as removed, not %zu", path, dead, g->count - g->live);
    g->dead_count = dead;
    return LK_OK;
}

/* Changing relies on every link. */
static lk_status check_links(const char *path, const lk_graph_index *g)
{
    for (size_t i = 0; i < g->count * g->link_stride; i++)
        if (g->links[i] >= g->count && g->links[i] != LK_NO_VERTEX)
            return lk_fail(LK_CORRUPT, "%s: a link points to no vertex", path);
    return LK_OK;
}

static lk_status copy_table(void **out, const uint8_t *from, uint64_t bytes)
{
    *out = lk_alloc_aligned(bytes, 1);
    if (!*out) return lk_fail_memory("graph index");
    memcpy(*out, from, bytes);
    return LK_OK;
}

lk_status lk_graph_index_open(const char *path, int flags, lk_graph_index **out)
{
    lk_map map = {0};
    file_header h;
    lk_graph_index *g = NULL;
    int file;
    *out = NULL;
    lk_status s = lk_map_open_file(path, &map, &file);
    if (s != LK_OK) return s;
    LK_TRY(check_header(path, &map, &h));
    if ((flags & LK_GRAPH_COPY) && !(flags & LK_GRAPH_CHANGE)) LK_TRY(lk_map_copy(&map, path));
    if (flags & (LK_GRAPH_VERIFY | LK_GRAPH_CHANGE)) LK_TRY(verify_tables(path, &map, &h));
    lk_graph_index_options options = {
        .degree = h.degree, .build_effort = h.build_effort, .spread = h.spread, .seed = h.seed};
    if (!(g = lk_graph_index_alloc(&options, (lk_metric)h.metric, h.dim))) {
        s = lk_fail_memory("graph index");
        goto done;
    }
    g->map = map;
    map = (lk_map){0};
    g->link_stride = h.degree;
    g->count = g->capacity = h.count;
    g->live = h.live;
    g->entry_count = h.entry_count;
    g->longest = h.longest;
    g->quantiser = (lk_sq8){.dim = h.dim, .stride = (h.dim + 63) / 64 * 64, .exact = h.exact != 0, .step = h.step};
    point_into(g, &h);
    g->keep_residual = g->residuals != NULL;
    const file_table *t = h.tables;
    LK_TRY(copy_table((void **)&g->quantiser.offset, g->map.bytes + t[OFFSET].offset, t[OFFSET].size));
    g->quantiser.rotation.dim = h.dim;
    if (t[SIGNS].size)
        LK_TRY(copy_table((void **)&g->quantiser.rotation.signs, g->map.bytes + t[SIGNS].offset, t[SIGNS].size));
    if (g->projected) {
        lk_projection *p = &g->projection;
        *p = (lk_projection){.width = t[PROJECTED].size / h.count, .stride = g->quantiser.stride};
        LK_TRY(copy_table((void **)&p->rows, g->map.bytes + t[PROJECTION].offset, t[PROJECTION].size));
        LK_TRY(copy_table((void **)&p->grid, g->map.bytes + t[PROJECTION_GRID].offset, t[PROJECTION_GRID].size));
        LK_TRY(lk_projection_measure(p));
    }
    LK_TRY(check_tables(path, g));
    if (flags & LK_GRAPH_CHANGE) {
        LK_TRY(check_links(path, g));
        LK_TRY(lk_graph_index_own(g));
    } else if (!g->map.copied) {
        g->file = file;
        g->reads = LK_GRAPH_READS;
        file = -1;
    }
    *out = g;
    g = NULL;
done:
    if (map.bytes) lk_map_close(&map);
    if (file >= 0) close(file);
    lk_graph_index_free(g);
    return s;
}
