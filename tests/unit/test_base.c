/* base: errors, arenas, threads, files, checksums, paths, random numbers. */
#include "base/arena.h"
#include "base/cpu.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/random.h"
#include "base/threads.h"
#include "base/workplace.h"

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void message_keeps_context_and_cause(void **state)
{
    (void)state;
    assert_int_equal(lk_fail(LK_CORRUPT, "bad byte %d", 7), LK_CORRUPT);
    assert_string_equal(lk_error_message(), "bad byte 7");
    assert_int_equal(lk_fail_in(LK_CORRUPT, "photos.lk"), LK_CORRUPT);
    assert_string_equal(lk_error_message(), "photos.lk: bad byte 7");
    assert_int_equal(lk_fail_errno(ENOENT, "x.jpg"), LK_NOT_FOUND);
    assert_int_equal(lk_fail_errno(ENOSPC, "x.jpg"), LK_IO);
    assert_non_null(strstr(lk_error_message(), "disk is full"));
}

static void overlong_message_is_cut_not_overrun(void **state)
{
    (void)state;
    char text[4000];
    memset(text, 'a', sizeof text);
    text[sizeof text - 1] = 0;
    lk_fail(LK_IO, "%s", text);
    assert_int_equal(strlen(lk_error_message()), LK_ERROR_SIZE - 1);
    lk_fail_in(LK_IO, "%s", text);
    assert_int_equal(strlen(lk_error_message()), LK_ERROR_SIZE - 1);
}

static void a_message_that_is_cut_ends_with_a_whole_character(void **state)
{
    (void)state;
    static const char *const characters[] = {"a", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\xa6\x81"};
    for (size_t c = 0; c < 4; c++)
        for (size_t before = 0; before < 4; before++) {
            char text[4000] = "xxx";
            text[before] = 0;
            while (strlen(text) + 4 < sizeof text) strcat(text, characters[c]);
            lk_fail(LK_IO, "%s", text);
            assert_in_range(strlen(lk_error_message()), LK_ERROR_SIZE - 4, LK_ERROR_SIZE - 1);
            assert_true(lk_utf8_valid(lk_error_message()));
            lk_fail_errno(ENAMETOOLONG, "%s: cannot be opened", text);
            assert_true(lk_utf8_valid(lk_error_message()));
            assert_non_null(strstr(lk_error_message(), "File name too long")); /* the reason has room of its own */
            lk_fail(LK_IO, "%s", text);
            lk_fail_in(LK_IO, "%s", text);
            assert_true(lk_utf8_valid(lk_error_message()));
            assert_int_equal(lk_utf8_fit(text, strlen(text)), strlen(text));
            for (size_t most = 0; most < 20; most++) {
                char fitting[32];
                int n = lk_utf8_fit(text, most);
                assert_in_range(n, most < 4 ? 0 : most - 3, most);
                snprintf(fitting, sizeof fitting, "%.*s", n, text);
                assert_true(lk_utf8_valid(fitting));
            }
        }
    assert_int_equal(lk_utf8_fit("\x80\x80\x80\x80\x80", 4), 4); /* not UTF-8: as it is */
    assert_int_equal(lk_utf8_fit("short", 64), 5);
}

static void arena_allocations_do_not_overlap(void **state)
{
    (void)state;
    lk_arena arena = {0};
    unsigned char *parts[500];
    for (int i = 0; i < 500; i++) {
        parts[i] = lk_arena_alloc(&arena, (size_t)i * 37 % 40000);
        assert_non_null(parts[i]);
        assert_int_equal((uintptr_t)parts[i] % 16, 0);
        memset(parts[i], i & 255, (size_t)i * 37 % 40000);
    }
    for (int i = 0; i < 500; i++)
        for (size_t j = 0; j < (size_t)i * 37 % 40000; j += 101) assert_int_equal(parts[i][j], i & 255);
    assert_string_equal(lk_arena_strdup(&arena, "red lion"), "red lion");
    assert_null(lk_arena_alloc(&arena, SIZE_MAX));
    lk_arena_free(&arena);
}

/* ---- threads ---- */

typedef struct counted {
    atomic_int hits[1000];
    int fail_from;
} counted;

static lk_status count_range(void *arg, size_t begin, size_t end, int worker)
{
    counted *c = arg;
    assert_true(worker >= 0 && worker < 4);
    for (size_t i = begin; i < end; i++) {
        atomic_fetch_add(&c->hits[i], 1);
        if (c->fail_from && (int)i >= c->fail_from) return lk_fail(LK_CORRUPT, "item %zu", i);
    }
    return LK_OK;
}

static void every_index_runs_exactly_once(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 4; threads++) {
        lk_pool *pool;
        assert_int_equal(lk_pool_new(threads, &pool), LK_OK);
        for (size_t grain = 0; grain < 1200; grain = grain * 3 + 1) {
            counted c = {0};
            assert_int_equal(lk_parallel_for(pool, 1000, grain, count_range, &c), LK_OK);
            for (int i = 0; i < 1000; i++) assert_int_equal(c.hits[i], 1);
        }
        lk_pool_free(pool);
    }
}

