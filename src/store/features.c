#include "store/features.h"

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define APPLICATION_ID 0x4c4b4654 /* "LKFT" */
#define TABLES                                                                                                         \
    "DROP TABLE IF EXISTS features; DROP TABLE IF EXISTS settings;"                                                    \
    "CREATE TABLE features(number INTEGER PRIMARY KEY AUTOINCREMENT," /* the order of their age */                     \
    "  id INTEGER NOT NULL UNIQUE, hash BLOB NOT NULL, checksum INTEGER NOT NULL, bytes BLOB NOT NULL);"               \
    "CREATE TABLE settings(bytes_limit INTEGER NOT NULL); INSERT INTO settings VALUES(0);"

#define REMOVE_OLDEST                                                                                                  \
    "DELETE FROM features WHERE number IN (SELECT number FROM features ORDER BY number "                               \
    "LIMIT (SELECT 1 + count(*) / 16 FROM features))"

enum { GET, HAS, PUT, REMOVE, OLDEST, STATEMENTS };
static const char *const sql[STATEMENTS] = {
    [GET] = "SELECT checksum, bytes FROM features WHERE id=?1 AND hash=?2",
    [HAS] = "SELECT 1 FROM features WHERE id=?1 AND hash=?2",
    [PUT] = "INSERT OR REPLACE INTO features(id, hash, checksum, bytes) VALUES(?1,?2,?3,?4)",
    [REMOVE] = "DELETE FROM features WHERE id=?1 AND hash=?2",
    [OLDEST] = REMOVE_OLDEST,
};

struct lk_features {
    sqlite3 *db;
    char *path;
    uint64_t limit;
    bool fixed; /* the folder is read-only: what is there may be read */
    sqlite3_stmt *statements[STATEMENTS];
};

static lk_status failure(lk_features *f, int code)
{
    const char *text = f->db ? sqlite3_errmsg(f->db) : sqlite3_errstr(code);
    switch (code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB: return lk_fail(LK_CORRUPT, "%s: is damaged (%s): delete it, it is made anew", f->path, text);
    case SQLITE_BUSY:
    case SQLITE_LOCKED: return lk_fail(LK_CONFLICT, "%s: another process keeps it locked", f->path);
    case SQLITE_NOMEM: return lk_fail_memory(f->path);
    default: return lk_fail(LK_IO, "%s: %s", f->path, text);
    }
}

static lk_status execute(lk_features *f, const char *text)
{
    int code = sqlite3_exec(f->db, text, NULL, NULL, NULL);
    return code == SQLITE_OK ? LK_OK : failure(f, code);
}

/* A whole number that a statement answers with; -1 when it does not. */
static int64_t number_of(lk_features *f, const char *text)
{
    sqlite3_stmt *st = NULL;
    int64_t value = -1;
    if (sqlite3_prepare_v2(f->db, text, -1, &st, NULL) == SQLITE_OK && sqlite3_step(st) == SQLITE_ROW)
        value = sqlite3_column_int64(st, 0);
    sqlite3_finalize(st);
    return value;
}

/* Readers too open a WAL database for writing, because they share its index file. Where the folder is read-only the
 * file alone is the truth, if no log lies beside it. */
static lk_status open_file(lk_features *f, bool create)
{
    int flags = SQLITE_OPEN_READWRITE | (create ? SQLITE_OPEN_CREATE : 0) | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_URI;
    int code = sqlite3_open_v2(f->path, &f->db, flags, NULL);
    if (code == SQLITE_OK) {
        sqlite3_busy_timeout(f->db, 2000);
        code = sqlite3_exec(f->db, "SELECT count(*) FROM sqlite_master", NULL, NULL, NULL);
    }
    int kind = code & 0xff;
    if (kind != SQLITE_READONLY && kind != SQLITE_CANTOPEN) return code == SQLITE_OK ? LK_OK : failure(f, code);
    char *log = NULL, *uri = NULL;
    if (asprintf(&log, "%s-wal", f->path) < 0) log = NULL;
    if (log && lk_path_exists(f->path) && !lk_path_exists(log) && !strpbrk(f->path, "?#%") &&
        asprintf(&uri, "file:%s?immutable=1", f->path) < 0)
        uri = NULL;
    if (uri) {
        sqlite3_close(f->db);
        f->db = NULL;
        f->fixed = true;
        code = sqlite3_open_v2(uri, &f->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_URI, NULL);
    }
    free(log);
    free(uri);
    return code == SQLITE_OK ? LK_OK : failure(f, code);
}

static lk_features *allocate(const char *path)
{
    lk_features *f = lk_alloc_zero(1, sizeof *f);
    if (f && (f->path = lk_path_join(path, LK_FEATURES_FILE))) return f;
    free(f);
    lk_fail_memory("local features");
    return NULL;
}

