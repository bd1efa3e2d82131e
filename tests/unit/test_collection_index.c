/* The approximate index of a collection: found through it, beside it, and without it. */
#include "base/random.h"
#include <likeness/collection.h>

#include "unit.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { DIM = 16, FIRST = 3000, K = 10, QUERIES = 50 };

typedef struct world {
    char path[128];
    lk_collection *collection;
    lk_random random;
} world;

/* Around one of 30 centres, as pictures of a few kinds are. */
static void make_vector(lk_random *random, float *out)
{
    lk_random centre;
    lk_random_seed(&centre, 1000 + lk_random_below(random, 30));
    for (int i = 0; i < DIM; i++) out[i] = (float)(lk_random_normal(&centre) + 0.5 * lk_random_normal(random));
}

static void put(world *w, int number)
{
    float vector[DIM];
    char path[64], labels[64];
    make_vector(&w->random, vector);
    snprintf(path, sizeof path, "/p/%d.png", number);
    snprintf(labels, sizeof labels, "{\"part\":%d}", number % 10);
    lk_record record = {.path = path, .size = 1, .labels = labels};
    record.hash[0] = (uint64_t)number;
    assert_int_equal(lk_collection_put(w->collection, &record, vector, NULL), LK_OK);
}

static world begin(const char *folder, lk_metric metric, int pictures)
{
    world w = {0};
    snprintf(w.path, sizeof w.path, "%s/c.lk", folder);
    lk_random_seed(&w.random, 7);
    lk_collection_config config = {
        .dim = DIM, .metric = metric, .dtype = LK_F32, .embedder_id = "0", .embedder_name = "none"};
    assert_int_equal(lk_collection_create(w.path, &config, &w.collection), LK_OK);
    for (int i = 0; i < pictures; i++) {
        put(&w, i);
        if (i % 257 == 0) assert_int_equal(lk_collection_commit(w.collection), LK_OK);
    }
    assert_int_equal(lk_collection_commit(w.collection), LK_OK);
    return w;
}

static void build(world *w, const char *kind, bool always)
{
    lk_index_options options = {.kind = kind, .recall = 0.99, .always = always};
    assert_int_equal(lk_collection_build_index(NULL, w->collection, &options), LK_OK);
}

static lk_index_info info(world *w)
{
    lk_index_info out;
    assert_int_equal(lk_collection_index_info(w->collection, &out), LK_OK);
    return out;
}

/* Share of the exact results that a search finds; every score must be the exact one of its picture. */
static double recall(world *w, const lk_id_set *set)
{
    lk_snapshot *snapshot;
    assert_int_equal(lk_collection_snapshot(w->collection, &snapshot), LK_OK);
    size_t same = 0, all = 0;
    for (int q = 0; q < QUERIES; q++) {
        float query[DIM];
        lk_hit found[K], exact[K];
        size_t found_count, exact_count;
        make_vector(&w->random, query);
        assert_int_equal(lk_snapshot_search(snapshot, NULL, false, query, K, set, found, &found_count), LK_OK);
        assert_int_equal(lk_snapshot_search(snapshot, NULL, true, query, K, set, exact, &exact_count), LK_OK);
        assert_int_equal(found_count, exact_count);
        all += exact_count;
        for (size_t i = 0; i < found_count; i++) {
            if (i)
                assert_true(found[i].score <= found[i - 1].score ||
                            lk_flat_metric(lk_snapshot_index(snapshot)) == LK_L2);
            assert_true(!set || lk_id_set_has((void *)set, found[i].id));
            for (size_t j = 0; j < exact_count; j++) {
                if (found[i].id != exact[j].id) continue;
                same++;
                assert_memory_equal(&found[i].score, &exact[j].score, sizeof(float));
            }
        }
    }
    lk_snapshot_free(snapshot);
    return all ? (double)same / (double)all : 1;
}