static void first_failure_comes_back_with_its_message(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 4; threads++) {
        lk_pool *pool;
        assert_int_equal(lk_pool_new(threads, &pool), LK_OK);
        counted c = {.fail_from = 500};
        assert_int_equal(lk_parallel_for(pool, 1000, 10, count_range, &c), LK_CORRUPT);
        assert_non_null(strstr(lk_error_message(), "item 5"));
        int ran = 0;
        for (int i = 0; i < 1000; i++) ran += c.hits[i];
        assert_true(ran < 1000);
        lk_pool_free(pool);
    }
}

static lk_status nested_range(void *arg, size_t begin, size_t end, int worker)
{
    (void)begin, (void)end, (void)worker;
    counted *inner = calloc(1, sizeof *inner);
    lk_status s = lk_parallel_for(arg, 1000, 7, count_range, inner);
    for (int i = 0; i < 1000; i++) assert_int_equal(inner->hits[i], 1);
    free(inner);
    return s;
}

static void work_inside_work_does_not_lock_up(void **state)
{
    (void)state;
    lk_pool *pool;
    assert_int_equal(lk_pool_new(3, &pool), LK_OK);
    assert_int_equal(lk_parallel_for(pool, 20, 1, nested_range, pool), LK_OK);
    lk_pool_free(pool);
}

typedef struct delayed {
    int number;
    bool done;
    atomic_int *inside, *most;
} delayed;

static void run_delayed(void *job)
{
    delayed *d = job;
    struct timespec pause = {0, (d->number * 7919 % 5) * 200000};
    int now = atomic_fetch_add(d->inside, 1) + 1, most = atomic_load(d->most);
    while (now > most && !atomic_compare_exchange_weak(d->most, &most, now)) {
    }
    nanosleep(&pause, NULL);
    atomic_fetch_sub(d->inside, 1);
    d->done = true;
}

static void jobs_come_out_in_order_and_never_more_than_the_capacity(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 4; threads++) {
        lk_pool *pool;
        lk_ordered *ordered;
        assert_int_equal(lk_pool_new(threads, &pool), LK_OK);
        assert_int_equal(lk_ordered_new(pool, 3, run_delayed, &ordered), LK_OK);
        atomic_int inside = 0, most = 0;
        delayed jobs[200];
        int next = 0, expected = 0;
        while (next < 200 || lk_ordered_pending(ordered)) {
            while (next < 200 && lk_ordered_room(ordered)) {
                jobs[next] = (delayed){next, false, &inside, &most};
                lk_ordered_submit(ordered, &jobs[next++]);
                assert_true(lk_ordered_pending(ordered) <= 3);
            }
            delayed *d = lk_ordered_take(ordered);
            assert_true(d->done);
            assert_int_equal(d->number, expected++);
        }
        assert_int_equal(expected, 200);
        assert_true(most <= 3);
        assert_null(lk_ordered_take(ordered));
        lk_ordered_free(ordered);
        lk_pool_free(pool);
    }
}

/* ---- files ---- */

static void replaced_file_is_old_or_new_never_half(void **state)
{
    const char *folder = *state;
    char *path = lk_path_join(folder, "note");
    uint8_t *bytes;
    size_t size;
    assert_int_equal(lk_file_write_atomic(path, "old", 3), LK_OK);
    lk_atomic_file *file;
    assert_int_equal(lk_atomic_open(path, &file), LK_OK);
    assert_int_equal(lk_atomic_write(file, "new and longer", 14), LK_OK);
    assert_int_equal(lk_file_read(path, 0, &bytes, &size), LK_OK);
    assert_string_equal((char *)bytes, "old"); /* nothing seen before the commit */
    free(bytes);
    assert_int_equal(lk_atomic_commit(file), LK_OK);
    assert_int_equal(lk_file_read(path, 0, &bytes, &size), LK_OK);
    assert_string_equal((char *)bytes, "new and longer");
    free(bytes);
    assert_int_equal(unit_count_files(folder), 1); /* no temporary left */
    free(path);
}

