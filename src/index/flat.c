/* Keeping vectors: adding, borrowing, removing and looking up. */
#include "index/flat.h"

#include "base/error.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { MAX_DIM = 65536, FIRST_ROWS = 64 };
#define CHUNK_BYTES ((size_t)32 << 20)
#define HUGE_PAGE ((size_t)2 << 20)

lk_status lk_flat_new(size_t dim, lk_metric metric, lk_dtype dtype, lk_flat **out)
{
    *out = NULL;
    if (dim == 0 || dim > MAX_DIM)
        return lk_fail(LK_INVALID, "an index cannot be %zu wide: 1 to %d is possible", dim, MAX_DIM);
    if ((int)metric < LK_COSINE || metric > LK_L2) return lk_fail(LK_INVALID, "there is no metric %d", (int)metric);
    if ((int)dtype < LK_F32 || dtype > LK_I8) return lk_fail(LK_INVALID, "there is no component type %d", (int)dtype);
    lk_flat *index = lk_alloc_zero(1, sizeof *index);
    if (!index) return lk_fail_memory("index");
    index->dim = dim;
    index->row_bytes = lk_dtype_bytes(dtype, dim);
    index->metric = metric;
    index->dtype = dtype;
    index->kernels = lk_distance_kernels_for(lk_cpu_detect());
    pthread_mutex_init(&index->mutex, NULL);
    *out = index;
    return LK_OK;
}

static void free_part(lk_flat_part *part)
{
    free((void *)part->live);
    free((void *)part->bias);
    if (part->capacity == 0) return;
    free((void *)part->codes);
    free((void *)part->ids);
    free((void *)part->scales);
}

void lk_flat_free(lk_flat *index)
{
    if (!index) return;
    for (size_t p = 0; p < index->part_count; p++) free_part(&index->parts[p]);
    free(index->parts);
    lk_id_map_free(&index->places);
    pthread_mutex_destroy(&index->mutex);
    free(index);
}

size_t lk_flat_count(const lk_flat *index)
{
    return index->live;
}

size_t lk_flat_dim(const lk_flat *index)
{
    return index->dim;
}

lk_metric lk_flat_metric(const lk_flat *index)
{
    return index->metric;
}

/* Places ------------------------------------------------------------------------------------------------------------
 */

/* Fills the table of places. It is built at the first need, because a search never needs it. */
static lk_status map_places(lk_flat *index)
{
    if (index->mapped) return LK_OK;
    if (!lk_id_map_reserve(&index->places, index->live)) return lk_fail_memory("ids of an index");
    for (size_t p = 0; p < index->part_count; p++) {
        const lk_flat_part *part = &index->parts[p];
        for (size_t row = 0; row < part->count; row++)
            if (lk_flat_is_live(part, row)) lk_id_map_put(&index->places, part->ids[row], lk_flat_place(p, row));
    }
    index->mapped = true;
    return LK_OK;
}

static void unmap_places(lk_flat *index)
{
    lk_id_map_free(&index->places);
    index->mapped = false;
}

/* The live row of an id in a part, or LK_NO_PLACE. */
static uint64_t look_into(lk_flat *index, size_t p, uint64_t id)
{
    const lk_flat_part *part = &index->parts[p];
    index->looked_at++;
    if (id < part->least || id > part->most) return LK_NO_PLACE;
    size_t guess = id - part->least; /* ids mostly count up */
    if (guess < part->count && part->ids[guess] == id && lk_flat_is_live(part, guess)) return lk_flat_place(p, guess);
    index->looked_at += part->count;
    for (size_t row = 0; row < part->count; row++)
        if (part->ids[row] == id && lk_flat_is_live(part, row)) return lk_flat_place(p, row);
    return LK_NO_PLACE;
}

/* Looks for an id in the parts that may hold it: much less work than the table when few are looked for, as by a program
 * that searches once. */
static uint64_t look_through(lk_flat *index, uint64_t id)
{
    size_t low = 0, high = index->rising;
    while (low < high) { /* the first whose ids end at id or later */
        size_t middle = (low + high) / 2;
        if (index->parts[middle].most < id)
            low = middle + 1;
        else
            high = middle;
    }
    uint64_t place = low < index->rising ? look_into(index, low, id) : LK_NO_PLACE;
    for (size_t p = index->rising; place == LK_NO_PLACE && p < index->part_count; p++) place = look_into(index, p, id);
    return place;
}

