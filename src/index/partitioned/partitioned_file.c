/* The image: its layout, writing it, opening it. Whatever a file holds, a search stays within it: everything that is
 * used to compute an address is checked when it is opened. */
#include "index/partitioned/partitioned.h"

#include "base/error.h"
#include "base/memory.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

size_t lk_refine_bytes(lk_refine refine)
{
    static const size_t bytes[] = {1, 2, 4, 0};
    return bytes[refine];
}

static uint64_t round_up(uint64_t n, uint64_t to)
{
    return (n + to - 1) / to * to;
}

void lk_partitioned_lay_out(lk_partitioned_header *h, uint64_t blocks)
{
    uint64_t dim = h->dim, cells = h->partitions, cell_blocks = round_up(cells, LK_SCAN_BLOCK) / LK_SCAN_BLOCK;
    uint64_t padded = round_up(h->groups, LK_SCAN_GROUPS), coarse_padded = round_up(h->coarse_groups, LK_SCAN_GROUPS);
    uint64_t sizes[SECTIONS] = {
        [SECTION_CENTROIDS] = cells * dim * 4,
        [SECTION_COARSE_WORDS] = dim * LK_SCAN_CODEWORDS * 4,
        [SECTION_COARSE_CODES] = cell_blocks * coarse_padded * 16,
        [SECTION_COARSE_CORRECTED] = cell_blocks * LK_SCAN_BLOCK * 2,
        [SECTION_WORDS] = dim * LK_SCAN_CODEWORDS * 4,
        [SECTION_LISTS] = (cells + 1) * sizeof(lk_list),
        [SECTION_REFINE_PLACE] = dim * 2 * 4,
        [SECTION_CODES] = blocks * padded * 16,
        [SECTION_CORRECTIONS] = blocks * LK_SCAN_BLOCK * 2,
        [SECTION_IDS] = h->n * h->id_bytes + 8,
        [SECTION_REFINE] = h->n * dim * lk_refine_bytes((lk_refine)h->refine),
    };
    uint64_t offset = LK_PARTITIONED_HEADER;
    for (int i = 0; i < SECTIONS; i++) {
        h->sections[i] = (lk_partitioned_section){.offset = offset, .size = sizes[i]};
        offset = round_up(offset + sizes[i], 64);
    }
    h->file_size = offset;
}

void lk_partitioned_bind(lk_partitioned *index, uint8_t *image, int mapped)
{
    lk_partitioned_header *h = (lk_partitioned_header *)image;
    uint8_t *at[SECTIONS];
    for (int i = 0; i < SECTIONS; i++) at[i] = image + h->sections[i].offset;
    *index = (lk_partitioned){.header = h,
                              .image = image,
                              .size = h->file_size,
                              .mapped = mapped,
                              .kernels = lk_distance_kernels_for(lk_cpu_detect()),
                              .centroids = (float *)at[SECTION_CENTROIDS],
                              .coarse_words = (float *)at[SECTION_COARSE_WORDS],
                              .coarse_codes = at[SECTION_COARSE_CODES],
                              .coarse_corrections = (int16_t *)at[SECTION_COARSE_CORRECTED],
                              .words = (float *)at[SECTION_WORDS],
                              .lists = (lk_list *)at[SECTION_LISTS],
                              .refine_place = (float *)at[SECTION_REFINE_PLACE],
                              .codes = at[SECTION_CODES],
                              .corrections = (int16_t *)at[SECTION_CORRECTIONS],
                              .ids = at[SECTION_IDS],
                              .refine = at[SECTION_REFINE]};
    index->pq = lk_pq_of(h->dim, h->groups, index->words);
    index->cells = (lk_cells){.count = h->partitions,
                              .dim = h->dim,
                              .by_distance = lk_partitioned_by_distance((lk_metric)h->metric),
                              .kernels = index->kernels,
                              .centroids = index->centroids,
                              .pq = lk_pq_of(h->dim, h->coarse_groups, index->coarse_words),
                              .codes = index->coarse_codes,
                              .corrections = index->coarse_corrections,
                              .middle = h->coarse_middle,
                              .step = h->coarse_step};
}