static void an_index_finds_what_an_exact_search_finds(void **state)
{
    static const lk_metric metrics[] = {LK_COSINE, LK_L2, LK_INNER_PRODUCT};
    static const char *const kinds[] = {"graph", "partitioned"};
    for (int m = 0; m < 3; m++) {
        world w = begin(*state, metrics[m], FIRST);
        assert_string_equal(info(&w).kind, "flat");
        for (int k = 0; k < 2; k++) {
            build(&w, kinds[k], false);
            lk_index_info i = info(&w);
            assert_string_equal(i.kind, kinds[k]);
            assert_int_equal(i.vectors, FIRST);
            assert_true(i.bytes > 0 && i.effort > 0 && i.recall > 0.9);
            double r = recall(&w, NULL);
            if (r < 0.95) fail_msg("metric %d, %s: recall %.3f", m, kinds[k], r);
        }
        lk_collection_close(w.collection);
        assert_int_equal(nftw(w.path, unit_remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
    }
}

static void pictures_that_came_went_or_changed_since_are_right(void **state)
{
    world w = begin(*state, LK_COSINE, FIRST);
    build(&w, "graph", false);
    for (int i = FIRST; i < FIRST + 100; i++) put(&w, i); /* new */
    for (int i = 0; i < 100; i++) put(&w, i);             /* changed: new vectors under the same ids */
    for (int64_t id = 200; id < 300; id++) assert_int_equal(lk_collection_remove(w.collection, id), LK_OK);
    assert_int_equal(lk_collection_commit(w.collection), LK_OK);
    assert_true(recall(&w, NULL) >= 0.95);
    lk_snapshot *snapshot;
    assert_int_equal(lk_collection_snapshot(w.collection, &snapshot), LK_OK);
    for (int q = 0; q < QUERIES; q++) {
        float query[DIM];
        lk_hit found[40];
        size_t count;
        make_vector(&w.random, query);
        assert_int_equal(lk_snapshot_search(snapshot, NULL, false, query, 40, NULL, found, &count), LK_OK);
        assert_int_equal(count, 40);
        for (size_t i = 0; i < count; i++) {
            assert_false(found[i].id >= 200 && found[i].id < 300);
            for (size_t j = 0; j < i; j++) assert_int_not_equal(found[i].id, found[j].id);
        }
    }
    lk_snapshot_free(snapshot);
    /* Few changes leave the index alone, many do not. */
    build(&w, "graph", false);
    assert_int_equal(info(&w).vectors, FIRST);
    for (int i = FIRST + 100; i < 2 * FIRST; i++) put(&w, i);
    build(&w, "graph", false);
    assert_int_equal(info(&w).vectors, 2 * FIRST - 100);
    assert_true(recall(&w, NULL) >= 0.95);
    lk_collection_close(w.collection);
}

/* Beside the index lie pictures that came since, in it pictures that are gone. */
static void a_range_is_what_an_exact_range_is(void **state)
{
    static const lk_metric metrics[] = {LK_COSINE, LK_L2};
    static const char *const kinds[] = {"graph", "partitioned"};
    static lk_hit found[FIRST], exact[FIRST];
    for (int m = 0; m < 2; m++) {
        world w = begin(*state, metrics[m], FIRST);
        for (int k = 0; k < 2; k++) {
            lk_id_set *part;
            lk_snapshot *snapshot;
            size_t same = 0, all = 0;
            build(&w, kinds[k], true);
            for (int i = 0; i < 150; i++) put(&w, FIRST + 200 * k + i);
            for (int64_t id = 1; id <= 100; id++)
                assert_int_equal(lk_collection_remove(w.collection, 300 * (k + 1) + id), LK_OK);
            assert_int_equal(lk_collection_commit(w.collection), LK_OK);
            assert_int_equal(lk_collection_select(w.collection, "part in (1, 2, 3, 4, 5, 6)", &part), LK_OK);
            assert_int_equal(lk_collection_snapshot(w.collection, &snapshot), LK_OK);
            for (int q = 0; q < QUERIES; q++) {
                float query[DIM];
                size_t n, count, filtered;
                make_vector(&w.random, query);
                assert_int_equal(lk_snapshot_search(snapshot, NULL, true, query, 200, NULL, exact, &n), LK_OK);
                float bound = exact[q * 3].score;
                assert_int_equal(lk_snapshot_range(snapshot, NULL, true, query, bound, FIRST, NULL, exact, &n), LK_OK);
                assert_true(n >= (size_t)q * 3 + 1);
                assert_int_equal(lk_snapshot_range(snapshot, NULL, false, query, bound, FIRST, NULL, found, &count),
                                 LK_OK);
                assert_true(count <= n);
                for (size_t i = 0, j = 0; i < count; i++, j++) { /* the same, in the same order, with a few left out */
                    while (j < n && exact[j].id != found[i].id) j++;
                    assert_true(j < n);
                    assert_memory_equal(&found[i].score, &exact[j].score, sizeof(float));
                }
                same += count;
                all += n;
                assert_int_equal(lk_snapshot_range(snapshot, NULL, false, query, bound, FIRST, part, found, &filtered),
                                 LK_OK);
                for (size_t i = 0; i < filtered; i++) assert_true(lk_id_set_has(part, found[i].id));
            }
            if ((double)same < 0.95 * (double)all)
                fail_msg("metric %d, %s: %zu of %zu", metrics[m], kinds[k], same, all);
            lk_snapshot_free(snapshot);
            lk_id_set_free(part);
        }
        lk_collection_close(w.collection);
        assert_int_equal(nftw(w.path, unit_remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
    }
}

static void filters_keep_their_recall_at_every_selectivity(void **state)
{
    static const char *const kinds[] = {"graph", "partitioned"};
    static const char *const filters[] = {"id <= 12", /* a thousandth, a hundredth, a tenth, a half, all, none */
                                          "id <= 120", "part = 3", "part in (0, 1, 2, 3, 4)", "id > 0", "id < 0"};
    world w = begin(*state, LK_COSINE, 12000);
    for (int k = 0; k < 2; k++) {
        build(&w, kinds[k], false);
        double all = recall(&w, NULL); /* tuning aims at 0.99, on queries of its own */
        print_message("%s: recall %.3f\n", kinds[k], all);
        assert_true(all >= 0.975);
        for (size_t i = 0; i < sizeof filters / sizeof *filters; i++) {
            lk_id_set *set;
            assert_int_equal(lk_collection_select(w.collection, filters[i], &set), LK_OK);
            double r = recall(&w, set);
            print_message("%s, %s: recall %.3f\n", kinds[k], filters[i], r);
            if (r < 0.97) fail_msg("%s, %s: recall %.3f, without a filter %.3f", kinds[k], filters[i], r, all);
            lk_id_set_free(set);
        }
    }
    lk_collection_close(w.collection);
}

static void compaction_drops_the_index_and_building_brings_it_back(void **state)
{
    world w = begin(*state, LK_COSINE, FIRST);
    build(&w, "graph", false);
    for (int64_t id = 1; id <= 500; id++) assert_int_equal(lk_collection_remove(w.collection, id), LK_OK);
    assert_int_equal(lk_collection_compact(w.collection), LK_OK);
    assert_string_equal(info(&w).kind, "flat");
    assert_true(recall(&w, NULL) == 1);
    build(&w, "graph", false);
    assert_int_equal(info(&w).vectors, FIRST - 500);
    assert_true(recall(&w, NULL) >= 0.95);
    build(&w, NULL, false); /* as it is */
    assert_string_equal(info(&w).kind, "graph");
    build(&w, "auto", false); /* too few to need one */
    assert_string_equal(info(&w).kind, "flat");
    lk_collection_close(w.collection);
}

/* Path of the only file in the folder of the index. */
static void index_file(world *w, char out[512])
{
    char folder[160];
    snprintf(folder, sizeof folder, "%s/index", w->path);
    assert_int_equal(unit_count_files(folder), 1);
    DIR *dir = opendir(folder);
    for (struct dirent *e; (e = readdir(dir));)
        if (e->d_name[0] != '.') snprintf(out, 512, "%s/%s", folder, e->d_name);
    closedir(dir);
}

static uint64_t problems_of(world *w)
{
    uint64_t problems;
    assert_int_equal(lk_collection_verify(w->collection, NULL, NULL, &problems), LK_OK);
    return problems;
}

static void a_damaged_byte_anywhere_in_an_index_is_found(void **state)
{
    static const char *const kinds[] = {"graph", "partitioned"};
    world w = begin(*state, LK_COSINE, FIRST);
    for (int k = 0; k < 2; k++) {
        build(&w, kinds[k], true);
        assert_int_equal(problems_of(&w), 0);
        char file[512];
        struct stat st;
        index_file(&w, file);
        assert_int_equal(stat(file, &st), 0);
        FILE *f = fopen(file, "r+b");
        for (int part = 1; part <= 4; part++) { /* ids among them: a search must survive what they say */
            char byte;
            fseek(f, st.st_size * part / 5, SEEK_SET);
            assert_int_equal(fread(&byte, 1, 1, f), 1);
            byte ^= 0x55;
            fseek(f, st.st_size * part / 5, SEEK_SET);
            assert_int_equal(fwrite(&byte, 1, 1, f), 1);
        }
        fclose(f);
        assert_int_equal(problems_of(&w), 1);
    }
    lk_collection_close(w.collection);
}

/* The table of a graph's ids is the page from which on as many words as there are vectors are numbers of vectors. What
 * they are made to say here points behind the last row. */
static void ids_of_a_damaged_index_lead_nowhere(void **state)
{
    world w = begin(*state, LK_COSINE, FIRST);
    build(&w, "graph", false);
    assert_int_equal(lk_collection_remove(w.collection, 5), LK_OK); /* so that every id is asked whether it passes */
    assert_int_equal(lk_collection_commit(w.collection), LK_OK);
    char file[512];
    index_file(&w, file);
    int fd = open(file, O_RDWR);
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    uint64_t *words = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(words != MAP_FAILED);
    size_t count = (size_t)st.st_size / 8, at = 0, rows = 0;
    for (; rows < FIRST && at + FIRST <= count; at += rows < FIRST ? 512 : 0)
        for (rows = 0; rows < FIRST && words[at + rows] < FIRST;) rows++;
    assert_int_equal(rows, FIRST);
    for (size_t i = 0; i < FIRST; i++) words[at + i] = UINT64_MAX / 16 + i;
    munmap(words, (size_t)st.st_size);
    close(fd);
    assert_true(recall(&w, NULL) == 1);
    assert_int_equal(problems_of(&w), 1);
    lk_collection_close(w.collection);
}

static void the_index_of_another_collection_is_not_used(void **state)
{
    char other[100], mine[512], theirs[512];
    world w = begin(*state, LK_COSINE, 300);
    build(&w, "graph", false);
    snprintf(other, sizeof other, "%s/other", (char *)*state);
    assert_int_equal(mkdir(other, 0777), 0);
    world v = begin(other, LK_COSINE, 301);
    build(&v, "graph", false);
    index_file(&w, mine);
    index_file(&v, theirs);
    assert_int_equal(rename(theirs, mine), 0);
    lk_index_info i;
    assert_int_equal(lk_collection_index_info(w.collection, &i), LK_CORRUPT);
    assert_true(recall(&w, NULL) == 1);
    assert_int_equal(problems_of(&w), 1);
    lk_collection_close(w.collection);
    lk_collection_close(v.collection);
}

static void numbers_of_indexes_serve_once_and_leftovers_go(void **state)
{
    char first[512], second[512], leftover[160];
    world w = begin(*state, LK_COSINE, 300);
    build(&w, "graph", false);
    index_file(&w, first);
    build(&w, "flat", false);
    snprintf(leftover, sizeof leftover, "%s/index/0009.ann.123-0.tmp", w.path); /* of a killed writer */
    FILE *f = fopen(leftover, "w");
    assert_non_null(f);
    fclose(f);
    build(&w, "graph", false);
    index_file(&w, second); /* the only file */
    assert_string_not_equal(first, second);
    lk_collection_close(w.collection);
}

static void few_survivors_are_all_found(void **state)
{
    static const char *const kinds[] = {"graph", "partitioned"};
    world w = begin(*state, LK_COSINE, FIRST);
    for (int k = 0; k < 2; k++) {
        lk_index_options options = {.kind = kinds[k], .recall = 0.1, .always = true}; /* the least effort */
        assert_int_equal(lk_collection_build_index(NULL, w.collection, &options), LK_OK);
        if (k == 1)
            for (int64_t id = 51; id <= FIRST; id++) assert_int_equal(lk_collection_remove(w.collection, id), LK_OK);
        assert_int_equal(lk_collection_commit(w.collection), LK_OK);
        lk_snapshot *snapshot;
        assert_int_equal(lk_collection_snapshot(w.collection, &snapshot), LK_OK);
        for (int q = 0; q < 10; q++) {
            float query[DIM];
            lk_hit found[50];
            size_t count;
            make_vector(&w.random, query);
            assert_int_equal(lk_snapshot_search(snapshot, NULL, false, query, 50, NULL, found, &count), LK_OK);
            assert_int_equal(count, 50);
        }
        lk_snapshot_free(snapshot);
    }
    lk_collection_close(w.collection);
}

static void a_damaged_index_costs_time_and_no_results(void **state)
{
    world w = begin(*state, LK_COSINE, FIRST);
    build(&w, "graph", false);
    char file[512];
    index_file(&w, file);
    assert_int_equal(truncate(file, 1000), 0);
    assert_true(recall(&w, NULL) == 1);
    lk_index_info i;
    assert_int_equal(lk_collection_index_info(w.collection, &i), LK_CORRUPT);
    uint64_t problems;
    assert_int_equal(lk_collection_verify(w.collection, NULL, NULL, &problems), LK_OK);
    assert_int_equal(problems, 1);
    build(&w, "graph", true);
    assert_int_equal(lk_collection_verify(w.collection, NULL, NULL, &problems), LK_OK);
    assert_int_equal(problems, 0);
    assert_int_equal(access(file, F_OK), -1); /* the old file is gone */
    lk_collection_close(w.collection);
}

static void a_collection_of_the_first_format_is_read_and_upgraded(void **state)
{
    world w = begin(*state, LK_COSINE, 300);
    lk_collection_close(w.collection);
    char path[160];
    snprintf(path, sizeof path, "%s/catalog.db", w.path);
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "DROP TABLE ann; PRAGMA user_version=1", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    assert_int_equal(lk_collection_open(w.path, LK_READ, &w.collection), LK_OK);
    assert_string_equal(info(&w).kind, "flat");
    assert_true(recall(&w, NULL) == 1);
    lk_collection_close(w.collection);
    assert_int_equal(lk_collection_open(w.path, LK_WRITE, &w.collection), LK_OK);
    build(&w, "graph", false);
    assert_string_equal(info(&w).kind, "graph");
    lk_collection_close(w.collection);
}

/* A collection of the second format has an index, but not why it is of its kind. */
static void an_index_of_the_second_format_is_read_and_upgraded(void **state)
{
    world w = begin(*state, LK_COSINE, 300);
    build(&w, "graph", false);
    lk_collection_close(w.collection);
    char path[160];
    snprintf(path, sizeof path, "%s/catalog.db", w.path);
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "ALTER TABLE ann DROP COLUMN why; PRAGMA user_version=2", NULL, NULL, NULL),
                     SQLITE_OK);
    sqlite3_close(db);
    static const lk_access accesses[] = {LK_READ, LK_WRITE, LK_READ};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(lk_collection_open(w.path, accesses[i], &w.collection), LK_OK);
        assert_string_equal(info(&w).kind, "graph");
        assert_string_equal(info(&w).why, "");
        assert_true(recall(&w, NULL) >= 0.95);
        lk_collection_close(w.collection);
    }
}

/* The version is the word behind the eight letters in both kinds of files. */
static void an_index_file_of_another_version_is_told_and_built_anew(void **state)
{
    static const char *const kinds[] = {"graph", "partitioned"};
    static const uint32_t versions[] = {0, 77};
    world w = begin(*state, LK_COSINE, 500);
    for (int k = 0; k < 2; k++) {
        for (int v = 0; v < 2; v++) {
            char file[512], later[512];
            lk_index_info i;
            build(&w, kinds[k], true);
            index_file(&w, file);
            FILE *f = fopen(file, "r+b");
            assert_non_null(f);
            fseek(f, 8, SEEK_SET);
            assert_int_equal(fwrite(&versions[v], sizeof versions[v], 1, f), 1);
            fclose(f);
            assert_int_equal(lk_collection_index_info(w.collection, &i), LK_UNSUPPORTED);
            assert_non_null(strstr(lk_error_message(), v ? "version 77" : "version 0"));
            assert_non_null(strstr(lk_error_message(), "build it again"));
            assert_non_null(strstr(lk_error_message(), file));
            assert_true(recall(&w, NULL) == 1); /* exact meanwhile */
            assert_int_equal(problems_of(&w), 1);
            build(&w, kinds[k], false); /* the next run, though nothing changed */
            index_file(&w, later);
            assert_string_not_equal(file, later);
            assert_int_equal(info(&w).vectors, 500);
            assert_int_equal(problems_of(&w), 0);
        }
    }
    lk_collection_close(w.collection);
}

/* In a process of its own: opens, asks and searches until told to stop; the exit status is 0 when nothing failed. */
static pid_t start_reader(const world *w, int seed)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child) return child;
    lk_random random;
    lk_random_seed(&random, (uint64_t)seed);
    char stop[200];
    snprintf(stop, sizeof stop, "%s.stop", w->path);
    for (int round = 0; round < 5 || access(stop, F_OK) != 0; round++) {
        lk_collection *c;
        lk_snapshot *snapshot = NULL;
        lk_index_info i;
        float query[DIM];
        lk_hit hits[K];
        size_t count = 0;
        lk_status s = lk_collection_open(w->path, LK_READ, &c);
        if (s == LK_OK) s = lk_collection_index_info(c, &i);
        if (s == LK_OK) s = lk_collection_snapshot(c, &snapshot);
        for (int q = 0; s == LK_OK && q < 5; q++) {
            make_vector(&random, query);
            s = lk_snapshot_search(snapshot, NULL, false, query, K, NULL, hits, &count);
            if (s == LK_OK && count != K) s = LK_CORRUPT;
        }
        if (s != LK_OK) {
            fprintf(stderr, "a reader failed: %s\n", lk_error_message());
            _exit(1);
        }
        lk_snapshot_free(snapshot);
        lk_collection_close(c);
    }
    _exit(0);
}