lk_status lk_flat_find(const lk_flat *const_index, uint64_t id, uint64_t *place)
{
    lk_flat *index = (lk_flat *)const_index; /* only the table of places changes, under its lock */
    enum { WITHOUT_TABLE = 4 };              /* a table takes about as long as looking at so many times all ids */
    lk_status s = LK_OK;
    pthread_mutex_lock(&index->mutex);
    if (!index->mapped && index->looked_at / WITHOUT_TABLE < index->rows) {
        *place = look_through(index, id);
    } else {
        s = map_places(index);
        *place = s == LK_OK ? lk_id_map_get(&index->places, id) : LK_NO_PLACE;
    }
    pthread_mutex_unlock(&index->mutex);
    if (s != LK_OK) return s;
    return *place == LK_NO_PLACE ? lk_fail(LK_NOT_FOUND, "no vector has the id %llu", (unsigned long long)id) : LK_OK;
}

/* The part and row of an id. */
static lk_status locate(const lk_flat *index, uint64_t id, lk_flat_part **part, size_t *row)
{
    uint64_t place;
    lk_status s = lk_flat_find(index, id, &place);
    if (s == LK_OK) *part = (lk_flat_part *)lk_flat_at_place(index, place, row);
    return s;
}

/* Owned parts -------------------------------------------------------------------------------------------------------
 */

/* Large blocks ask for huge pages: a scan then misses the TLB hundreds of times less often. */
static void *alloc_codes(size_t bytes)
{
    if (bytes < HUGE_PAGE) return lk_alloc_aligned(bytes, 1);
    bytes = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    void *block = aligned_alloc(HUGE_PAGE, bytes);
    if (block) madvise(block, bytes, MADV_HUGEPAGE); /* advice: without it everything works */
    return block;
}

/* Gives an owned part (or a zeroed one) room for `capacity` rows. */
static lk_status resize_part(const lk_flat *index, lk_flat_part *part, size_t capacity)
{
    lk_flat_part bigger = *part;
    bigger.capacity = capacity;
    bigger.measured = true;
    bigger.codes = alloc_codes(capacity * index->row_bytes);
    bigger.ids = lk_alloc(capacity, sizeof *bigger.ids);
    bigger.live = lk_alloc((capacity + 7) / 8, 1);
    bigger.scales = index->dtype == LK_I8 ? lk_alloc(capacity, sizeof *bigger.scales) : NULL;
    bigger.bias = index->metric == LK_L2 ? lk_alloc(capacity, sizeof *bigger.bias) : NULL;
    if (!bigger.codes || !bigger.ids || !bigger.live || (index->dtype == LK_I8 && !bigger.scales) ||
        (index->metric == LK_L2 && !bigger.bias)) {
        free_part(&bigger);
        return lk_fail_memory("vectors");
    }
    memset((void *)bigger.live, 0xff, (capacity + 7) / 8);
    if (part->capacity) {
        memcpy((void *)bigger.codes, part->codes, part->count * index->row_bytes);
        memcpy((void *)bigger.ids, part->ids, part->count * sizeof *part->ids);
        memcpy((void *)bigger.live, part->live, (part->count + 7) / 8);
        if (part->scales) memcpy((void *)bigger.scales, part->scales, part->count * sizeof *part->scales);
        if (part->bias) memcpy((void *)bigger.bias, part->bias, part->count * sizeof *part->bias);
        free_part(part);
    }
    *part = bigger;
    return LK_OK;
}

/* Appends an empty part; *out is valid until the next one. */
static lk_status new_part(lk_flat *index, lk_flat_part **out)
{
    if (index->part_count >= (size_t)1 << 23)
        return lk_fail(LK_LIMIT, "an index of %zu parts is full", index->part_count);
    if (!lk_grow((void **)&index->parts, &index->part_capacity, index->part_count + 1, sizeof *index->parts))
        return lk_fail_memory("parts of an index");
    *out = &index->parts[index->part_count++];
    **out = (lk_flat_part){.most = UINT64_MAX};
    return LK_OK;
}

static void copy_row(const lk_flat *index, const lk_flat_part *from, size_t row, lk_flat_part *to, size_t at)
{
    memmove((char *)to->codes + at * index->row_bytes, from->codes + row * index->row_bytes, index->row_bytes);
    ((uint64_t *)to->ids)[at] = from->ids[row];
    if (index->dtype == LK_I8) ((float *)to->scales)[at] = from->scales[row];
    if (index->metric == LK_L2) ((float *)to->bias)[at] = from->bias[row];
}