static lk_status check_version(lk_features *f, uint32_t version, int64_t *found)
{
    int64_t owner = number_of(f, "PRAGMA application_id");
    *found = number_of(f, "PRAGMA user_version");
    if (owner != 0 && owner != APPLICATION_ID)
        return lk_fail(LK_CORRUPT, "%s: does not hold features of pictures", f->path);
    if (*found > (int64_t)version)
        return lk_fail(LK_UNSUPPORTED, "%s: was written by a newer version of this program", f->path);
    return LK_OK;
}

static lk_status prepare(lk_features *f, uint32_t version)
{
    lk_status s;
    char text[96];
    int64_t found;
    LK_TRY(execute(f, "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; BEGIN IMMEDIATE"));
    LK_TRY(check_version(f, version, &found));
    if (found < (int64_t)version) {
        LK_TRY(execute(f, TABLES));
        snprintf(text, sizeof text, "PRAGMA application_id=%d; PRAGMA user_version=%" PRIu32, APPLICATION_ID, version);
        LK_TRY(execute(f, text));
    }
    s = execute(f, "COMMIT");
done:
    return s;
}

lk_status lk_features_open(const char *path, uint32_t version, lk_features **out)
{
    *out = NULL;
    lk_features *f = allocate(path);
    int64_t found = 0;
    if (!f) return LK_NO_MEMORY;
    lk_status s;
    LK_TRY(open_file(f, true));
    LK_TRY(f->fixed ? check_version(f, version, &found) : prepare(f, version));
    if (f->fixed && found != (int64_t)version) {
        s = lk_fail(LK_IO, "%s: is of an older version and cannot be written to", f->path);
        goto done;
    }
    int64_t limit = number_of(f, "SELECT bytes_limit FROM settings");
    f->limit = limit > 0 ? (uint64_t)limit : LK_FEATURES_LIMIT;
    *out = f;
    f = NULL;
done:
    lk_features_close(f);
    return s;
}

void lk_features_close(lk_features *f)
{
    if (!f) return;
    for (int i = 0; i < STATEMENTS; i++) sqlite3_finalize(f->statements[i]);
    sqlite3_close(f->db);
    free(f->path);
    free(f);
}

uint64_t lk_features_limit(const lk_features *f)
{
    return f->limit;
}

uint64_t lk_features_size(lk_features *f)
{
    int64_t pages = number_of(f, "PRAGMA page_count"), unused = number_of(f, "PRAGMA freelist_count"),
            width = number_of(f, "PRAGMA page_size");
    return pages > 0 && unused >= 0 && width > 0 ? (uint64_t)((pages - unused) * width) : 0;
}

uint64_t lk_features_count(lk_features *f)
{
    int64_t count = number_of(f, "SELECT count(*) FROM features");
    return count > 0 ? (uint64_t)count : 0;
}

/* A reset statement, with the picture bound. NULL with the error set. */
static sqlite3_stmt *statement(lk_features *f, int which, int64_t id, const uint64_t hash[2])
{
    sqlite3_stmt **slot = &f->statements[which];
    if (*slot) {
        sqlite3_reset(*slot);
        sqlite3_clear_bindings(*slot);
    } else {
        int code = sqlite3_prepare_v3(f->db, sql[which], -1, SQLITE_PREPARE_PERSISTENT, slot, NULL);
        if (code != SQLITE_OK) {
            failure(f, code);
            return NULL;
        }
    }
    if (hash) {
        sqlite3_bind_int64(*slot, 1, id);
        sqlite3_bind_blob(*slot, 2, hash, 2 * sizeof *hash, SQLITE_TRANSIENT);
    }
    return *slot;
}

lk_status lk_features_get(lk_features *f, int64_t id, const uint64_t hash[2], uint8_t **bytes, size_t *size)
{
    *bytes = NULL;
    *size = 0;
    sqlite3_stmt *st = statement(f, GET, id, hash);
    if (!st) return LK_IO;
    int code = sqlite3_step(st);
    lk_status s = LK_OK;
    if (code == SQLITE_ROW) {
        const void *found = sqlite3_column_blob(st, 1);
        *size = (size_t)sqlite3_column_bytes(st, 1);
        if (*size == 0 || !found || (int64_t)lk_hash(found, *size).low != sqlite3_column_int64(st, 0))
            s = lk_fail(LK_CORRUPT, "%s: the features of picture %" PRId64 " do not match their checksum", f->path, id);
        else if (!(*bytes = lk_alloc(*size, 1)))
            s = lk_fail_memory("local features");
        else
            memcpy(*bytes, found, *size);
    } else {
        s = code == SQLITE_DONE ? LK_NOT_FOUND : failure(f, code);
    }
    sqlite3_reset(st);
    return s;
}