static void readers_go_on_while_the_index_is_replaced(void **state)
{
    enum { READERS = 4, REPLACEMENTS = 12 };
    static const char *const kinds[] = {"graph", "partitioned"};
    pid_t readers[READERS];
    world w = begin(*state, LK_COSINE, 400);
    build(&w, "graph", false);
    lk_collection_close(w.collection); /* no descriptor of SQLite's may be used on both sides of a fork */
    for (int i = 0; i < READERS; i++) readers[i] = start_reader(&w, i);
    assert_int_equal(lk_collection_open(w.path, LK_WRITE, &w.collection), LK_OK);
    for (int i = 0; i < REPLACEMENTS; i++) {
        put(&w, 400 + i);
        assert_int_equal(lk_collection_remove(w.collection, 10 + i), LK_OK);
        assert_int_equal(lk_collection_commit(w.collection), LK_OK);
        if (i % 4 == 3) assert_int_equal(lk_collection_compact(w.collection), LK_OK);
        build(&w, kinds[i % 2], true);
    }
    char stop[200];
    snprintf(stop, sizeof stop, "%s.stop", w.path);
    FILE *f = fopen(stop, "w");
    assert_non_null(f);
    fclose(f);
    for (int i = 0; i < READERS; i++) {
        int status;
        assert_int_equal(waitpid(readers[i], &status, 0), readers[i]);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
    }
    assert_int_equal(problems_of(&w), 0);
    lk_collection_close(w.collection);
}