/* Moves live rows of owned parts over removed ones, keeping their order, and gives empty chunks back. */
static void compact(lk_flat *index)
{
    lk_flat_part *to = NULL;
    size_t kept = 0;
    for (size_t p = 0; p < index->part_count; p++) {
        lk_flat_part *part = &index->parts[p];
        if (part->capacity == 0) {
            to = NULL; /* rows do not move across a borrowed part */
            continue;
        }
        size_t count = part->count, dead = part->dead;
        lk_flat_part before = *part;
        part->count = part->dead = 0;
        index->rows -= dead;
        for (size_t row = 0; row < count; row++) {
            if (!lk_flat_is_live(&before, row)) continue;
            if (!to) to = part;
            if (to->count == to->capacity) to++; /* the next part is owned: a borrowed one would have reset `to` */
            if (to->longest < before.longest) to->longest = before.longest;
            copy_row(index, &before, row, to, to->count++);
        }
        memset((void *)part->live, 0xff, (part->capacity + 7) / 8);
        if (!to) to = part;
    }
    for (size_t p = 0; p < index->part_count; p++) {
        if (index->parts[p].count == 0)
            free_part(&index->parts[p]);
        else
            index->parts[kept++] = index->parts[p];
    }
    index->part_count = kept;
    index->rising = 0;
    unmap_places(index);
}

static size_t owned_dead(const lk_flat *index)
{
    size_t dead = 0;
    for (size_t p = 0; p < index->part_count; p++)
        if (index->parts[p].capacity) dead += index->parts[p].dead;
    return dead;
}

/* Makes the last part an owned one with room for at least one row. */
static lk_status make_room(lk_flat *index, size_t more, lk_flat_part **out)
{
    lk_flat_part *last = index->part_count ? &index->parts[index->part_count - 1] : NULL;
    size_t most = CHUNK_BYTES / index->row_bytes;
    if (most < FIRST_ROWS) most = FIRST_ROWS;
    if (!last || last->capacity == 0 || (last->count == last->capacity && last->capacity >= most)) {
        lk_status s = new_part(index, &last);
        if (s != LK_OK) return s;
    }
    *out = last;
    if (last->count < last->capacity) return LK_OK;
    size_t capacity = last->capacity * 2 > FIRST_ROWS ? last->capacity * 2 : FIRST_ROWS;
    if (capacity < last->count + more) capacity = last->count + more;
    lk_status s = resize_part(index, last, capacity < most ? capacity : most);
    if (s != LK_OK && last->capacity == 0) index->part_count--; /* no empty part stays that looks borrowed */
    return s;
}

/* Finds the lengths of rows begin .. end: screen_threshold in flat_search.c needs them. */
static void measure_rows(const lk_flat *index, lk_flat_part *part, size_t begin, size_t end, float *decoded)
{
    for (size_t row = begin; row < end; row++) {
        const char *codes = part->codes + row * index->row_bytes;
        lk_decode_rows(index->kernels, index->dtype, index->dim, 1, codes, part->scales ? part->scales + row : NULL,
                       decoded);
        float squares = lk_dot_f32(index->kernels, decoded, decoded, index->dim);
        if (part->bias) ((float *)part->bias)[row] = -0.5f * squares;
        bool finite = true; /* with NaN or infinity in it a row is never found, and its length does not count */
        for (size_t i = 0; !isfinite(squares) && i < index->dim; i++) finite = finite && isfinite(decoded[i]);
        float length = finite ? sqrtf(squares) : 0; /* infinite makes the screen let everything through */
        if (length > part->longest) part->longest = length;
    }
}

lk_status lk_flat_measure(const lk_flat *index)
{
    lk_flat *changed = (lk_flat *)index; /* only what its mutex guards */
    float *decoded = NULL;
    lk_status s = LK_OK;
    pthread_mutex_lock(&changed->mutex);
    for (size_t p = 0; p < index->part_count; p++) {
        lk_flat_part *part = &changed->parts[p];
        if (part->measured) continue;
        if (index->metric == LK_COSINE) {
            part->longest = 1.05f; /* room for the rounding of f16 and int8 */
            part->measured = true;
            continue;
        }
        if (!decoded) decoded = lk_alloc(index->dim, sizeof *decoded);
        if (index->metric == LK_L2) part->bias = lk_alloc(part->count, sizeof *part->bias);
        if (!decoded || (index->metric == LK_L2 && !part->bias)) {
            s = lk_fail_memory("lengths of vectors");
            break;
        }
        measure_rows(index, part, 0, part->count, decoded);
        part->measured = true;
    }
    pthread_mutex_unlock(&changed->mutex);
    free(decoded);
    return s;
}

/* Takes the first n ids out of the table again. */
static void forget_ids(lk_flat *index, size_t n, const uint64_t *ids)
{
    for (size_t i = 0; i < n; i++) lk_id_map_remove(&index->places, ids[i]);
}