bool lk_features_has(lk_features *f, int64_t id, const uint64_t hash[2])
{
    sqlite3_stmt *st = statement(f, HAS, id, hash);
    bool found = st && sqlite3_step(st) == SQLITE_ROW;
    if (st) sqlite3_reset(st);
    return found;
}

static lk_status run(lk_features *f, sqlite3_stmt *st)
{
    int code = st ? sqlite3_step(st) : SQLITE_ERROR;
    if (st) sqlite3_reset(st);
    return code == SQLITE_DONE ? LK_OK : st ? failure(f, code) : LK_IO;
}

static lk_status put_row(lk_features *f, const lk_features_row *row)
{
    sqlite3_stmt *st = statement(f, PUT, row->id, row->hash);
    if (st) {
        sqlite3_bind_int64(st, 3, (int64_t)lk_hash(row->bytes, row->size).low);
        sqlite3_bind_blob64(st, 4, row->bytes, row->size, SQLITE_STATIC);
    }
    return run(f, st);
}

/* The oldest go until the rest is within the limit. */
static lk_status shrink(lk_features *f)
{
    lk_status s = LK_OK;
    while (s == LK_OK && lk_features_size(f) > f->limit && number_of(f, "SELECT number FROM features LIMIT 1") >= 0)
        s = run(f, statement(f, OLDEST, 0, NULL));
    return s;
}

static lk_status finish(lk_features *f, lk_status s)
{
    if (s == LK_OK) s = execute(f, "COMMIT");
    if (s != LK_OK && sqlite3_get_autocommit(f->db) == 0) sqlite3_exec(f->db, "ROLLBACK", NULL, NULL, NULL);
    return s;
}

lk_status lk_features_set_limit(lk_features *f, uint64_t bytes)
{
    char text[64];
    uint64_t before = f->limit;
    snprintf(text, sizeof text, "UPDATE settings SET bytes_limit=%" PRIu64, bytes > INT64_MAX ? INT64_MAX : bytes);
    lk_status s = execute(f, "BEGIN IMMEDIATE");
    if (s == LK_OK) s = execute(f, text);
    f->limit = bytes ? bytes : LK_FEATURES_LIMIT;
    if (s == LK_OK) s = shrink(f);
    s = finish(f, s);
    if (s != LK_OK) f->limit = before;
    return s;
}

lk_status lk_features_put(lk_features *f, const lk_features_row *rows, size_t n)
{
    if (n == 0 || f->fixed) return LK_OK;
    lk_status s = execute(f, "BEGIN IMMEDIATE");
    for (size_t i = 0; s == LK_OK && i < n; i++) s = put_row(f, &rows[i]);
    if (s == LK_OK) s = shrink(f);
    return finish(f, s);
}

lk_status lk_features_add(lk_features *f, const lk_features_row *rows, size_t n, size_t *added)
{
    *added = 0;
    if (n == 0) return LK_OK;
    lk_status s = execute(f, "BEGIN IMMEDIATE");
    for (bool full = false; s == LK_OK && !full && *added < n;) {
        s = put_row(f, &rows[*added]);
        if (s != LK_OK) break;
        full = lk_features_size(f) > f->limit;
        if (full)
            s = run(f, statement(f, REMOVE, rows[*added].id, rows[*added].hash));
        else
            ++*added;
    }
    s = finish(f, s);
    if (s != LK_OK) *added = 0;
    return s;
}

/* Opens what is there already; *out stays NULL when there is nothing, or only what a process left that was killed
 * before it had made the tables. */
static lk_status open_present(const char *path, lk_features **out)
{
    int64_t version;
    *out = NULL;
    lk_features *f = allocate(path);
    if (!f) return LK_NO_MEMORY;
    lk_status s = lk_path_exists(f->path) ? open_file(f, false) : LK_NOT_FOUND;
    if (s == LK_OK) s = check_version(f, LK_FEATURES_NEWEST, &version);
    if (s == LK_OK && version == 0) s = LK_NOT_FOUND;
    if (s == LK_OK)
        *out = f;
    else
        lk_features_close(f);
    return s == LK_NOT_FOUND ? LK_OK : s;
}