static lk_hash128 section_hash(const lk_partitioned *index, int i)
{
    const lk_partitioned_section *section = &index->header->sections[i];
    return lk_hash(index->image + section->offset, section->size);
}

void lk_partitioned_seal(lk_partitioned *index)
{
    lk_partitioned_header *h = index->header;
    for (int i = 0; i < SECTIONS; i++) {
        lk_hash128 hash = section_hash(index, i);
        h->sections[i].hash_low = hash.low;
        h->sections[i].hash_high = hash.high;
    }
    lk_hash128 hash = lk_hash(h, offsetof(lk_partitioned_header, hash_low));
    h->hash_low = hash.low;
    h->hash_high = hash.high;
}

lk_status lk_partitioned_save(const lk_partitioned *index, const char *path)
{
    enum { PIECE = 1 << 24 };
    lk_atomic_file *file;
    lk_status s = lk_atomic_open(path, &file);
    if (s != LK_OK) return s;
    for (size_t done = 0; s == LK_OK && done < index->size; done += PIECE)
        s = lk_atomic_write(file, index->image + done, index->size - done < PIECE ? index->size - done : PIECE);
    if (s == LK_OK) return lk_atomic_commit(file);
    lk_atomic_abandon(file);
    return s;
}

/* ---- opening ---- */

static lk_status check_header(const char *path, const lk_partitioned_header *h, size_t size)
{
    if (size < LK_PARTITIONED_HEADER || memcmp(h->magic, LK_PARTITIONED_MAGIC, sizeof h->magic) != 0)
        return lk_fail(LK_CORRUPT, "%s: is not a partitioned index", path);
    if (h->endian != 0x01020304)
        return lk_fail(LK_UNSUPPORTED, "%s: was written by a machine of the other byte order; build it again here",
                       path);
    if (h->version != LK_PARTITIONED_VERSION)
        return lk_fail(LK_UNSUPPORTED, "%s: has format version %u; this program reads version %d: %s", path, h->version,
                       LK_PARTITIONED_VERSION,
                       h->version > LK_PARTITIONED_VERSION ? "use a newer one, or build it again" : "build it again");
    lk_hash128 hash = lk_hash(h, offsetof(lk_partitioned_header, hash_low));
    if (hash.low != h->hash_low || hash.high != h->hash_high)
        return lk_fail(LK_CORRUPT, "%s: its header is damaged; build it again", path);
    if (h->metric > LK_L2 || h->refine > LK_REFINE_NONE || h->dim < 1 || h->dim > LK_PARTITIONED_DIM_MOST || h->n < 1 ||
        h->n > UINT32_MAX || h->partitions < 1 || h->partitions > h->n || h->groups < 1 || h->groups > h->dim ||
        h->coarse_groups < 1 || h->coarse_groups > h->dim || !isfinite(h->coarse_middle) || !isfinite(h->coarse_step) ||
        h->id_bytes < 1 || h->id_bytes > 8)
        return lk_fail(LK_CORRUPT, "%s: its header contradicts itself; build it again", path);
    if (h->file_size != size)
        return lk_fail(LK_CORRUPT, "%s: has %zu bytes where %llu are wanted; was the copy cut off?", path, size,
                       (unsigned long long)h->file_size);
    uint64_t block = round_up(h->groups, LK_SCAN_GROUPS) * 16;
    lk_partitioned_header again = *h;
    lk_partitioned_lay_out(&again, h->sections[SECTION_CODES].size / block);
    for (int i = 0; i < SECTIONS; i++)
        if (again.sections[i].offset != h->sections[i].offset || again.sections[i].size != h->sections[i].size)
            return lk_fail(LK_CORRUPT, "%s: its sections contradict its header; build it again", path);
    return again.file_size == h->file_size
               ? LK_OK
               : lk_fail(LK_CORRUPT, "%s: its sections contradict its length; build it again", path);
}