lk_status lk_flat_add(lk_flat *index, size_t n, const uint64_t *ids, const float *vectors)
{
    if (n == 0) return LK_OK;
    size_t dead = owned_dead(index), added = 0, noted = 0, old_parts = index->part_count;
    if (dead > 1024 && dead > index->live) {
        compact(index);
        old_parts = index->part_count;
    }
    size_t old_count = old_parts ? index->parts[old_parts - 1].count : 0;
    lk_status s = map_places(index);
    if (s != LK_OK) return s;
    float *decoded = lk_alloc(index->dim, sizeof *decoded);
    if (!decoded || !lk_id_map_reserve(&index->places, n)) {
        s = lk_fail_memory("ids of an index");
        goto done;
    }
    while (added < n) {
        lk_flat_part *part;
        LK_TRY(make_room(index, n - added, &part));
        size_t at = part->count, take = part->capacity - at < n - added ? part->capacity - at : n - added;
        for (size_t i = 0; i < take; i++, noted++) {
            if (lk_id_map_get(&index->places, ids[noted]) != LK_NO_PLACE) {
                s = lk_fail(LK_CONFLICT, "the id %llu is in the index already", (unsigned long long)ids[noted]);
                goto done;
            }
            lk_id_map_put(&index->places, ids[noted], lk_flat_place(index->part_count - 1, at + i));
            ((uint64_t *)part->ids)[at + i] = ids[noted];
        }
        s = lk_vectors_encode(index->dtype, index->dim, take, vectors + added * index->dim, index->metric == LK_COSINE,
                              (char *)part->codes + at * index->row_bytes,
                              part->scales ? (float *)part->scales + at : NULL);
        if (s != LK_OK) {
            if (added > 0) lk_fail_in(s, "in the rows from %zu on", added);
            goto done;
        }
        measure_rows(index, part, at, at + take, decoded);
        part->count += take;
        added += take;
    }
    index->rows += n;
    index->live += n;
done:
    if (s != LK_OK) {
        forget_ids(index, noted, ids);
        while (index->part_count > old_parts) free_part(&index->parts[--index->part_count]);
        if (old_parts) index->parts[old_parts - 1].count = old_count;
    }
    free(decoded);
    return s;
}

lk_status lk_flat_attach(lk_flat *index, size_t n, const uint64_t *ids, const void *codes, const float *scales,
                         const uint8_t *live)
{
    if (n == 0) return LK_OK;
    if (index->dtype == LK_I8 && !scales) return lk_fail(LK_INVALID, "int8 vectors were attached without their scales");
    if (n >= (size_t)1 << 40) return lk_fail(LK_LIMIT, "%zu rows are too many for one part of an index", n);
    lk_flat_part *part = NULL;
    lk_status s = new_part(index, &part);
    if (s != LK_OK) return s;
    *part = (lk_flat_part){.codes = codes, .ids = ids, .scales = scales, .count = n, .most = UINT64_MAX};
    if (live) {
        uint8_t *copy = lk_alloc((n + 7) / 8, 1);
        if (!copy) {
            index->part_count--;
            return lk_fail_memory("bitmap of live vectors");
        }
        memcpy(copy, live, (n + 7) / 8);
        part->live = copy;
        for (size_t row = 0; row < n; row++) part->dead += !(copy[row / 8] >> (row % 8) & 1);
    }
    index->rows += n;
    index->live += n - part->dead;
    unmap_places(index);
    return LK_OK;
}

void lk_flat_bound_ids(lk_flat *index, uint64_t least, uint64_t most)
{
    size_t last = index->part_count - 1;
    index->parts[last].least = least;
    index->parts[last].most = most;
    if (index->rising == last && (last == 0 || index->parts[last - 1].most < least)) index->rising++;
}

lk_status lk_flat_remove(lk_flat *index, uint64_t id)
{
    lk_flat_part *part = NULL;
    size_t row = 0;
    lk_status s = locate(index, id, &part, &row);
    if (s != LK_OK) return s;
    if (!part->live) {
        uint8_t *live = lk_alloc((part->count + 7) / 8, 1);
        if (!live) return lk_fail_memory("bitmap of live vectors");
        memset(live, 0xff, (part->count + 7) / 8);
        part->live = live;
    }
    ((uint8_t *)part->live)[row / 8] &= (uint8_t) ~(1u << (row % 8));
    part->dead++;
    index->live--;
    lk_id_map_remove(&index->places, id);
    return LK_OK;
}

lk_status lk_flat_vector(const lk_flat *index, uint64_t id, float *out)
{
    lk_flat_part *part = NULL;
    size_t row = 0;
    lk_status s = locate(index, id, &part, &row);
    if (s != LK_OK) return s;
    lk_decode_rows(index->kernels, index->dtype, index->dim, 1, part->codes + row * index->row_bytes,
                   part->scales ? part->scales + row : NULL, out);
    return LK_OK;
}

void lk_flat_ids(const lk_flat *index, uint64_t *out)
{
    for (size_t p = 0; p < index->part_count; p++) {
        const lk_flat_part *part = &index->parts[p];
        for (size_t row = 0; row < part->count; row++)
            if (lk_flat_is_live(part, row)) *out++ = part->ids[row];
    }
}