static void a_collection_says_why_its_index_is_of_its_kind(void **state)
{
    world w = begin(*state, LK_COSINE, 300);
    assert_non_null(strstr(info(&w).why, "all 300 vectors of 16 components"));
    build(&w, "graph", false);
    assert_string_equal(info(&w).why, ""); /* somebody wanted it */
    build(&w, "auto", false);
    assert_string_equal(info(&w).kind, "flat");
    assert_non_null(strstr(info(&w).why, "read in"));
    lk_collection_close(w.collection);
}

static void unknown_kinds_and_readers_are_refused(void **state)
{
    world w = begin(*state, LK_COSINE, 10);
    assert_int_equal(lk_collection_build_index(NULL, w.collection, &(lk_index_options){.kind = "tree"}), LK_INVALID);
    lk_collection_close(w.collection);
    assert_int_equal(lk_collection_open(w.path, LK_READ, &w.collection), LK_OK);
    assert_int_equal(lk_collection_build_index(NULL, w.collection, NULL), LK_INVALID);
    lk_collection_close(w.collection);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_index_finds_what_an_exact_search_finds, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(pictures_that_came_went_or_changed_since_are_right, unit_folder,
                                        unit_folder_remove),
        cmocka_unit_test_setup_teardown(a_range_is_what_an_exact_range_is, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(filters_keep_their_recall_at_every_selectivity, unit_folder,
                                        unit_folder_remove),
        cmocka_unit_test_setup_teardown(compaction_drops_the_index_and_building_brings_it_back, unit_folder,
                                        unit_folder_remove),
        cmocka_unit_test_setup_teardown(a_damaged_index_costs_time_and_no_results, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(a_damaged_byte_anywhere_in_an_index_is_found, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(ids_of_a_damaged_index_lead_nowhere, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(the_index_of_another_collection_is_not_used, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(numbers_of_indexes_serve_once_and_leftovers_go, unit_folder,
                                        unit_folder_remove),
        cmocka_unit_test_setup_teardown(few_survivors_are_all_found, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(a_collection_of_the_first_format_is_read_and_upgraded, unit_folder,
                                        unit_folder_remove),
        cmocka_unit_test_setup_teardown(an_index_of_the_second_format_is_read_and_upgraded, unit_folder,
                                        unit_folder_remove),
        cmocka_unit_test_setup_teardown(an_index_file_of_another_version_is_told_and_built_anew, unit_folder,
                                        unit_folder_remove),
        cmocka_unit_test_setup_teardown(readers_go_on_while_the_index_is_replaced, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(a_collection_says_why_its_index_is_of_its_kind, unit_folder,
                                        unit_folder_remove),
        cmocka_unit_test_setup_teardown(unknown_kinds_and_readers_are_refused, unit_folder, unit_folder_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