static lk_status check_sections(const char *path, const lk_partitioned *index, int count)
{
    for (int i = 0; i < count; i++) {
        lk_hash128 hash = section_hash(index, i);
        if (hash.low != index->header->sections[i].hash_low || hash.high != index->header->sections[i].hash_high)
            return lk_fail(LK_CORRUPT, "%s: section %d is damaged; build it again", path, i);
    }
    return LK_OK;
}

static lk_status check_lists(const char *path, const lk_partitioned *index)
{
    const lk_partitioned_header *h = index->header;
    uint64_t blocks = h->sections[SECTION_CORRECTIONS].size / (LK_SCAN_BLOCK * 2), position = 0, block = 0;
    for (size_t i = 0; i <= h->partitions; i++) {
        const lk_list *list = &index->lists[i];
        if (list->first < position || list->first > h->n || list->block != block || !isfinite(list->middle) ||
            !isfinite(list->step))
            return lk_fail(LK_CORRUPT, "%s: partition %zu does not follow the one before; build it again", path, i);
        position = list->first;
        if (i < h->partitions && list[1].first >= list->first)
            block += (list[1].first - list->first + LK_SCAN_BLOCK - 1) / LK_SCAN_BLOCK;
    }
    return position == h->n && block == blocks
               ? LK_OK
               : lk_fail(LK_CORRUPT, "%s: its partitions do not make up the whole; build it again", path);
}

static lk_status check_numbers(const char *path, const lk_partitioned *index)
{
    static const int floats[] = {SECTION_CENTROIDS, SECTION_COARSE_WORDS, SECTION_WORDS, SECTION_REFINE_PLACE};
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++) {
        const lk_partitioned_section *section = &index->header->sections[floats[i]];
        const float *numbers = (const float *)(index->image + section->offset);
        int finite = 1;
        for (size_t j = 0; j < section->size / sizeof *numbers; j++) finite &= fabsf(numbers[j]) <= FLT_MAX;
        if (!finite)
            return lk_fail(LK_CORRUPT, "%s: section %d holds what is no number; build it again", path, floats[i]);
    }
    return LK_OK;
}

lk_status lk_partitioned_open(const char *path, lk_partitioned **out)
{
    *out = NULL;
    lk_map map;
    lk_status s = lk_map_open(path, &map);
    if (s != LK_OK) return s;
    lk_partitioned *index = lk_alloc_zero(1, sizeof *index);
    if (!index) {
        lk_map_close(&map);
        return lk_fail_memory(path);
    }
    s = check_header(path, (const lk_partitioned_header *)map.bytes, map.size);
    if (s == LK_OK) {
        lk_partitioned_bind(index, (uint8_t *)map.bytes, 1);
        s = check_sections(path, index, SECTIONS_CHECKED_ON_OPEN);
        if (s == LK_OK) s = check_lists(path, index);
        if (s == LK_OK) s = check_numbers(path, index);
    }
    if (s != LK_OK) {
        free(index);
        lk_map_close(&map);
        return s;
    }
    /* The finer copies are read here and there: reading ahead would fetch what nobody asked for. */
    const lk_partitioned_section *refine = &index->header->sections[SECTION_REFINE];
    uint64_t begin = round_up(refine->offset, 4096), end = (refine->offset + refine->size) / 4096 * 4096;
    if (end > begin) madvise(index->image + begin, end - begin, MADV_RANDOM);
    *out = index;
    return LK_OK;
}

lk_status lk_partitioned_verify(const lk_partitioned *index)
{
    return check_sections("partitioned index", index, SECTIONS);
}

void lk_partitioned_free(lk_partitioned *index)
{
    if (!index) return;
    if (index->image) munmap(index->image, index->size);
    free(index);
}

uint64_t lk_partitioned_count(const lk_partitioned *index)
{
    return index->header->n;
}

size_t lk_partitioned_dim(const lk_partitioned *index)
{
    return index->header->dim;
}

lk_metric lk_partitioned_metric(const lk_partitioned *index)
{
    return (lk_metric)index->header->metric;
}

size_t lk_partitioned_partitions(const lk_partitioned *index)
{
    return index->header->partitions;
}

uint64_t lk_partitioned_bytes(const lk_partitioned *index)
{
    return index->size;
}