static void full_disk_leaves_the_old_file(void **state)
{
    const char *folder = *state;
    char *path = lk_path_join(folder, "kept"), big[8192] = {0};
    assert_int_equal(lk_file_write_atomic(path, "old", 3), LK_OK);
    struct rlimit before, small = {4096, RLIM_INFINITY};
    getrlimit(RLIMIT_FSIZE, &before);
    small.rlim_max = before.rlim_max;
    setrlimit(RLIMIT_FSIZE, &small); /* SIGXFSZ is ignored in main, so that write fails with EFBIG */
    lk_status s = lk_file_write_atomic(path, big, sizeof big);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_int_equal(s, LK_IO);
    assert_non_null(strstr(lk_error_message(), "kept"));
    uint8_t *bytes;
    size_t size;
    assert_int_equal(lk_file_read(path, 0, &bytes, &size), LK_OK);
    assert_string_equal((char *)bytes, "old");
    free(bytes);
    assert_int_equal(unit_count_files(folder), 1);
    free(path);
}

static void reading_refuses_what_is_not_a_file(void **state)
{
    const char *folder = *state;
    uint8_t *bytes;
    size_t size;
    assert_int_equal(lk_file_read(folder, 0, &bytes, &size), LK_INVALID);
    char *path = lk_path_join(folder, "fifo");
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(lk_file_read(path, 0, &bytes, &size), LK_INVALID); /* and does not wait for a writer */
    unlink(path);
    free(path);
    path = lk_path_join(folder, "absent");
    assert_int_equal(lk_file_read(path, 0, &bytes, &size), LK_NOT_FOUND);
    assert_int_equal(lk_file_write_atomic(path, "123456", 6), LK_OK);
    assert_int_equal(lk_file_read(path, 5, &bytes, &size), LK_LIMIT);
    assert_int_equal(lk_file_read(path, 6, &bytes, &size), LK_OK);
    free(bytes);
    free(path);
}

static void blob_tells_every_flipped_byte_and_every_cut(void **state)
{
    char *path = lk_path_join(*state, "blob");
    uint8_t *bytes, *raw;
    size_t size, n;
    assert_int_equal(lk_blob_write(path, "LKTEST\0\0", 2, "the payload", 11), LK_OK);
    assert_int_equal(lk_blob_read(path, "LKTEST\0\0", 2, &bytes, &size), LK_OK);
    assert_int_equal(size, 11);
    assert_memory_equal(bytes, "the payload", 11);
    free(bytes);
    assert_int_equal(lk_blob_read(path, "LKTEST\0\0", 1, &bytes, &size), LK_UNSUPPORTED); /* we know only version 1 */
    assert_int_equal(lk_blob_read(path, "OTHER\0\0\0", 2, &bytes, &size), LK_CORRUPT);
    assert_int_equal(lk_file_read(path, 0, &raw, &n), LK_OK);
    for (size_t i = 0; i < n; i++) {
        raw[i] ^= 0x40;
        assert_int_equal(lk_file_write_atomic(path, raw, n), LK_OK);
        assert_int_not_equal(lk_blob_read(path, "LKTEST\0\0", 2, &bytes, &size), LK_OK);
        raw[i] ^= 0x40;
    }
    for (size_t cut = 0; cut < n; cut++) {
        assert_int_equal(lk_file_write_atomic(path, raw, cut), LK_OK);
        assert_int_equal(lk_blob_read(path, "LKTEST\0\0", 2, &bytes, &size), LK_CORRUPT);
    }
    free(raw);
    free(path);
}

static void hash_is_published_xxh3_128(void **state)
{
    (void)state;
    char hex[33];
    lk_hash_hex(lk_hash("", 0), hex);
    assert_string_equal(hex, "99aa06d3014798d86001c324468d497f"); /* `xxhsum -H2` of an empty file */
}