lk_status lk_features_prune(const char *path)
{
    lk_features *f;
    sqlite3_stmt *st = NULL;
    char *catalog = NULL;
    lk_status s = open_present(path, &f);
    if (!f) return s;
    if (!(catalog = lk_path_join(path, "catalog.db"))) {
        s = lk_fail_memory(path);
        goto done;
    }
    int code = sqlite3_prepare_v2(f->db, "ATTACH ?1 AS catalog", -1, &st, NULL);
    if (code == SQLITE_OK) sqlite3_bind_text(st, 1, catalog, -1, SQLITE_STATIC);
    if (code != SQLITE_OK || (code = sqlite3_step(st)) != SQLITE_DONE) {
        s = failure(f, code);
        goto done;
    }
    LK_TRY(execute(
        f, "DELETE FROM features WHERE NOT EXISTS (SELECT 1 FROM catalog.images AS i WHERE i.id=features.id AND "
           "i.hash=features.hash AND i.state=0)"));
    sqlite3_reset(st);
    if (sqlite3_changes(f->db)) LK_TRY(execute(f, "VACUUM main"));
done:
    sqlite3_finalize(st);
    free(catalog);
    lk_features_close(f);
    return s;
}

static void tell(lk_report_fn report, void *user, uint64_t *problems, const char *path, const char *text)
{
    char sentence[LK_ERROR_SIZE];
    snprintf(sentence, sizeof sentence, "%s: %s (delete it: it is made anew)", path, text);
    ++*problems;
    if (report) report(user, sentence);
}

/* Runs a statement that answers with one text a problem, "ok" being none. */
static void check(lk_features *f, const char *text, lk_report_fn report, void *user, uint64_t *problems)
{
    sqlite3_stmt *st = NULL;
    int code = sqlite3_prepare_v2(f->db, text, -1, &st, NULL);
    while (code == SQLITE_OK || code == SQLITE_ROW) {
        code = sqlite3_step(st);
        const char *found = code == SQLITE_ROW ? (const char *)sqlite3_column_text(st, 0) : NULL;
        if (found && strcmp(found, "ok") != 0) tell(report, user, problems, f->path, found);
    }
    if (code != SQLITE_DONE) tell(report, user, problems, f->path, sqlite3_errmsg(f->db));
    sqlite3_finalize(st);
}

static void check_rows(lk_features *f, lk_report_fn report, void *user, uint64_t *problems)
{
    sqlite3_stmt *st = NULL;
    int code = sqlite3_prepare_v2(f->db, "SELECT id, checksum, bytes FROM features", -1, &st, NULL);
    while (code == SQLITE_OK || code == SQLITE_ROW) {
        code = sqlite3_step(st);
        if (code != SQLITE_ROW) break;
        const void *bytes = sqlite3_column_blob(st, 2);
        size_t size = (size_t)sqlite3_column_bytes(st, 2);
        if (size && (int64_t)lk_hash(bytes, size).low == sqlite3_column_int64(st, 1)) continue;
        char text[96];
        snprintf(text, sizeof text, "the features of picture %lld do not match their checksum",
                 (long long)sqlite3_column_int64(st, 0));
        tell(report, user, problems, f->path, text);
    }
    if (code != SQLITE_DONE) tell(report, user, problems, f->path, sqlite3_errmsg(f->db));
    sqlite3_finalize(st);
}

/* What opening says is left for the caller to judge. */
static lk_status check_all(const char *path, lk_report_fn report, void *user, uint64_t *problems)
{
    lk_features *f;
    uint64_t before = *problems;
    lk_status s = open_present(path, &f);
    if (!f) return s;
    check(f, "PRAGMA quick_check", report, user, problems);
    if (*problems == before) check_rows(f, report, user, problems);
    lk_features_close(f);
    return LK_OK;
}

lk_status lk_features_verify(const char *path, lk_report_fn report, void *user, uint64_t *problems)
{
    lk_status s = check_all(path, report, user, problems);
    if (s != LK_CORRUPT && s != LK_IO && s != LK_UNSUPPORTED) return s;
    ++*problems;
    if (report) report(user, lk_error_message());
    return LK_OK;
}

lk_status lk_features_damaged(const char *path, bool *damaged)
{
    uint64_t problems = 0;
    lk_status s = check_all(path, NULL, NULL, &problems);
    *damaged = problems || s == LK_CORRUPT;
    return s == LK_CORRUPT || s == LK_UNSUPPORTED ? LK_OK : s;
}

lk_status lk_features_remove(const char *path)
{
    static const char *const ends[] = {"-wal", "-shm", ""};
    lk_status s = LK_OK;
    for (size_t i = 0; s == LK_OK && i < sizeof ends / sizeof *ends; i++) {
        char *file;
        if (asprintf(&file, "%s/" LK_FEATURES_FILE "%s", path, ends[i]) < 0) return lk_fail_memory(path);
        if (unlink(file) != 0 && errno != ENOENT) s = lk_fail_errno(errno, "%s: cannot be removed", file);
        free(file);
    }
    return s;
}
