/* A small collection of numbered pictures, for the tests of the store. */
#ifndef STORE_FIXTURE_H
#define STORE_FIXTURE_H

#include <likeness/collection.h>

#include "unit.h"

#include <math.h>

enum { DIM = 5 };

/* The path of a file in the test's folder; equal paths are one string, valid for the whole test. */
static inline char *in_folder(void **state, const char *name)
{
    static char paths[64][512];
    static int next;
    char path[512];
    snprintf(path, sizeof path, "%s/%s", (char *)*state, name);
    for (int i = 0; i < 64; i++)
        if (strcmp(paths[i], path) == 0) return paths[i];
    return strcpy(paths[next++ % 64], path);
}

#define OK(call)                                                                                                       \
    do {                                                                                                               \
        if ((call) != LK_OK) fail_msg("%s: %s", #call, lk_error_message());                                            \
    } while (0)

static inline lk_collection *create_typed(void **state, lk_dtype dtype, lk_metric metric)
{
    lk_collection_config config = {
        .dim = DIM, .metric = metric, .dtype = dtype, .embedder_id = "0123", .embedder_name = "test"};
    lk_collection *c;
    OK(lk_collection_create(in_folder(state, "c.lk"), &config, &c));
    return c;
}

static inline lk_collection *create(void **state)
{
    return create_typed(state, LK_F32, LK_L2);
}

static inline lk_collection *open_as(void **state, lk_access access)
{
    lk_collection *c;
    OK(lk_collection_open(in_folder(state, "c.lk"), access, &c));
    return c;
}

/* The vector of picture n: all components n + version/10. */
static inline void make_vector(int n, int version, float *out)
{
    for (int i = 0; i < DIM; i++) out[i] = (float)n + (float)version / 10;
}

static inline int64_t put(lk_collection *c, int n, int version)
{
    char path[32];
    float vector[DIM];
    int64_t id = 0;
    snprintf(path, sizeof path, "/p/%d.png", n);
    make_vector(n, version, vector);
    lk_record record = {.path = path,
                        .size = (uint64_t)n,
                        .mtime_ns = version,
                        .hash = {(uint64_t)n, (uint64_t)version},
                        .width = 10,
                        .height = 20,
                        .labels = "{\"label\":\"x\",\"year\":7}"};
    OK(lk_collection_put(c, &record, vector, &id));
    return id;
}

static inline int64_t id_of(lk_collection *c, int n)
{
    char path[32];
    lk_record record;
    snprintf(path, sizeof path, "/p/%d.png", n);
    if (lk_collection_find_path(c, path, &record) != LK_OK) return 0;
    int64_t id = record.id;
    lk_record_free(&record);
    return id;
}

static inline uint64_t indexed(lk_collection *c)
{
    lk_collection_stats stats;
    OK(lk_collection_stats_of(c, &stats));
    return stats.indexed;
}

static inline void print_problem(void *user, const char *problem)
{
    (void)user;
    print_message("problem: %s\n", problem);
}

static inline uint64_t problems(lk_collection *c)
{
    uint64_t n;
    OK(lk_collection_verify(c, print_problem, NULL, &n));
    return n;
}

/* The vector of picture n in a snapshot is that of `version`; version < 0: it has none. */
static inline void expect_vector(const lk_snapshot *snapshot, int64_t id, int n, int version)
{
    float found[DIM], wanted[DIM];
    lk_status s = lk_flat_vector(lk_snapshot_index(snapshot), (uint64_t)id, found);
    assert_int_equal(s, version < 0 ? LK_NOT_FOUND : LK_OK);
    if (version < 0) return;
    make_vector(n, version, wanted);
    assert_memory_equal(found, wanted, sizeof found);
}

#endif