static void absolute_paths_are_normalised(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {{"/a/b", "/a/b"},          {"/a/./b//c/", "/a/b/c"}, {"/a/../b", "/b"},
                                           {"/../..", "/"},           {"/a/b/../../c", "/c"},   {"/...", "/..."},
                                           {"/a/..b/.c", "/a/..b/.c"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        char *out;
        assert_int_equal(lk_path_absolute(pairs[i][0], &out), LK_OK);
        assert_string_equal(out, pairs[i][1]);
        free(out);
    }
    char *out, *cwd = getcwd(NULL, 0), *expected = lk_path_join(cwd, "x");
    assert_int_equal(lk_path_absolute("y/../x", &out), LK_OK);
    assert_string_equal(out, expected);
    free(out), free(cwd), free(expected);
    assert_int_equal(lk_path_absolute("", &out), LK_INVALID);
}

/* The number of a process that is gone. */
static long gone(void)
{
    pid_t child = fork();
    if (child == 0) _exit(0);
    assert_true(child > 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    return child;
}

static char *named(char *out, void **state, const char *format, long process)
{
    int n = snprintf(out, 200, "%s/", (char *)*state);
    snprintf(out + n, 200 - (size_t)n, format, process);
    return out;
}

static void what_killed_processes_leave_goes_and_what_is_in_use_stays(void **state)
{
    char place[200], path[200], inner[300];
    long dead = gone();
    lk_workplace mine, second;
    named(place, state, "c.lk", 0);
    lk_status s = lk_workplace_open(place, &mine);
    assert_int_equal(s, LK_OK);
    const char *const abandoned[] = {".c.lk.%ld.new", ".c.lk.%ld-12.new"};
    const char *const kept[] = {".d.lk.%ld.new", ".c.lk.%ld.old", ".c.lk.%ldx.new", ".c.lk.x%ld.new", "c.lk.%ld.new"};
    for (size_t i = 0; i < 2; i++) {
        snprintf(inner, sizeof inner, "%s/model/deep", named(path, state, abandoned[i], dead));
        assert_int_equal(lk_make_dirs(inner), LK_OK);
        strcat(inner, "/weights");
        assert_int_equal(lk_file_write_atomic(inner, "x", 1), LK_OK);
        assert_int_equal(symlink("/tmp", strcat(inner, ".link")), 0); /* is not followed */
    }
    for (size_t i = 0; i < 5; i++) assert_int_equal(mkdir(named(path, state, kept[i], dead), 0777), 0);
    assert_int_equal(mkdir(named(path, state, ".c.lk.%ld-7.new", getpid()), 0777), 0);
    assert_int_equal(mkdir(named(path, state, ".c.lk.%ld-9.new", dead), 0777), 0);
    int lock = open(path, O_RDONLY | O_DIRECTORY); /* of a process that cannot be seen from here */
    assert_int_equal(flock(lock, LOCK_EX), 0);
    assert_int_equal(lk_workplace_sweep(place), 2);
    assert_true(lk_path_exists(mine.path));
    assert_true(lk_path_exists(path));
    assert_int_equal(unit_count_files(*state), 5 + 1 + 1 + 1);
    close(lock);
    assert_int_equal(lk_workplace_open(place, &second), LK_OK); /* whoever begins one sweeps */
    assert_false(lk_path_exists(path));
    assert_string_not_equal(mine.path, second.path);
    snprintf(inner, sizeof inner, "%s/part", mine.path);
    assert_int_equal(lk_file_write_atomic(inner, "x", 1), LK_OK);
    assert_int_equal(rename(second.path, place), 0); /* done: nothing of it is left to remove */
    lk_workplace_close(&second);
    lk_workplace_close(&mine);
    lk_workplace_close(&mine);
    assert_true(lk_path_exists(place));
    assert_int_equal(unit_count_files(*state), 5 + 1 + 1);
}

static void files_that_killed_processes_began_go(void **state)
{
    char path[200];
    long dead = gone();
    lk_atomic_file *file;
    assert_int_equal(lk_atomic_open(named(path, state, "MANIFEST", 0), &file), LK_OK);
    const char *const names[] = {"MANIFEST.%ld-0.tmp", "MANIFEST.%ld-13.tmp", "MANIFEST.%ld.bak", "other.%ld-0.tmp"};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(lk_file_write_atomic(named(path, state, names[i], dead), "x", 1), LK_OK);
    assert_int_equal(lk_atomic_sweep(*state, "MANIFEST"), 2);
    assert_int_equal(unit_count_files(*state), 3);
    assert_int_equal(lk_atomic_write(file, "y", 1), LK_OK);
    assert_int_equal(lk_atomic_commit(file), LK_OK);
    assert_int_equal(unit_count_files(*state), 3);
}

static void utf8_is_told_from_other_bytes(void **state)
{
    (void)state;
    assert_true(lk_utf8_valid("caf\xc3\xa9 \xf0\x9f\xa6\x81"));
    static const char *const bad[] = {"\xff", "\xc3", "\xc0\xaf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                                      "a\x80"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_false(lk_utf8_valid(bad[i]));
}

static void random_numbers_are_uniform_and_repeatable(void **state)
{
    (void)state;
    lk_random a, b;
    lk_random_seed(&a, 5);
    lk_random_seed(&b, 5);
    int counts[7] = {0};
    double sum = 0, squares = 0;
    for (int i = 0; i < 70000; i++) {
        assert_int_equal(lk_random_u64(&a), lk_random_u64(&b));
        counts[lk_random_below(&a, 7)]++;
        lk_random_below(&b, 7);
        double z = lk_random_normal(&a);
        lk_random_normal(&b);
        sum += z;
        squares += z * z;
    }
    for (int i = 0; i < 7; i++) assert_true(abs(counts[i] - 10000) < 500); /* 5 sigma of the binomial is 463 */
    assert_true(fabs(sum / 70000) < 0.02 && fabs(squares / 70000 - 1) < 0.03);
}

static void cpu_features_can_be_lowered(void **state)
{
    (void)state;
    setenv("LIKENESS_CPU", "plain", 1);
    assert_int_equal(lk_cpu_detect(), LK_CPU_PLAIN);
    assert_string_equal(lk_cpu_names(LK_CPU_PLAIN), "plain");
    unsetenv("LIKENESS_CPU");
    assert_true(lk_cpu_count() >= 1);
}

/* ---- log and progress ---- */

static void collect_line(void *user, lk_log_level level, const char *line)
{
    snprintf(user, 100, "%d %s", (int)level, line);
}

static void log_drops_lines_above_its_level(void **state)
{
    (void)state;
    char got[100] = "";
    lk_context *context;
    lk_context_options options = {.threads = 1, .log_level = LK_LOG_WARN, .log = collect_line, .log_user = got};
    assert_int_equal(lk_context_new(&options, &context), LK_OK);
    lk_log(context, LK_LOG_INFO, "quiet");
    assert_string_equal(got, "");
    lk_log(context, LK_LOG_WARN, "skipped %s", "x.jpg");
    assert_string_equal(got, "1 skipped x.jpg");
    lk_log(NULL, LK_LOG_ERROR, "no receiver");
    lk_context_free(context);
}

static void progress_into_a_file_has_no_control_characters(void **state)
{
    (void)state;
    char text[400] = "";
    FILE *f = tmpfile();
    lk_progress *p = lk_progress_new(f);
    for (int i = 0; i <= 100; i++) lk_progress_update(p, "indexing", (uint64_t)i, 100);
    lk_progress_update(p, "indexing", 100, 100); /* said once */
    lk_progress_free(p);
    rewind(f);
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    assert_int_equal(strncmp(text, "indexing 100% 100/100", 21), 0);
    assert_ptr_equal(strchr(text, '\n'), text + n - 1);
    assert_null(strchr(text, '\r'));
}

int main(void)
{
    signal(SIGXFSZ, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(message_keeps_context_and_cause),
        cmocka_unit_test(overlong_message_is_cut_not_overrun),
        cmocka_unit_test(a_message_that_is_cut_ends_with_a_whole_character),
        cmocka_unit_test(arena_allocations_do_not_overlap),
        cmocka_unit_test(every_index_runs_exactly_once),
        cmocka_unit_test(first_failure_comes_back_with_its_message),
        cmocka_unit_test(work_inside_work_does_not_lock_up),
        cmocka_unit_test(jobs_come_out_in_order_and_never_more_than_the_capacity),
        cmocka_unit_test_setup_teardown(replaced_file_is_old_or_new_never_half, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(full_disk_leaves_the_old_file, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(reading_refuses_what_is_not_a_file, unit_folder, unit_folder_remove),
        cmocka_unit_test_setup_teardown(blob_tells_every_flipped_byte_and_every_cut, unit_folder, unit_folder_remove),
        cmocka_unit_test(hash_is_published_xxh3_128),
        cmocka_unit_test(absolute_paths_are_normalised),
        cmocka_unit_test_setup_teardown(what_killed_processes_leave_goes_and_what_is_in_use_stays, unit_folder,
                                        unit_folder_remove),
        cmocka_unit_test_setup_teardown(files_that_killed_processes_began_go, unit_folder, unit_folder_remove),
        cmocka_unit_test(utf8_is_told_from_other_bytes),
        cmocka_unit_test(random_numbers_are_uniform_and_repeatable),
        cmocka_unit_test(cpu_features_can_be_lowered),
        cmocka_unit_test(log_drops_lines_above_its_level),
        cmocka_unit_test(progress_into_a_file_has_no_control_characters),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
