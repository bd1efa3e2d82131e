#include "store/catalog.h"

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define APPLICATION_ID 0x4c4b4353 /* "LKCS" */
#define SCHEMA_VERSION 3

/* Added by version 2, its last column by version 3. At most one row: src/store/ann.h says what it means. */
#define ANN_TABLE                                                                                                      \
    "CREATE TABLE ann(number INTEGER NOT NULL, kind TEXT NOT NULL, rows INTEGER NOT NULL, segment INTEGER NOT NULL,"   \
    "  segment_rows INTEGER NOT NULL, vectors INTEGER NOT NULL, effort INTEGER NOT NULL, recall REAL NOT NULL,"        \
    "  why TEXT NOT NULL DEFAULT '');"

/* Labels that read like numbers, for predicates such as label = 7. Older versions live with it without knowing it. */
#define NUMBER_INDEX                                                                                                   \
    "CREATE INDEX IF NOT EXISTS images_number ON images(CAST(label AS REAL))"                                          \
    "  WHERE label GLOB '*[0-9]*' AND label NOT GLOB '*[^-+.eE0-9]*';"

/* For predicates over a picture's size. They hold the pictures with vectors alone, as predicates ask for them. */
#define SIZE_INDEXES                                                                                                   \
    "CREATE INDEX IF NOT EXISTS images_bytes ON images(size) WHERE state=0;"                                           \
    "CREATE INDEX IF NOT EXISTS images_width ON images(width) WHERE state=0;"                                          \
    "CREATE INDEX IF NOT EXISTS images_height ON images(height) WHERE state=0;"

/* Labels other than `label`, for predicates: the distinct values of each, and which pictures with vectors have them; of
 * a list each member. 7, 7.0 and '7' are told apart, because as texts they differ. Triggers keep both up to date, also
 * when an older version of this program writes. A value that no picture has any more stays until a commit finds many of
 * them, or the next compaction. */
#define LABEL_TABLES                                                                                                   \
    "CREATE TABLE label_values(number INTEGER PRIMARY KEY, name TEXT NOT NULL, value NOT NULL);"                       \
    "CREATE UNIQUE INDEX label_values_value ON label_values(name, value, typeof(value));"                              \
    "CREATE INDEX label_values_number ON label_values(name, CAST(value AS REAL))"                                      \
    "  WHERE value GLOB '*[0-9]*' AND value NOT GLOB '*[^-+.eE0-9]*';"                                                 \
    "CREATE TABLE label_images(value INTEGER NOT NULL, image INTEGER NOT NULL, PRIMARY KEY(value, image))"             \
    "  WITHOUT ROWID;"
/* LK_SQL_LABELS for writers, whom one row that is damaged must not keep from writing: whatever is no JSON has no
 * labels.
 */
#define SOUND_LABELS(row) "CASE WHEN json_valid(" row ".labels) THEN " row ".labels ELSE '{}' END"
/* image, name, value of each label of a row, or of all rows of a table */
#define LABELS_OF(table, row)                                                                                          \
    "(SELECT " row ".id AS image, key AS name, value FROM " table "json_each(" SOUND_LABELS(                           \
        row) ")"                                                                                                       \
             "  WHERE type NOT IN ('array','object','null') AND key<>'label'"                                          \
             " UNION ALL SELECT " row ".id, top.key, each.value"                                                       \
             "  FROM " table "json_each(" SOUND_LABELS(                                                                \
                 row) ") AS top, json_each(top.value) AS each"                                                         \
                      "  WHERE top.type IN ('array','object') AND each.value IS NOT NULL AND top.key<>'label') AS one"
#define THEIR_VALUES                                                                                                   \
    " CROSS JOIN label_values AS v ON v.name=one.name AND v.value=one.value AND typeof(v.value)=typeof(one.value)"
#define ADD_LABELS(table, row, condition)                                                                              \
    "INSERT OR IGNORE INTO label_values(name, value) SELECT name, value FROM " LABELS_OF(                              \
        table, row) " WHERE " condition ";"                                                                            \
                    "INSERT OR IGNORE INTO label_images SELECT v.number, image FROM " LABELS_OF(table, row)            \
                        THEIR_VALUES " WHERE " condition ";"
#define DROP_LABELS                                                                                                    \
    "DELETE FROM label_images WHERE image=old.id AND value IN"                                                         \
    " (SELECT v.number FROM " LABELS_OF("", "old") THEIR_VALUES ");"
#define LABEL_TRIGGERS                                                                                                 \
    "CREATE TRIGGER images_added AFTER INSERT ON images WHEN new.state=0 BEGIN " ADD_LABELS(                           \
        "", "new", "1") " END;"                                                                                        \
                        "CREATE TRIGGER images_removed AFTER DELETE ON images BEGIN " DROP_LABELS " END;"              \
                        "CREATE TRIGGER images_changed AFTER UPDATE OF labels, state ON images"                        \
                        " WHEN old.labels<>new.labels OR old.state<>new.state BEGIN " DROP_LABELS ADD_LABELS(          \
                            "", "new", "new.state=0") " END;"
/* What the triggers write, for all pictures that there are. */
#define INDEXED_PICTURES "(SELECT id, labels FROM images WHERE state=0) AS old, "
#define FILL_LABELS ADD_LABELS(INDEXED_PICTURES, "old", "1")
/* All of it anew, whatever of it is there: within a transaction. */
#define LABELS_ANEW                                                                                                    \
    "DROP TRIGGER IF EXISTS images_added; DROP TRIGGER IF EXISTS images_removed;"                                      \
    "DROP TRIGGER IF EXISTS images_changed;"                                                                           \
    "DROP TABLE IF EXISTS label_values; DROP TABLE IF EXISTS label_images;" LABEL_TABLES FILL_LABELS LABEL_TRIGGERS
/* Whether a picture is known to have the label `one`. */
#define IS_KNOWN                                                                                                       \
    "EXISTS(SELECT 1 FROM label_values AS v CROSS JOIN label_images AS i ON i.value=v.number AND i.image=one.image"    \
    " WHERE v.name=one.name AND v.value=one.value AND typeof(v.value)=typeof(one.value))"

static const char schema[] =
    "CREATE TABLE images("
    "  id INTEGER PRIMARY KEY AUTOINCREMENT," /* AUTOINCREMENT: an id is never used again, even after a removal */
    "  path TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, hash BLOB NOT NULL,"
    "  width INTEGER NOT NULL, height INTEGER NOT NULL, labels TEXT NOT NULL, label TEXT,"
    "  state INTEGER NOT NULL, error TEXT, segment INTEGER, row INTEGER);"
    "CREATE INDEX images_hash ON images(hash);"
    "CREATE INDEX images_label ON images(label);" NUMBER_INDEX SIZE_INDEXES LABEL_TABLES LABEL_TRIGGERS
    "CREATE TABLE segments(number INTEGER PRIMARY KEY, bytes INTEGER NOT NULL, rows INTEGER NOT NULL);"
    /* Rows of segments that nothing refers to any more. A snapshot reads these instead of every picture. */
    "CREATE TABLE dead(segment INTEGER NOT NULL, row INTEGER NOT NULL, PRIMARY KEY(segment, row)) WITHOUT "
    "ROWID;" ANN_TABLE "CREATE TABLE state(version INTEGER NOT NULL);"
    "INSERT INTO state VALUES(1);";

#define COLUMNS "id, path, size, mtime_ns, hash, width, height, labels, label, state, error"

static const char *const sql[LK_SQL_STATEMENTS] = {
    [LK_SQL_BEGIN] = "BEGIN IMMEDIATE",
    [LK_SQL_COMMIT] = "COMMIT",
    [LK_SQL_ROLLBACK] = "ROLLBACK",
    [LK_SQL_READ] = "BEGIN",
    [LK_SQL_INSERT] =
        "INSERT INTO images(path, size, mtime_ns, hash, width, height, labels, label, state, error, segment, row)"
        " VALUES(?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13)",
    [LK_SQL_REPLACE] =
        "UPDATE images SET path=?2, size=?3, mtime_ns=?4, hash=?5, width=?6, height=?7, labels=?8, label=?9,"
        " state=?10, error=?11, segment=?12, row=?13 WHERE id=?1",
    [LK_SQL_TOUCH] = "UPDATE images SET path=?2, size=?3, mtime_ns=?4, labels=?8, label=?9 WHERE id=?1",
    [LK_SQL_DELETE] = "DELETE FROM images WHERE id=?1",
    [LK_SQL_BY_ID] = "SELECT " COLUMNS " FROM images WHERE id=?1",
    [LK_SQL_BY_PATH] = "SELECT " COLUMNS " FROM images WHERE path=?1",
    [LK_SQL_BY_HASH] = "SELECT " COLUMNS " FROM images WHERE hash=?1 AND state=0 AND id>?2 ORDER BY id",
    [LK_SQL_EACH] = "SELECT " COLUMNS " FROM images WHERE id>?1 ORDER BY id",
    [LK_SQL_PLACE] = "SELECT segment, row FROM images WHERE id=?1",
    [LK_SQL_DEAD] = "INSERT OR IGNORE INTO dead VALUES(?1,?2)",
    [LK_SQL_DEAD_OF] = "SELECT row FROM dead WHERE segment=?1 ORDER BY row",
    [LK_SQL_SEGMENT_PUT] = "INSERT OR REPLACE INTO segments VALUES(?1,?2,?3)",
    [LK_SQL_SEGMENTS] = "SELECT number, bytes, rows FROM segments ORDER BY number",
    [LK_SQL_BUMP] = "UPDATE state SET version=version+1",
    [LK_SQL_VERSION] = "SELECT version FROM state",
    [LK_SQL_COUNTS] =
        "SELECT (SELECT count(*) FROM images WHERE state=0), (SELECT count(*) FROM images WHERE state<>0),"
        " (SELECT count(*) FROM dead), (SELECT count(*) FROM segments), (SELECT total(bytes) FROM segments)",
    [LK_SQL_MOVE] = "UPDATE images SET segment=?2, row=?3 WHERE id=?1",
    [LK_SQL_FORGET_SEGMENTS] = "DELETE FROM segments",
    [LK_SQL_FORGET_DEAD] = "DELETE FROM dead",
    [LK_SQL_ANN] = "SELECT number, kind, rows, segment, segment_rows, vectors, effort, recall, why FROM ann",
    [LK_SQL_ANN_2] = "SELECT number, kind, rows, segment, segment_rows, vectors, effort, recall FROM ann",
    [LK_SQL_ANN_PUT] = "INSERT INTO ann VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9)",
    [LK_SQL_FORGET_ANN] = "DELETE FROM ann",
    /* Of a file that is as large and as old as this one nothing is known: it is read anew. */
    [LK_SQL_LOSE] = "UPDATE images SET state=1, error=?2, size=0, mtime_ns=0, segment=NULL, row=NULL"
                    " WHERE id=?1",
    [LK_SQL_DEAD_BEYOND] = "DELETE FROM dead WHERE segment=?1 AND row>=?2",
    [LK_SQL_FORGET_VALUES] = "DELETE FROM label_values"
                             " WHERE NOT EXISTS(SELECT 1 FROM label_images WHERE label_images.value=number)",
    [LK_SQL_COUNT_VALUES] = "SELECT count(*) FROM label_values",
    [LK_SQL_HAS_LABEL_TABLES] =
        "SELECT count(*)=7 FROM sqlite_master WHERE name IN ('label_values','label_values_value','label_values_number',"
        " 'label_images','images_added','images_removed','images_changed')",
    /* Labels of pictures, those of them that the tables lack, and those in the tables. */
    [LK_SQL_COMPARE_LABELS] =
        "SELECT count(*), total(NOT " IS_KNOWN "), (SELECT count(*) FROM label_images)"
        " FROM (SELECT DISTINCT image, name, value, typeof(value) FROM " LABELS_OF(INDEXED_PICTURES, "old") ") AS one",
    [LK_SQL_READS_LABELS] = "SELECT json_valid(?1)",
    [LK_SQL_SELECT_BEGIN] = "SAVEPOINT selection", /* a transaction of its own, or within the one that is open */
    [LK_SQL_SELECT_END] = "RELEASE selection",
    [LK_SQL_PLACES] = "SELECT id, segment, row FROM images WHERE state=0 ORDER BY id",
};

lk_status lk_catalog_fail(lk_catalog *catalog, int code)
{
    const char *text = catalog->db ? sqlite3_errmsg(catalog->db) : sqlite3_errstr(code);
    switch (code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return lk_fail(LK_CORRUPT,
                       "%s: the catalog is damaged (%s): restore it from a backup or index the pictures anew",
                       catalog->path, text);
    case SQLITE_FULL:
        return lk_fail(LK_IO, "%s: the disk is full: free some space and run the same command again", catalog->path);
    case SQLITE_BUSY:
    case SQLITE_LOCKED: return lk_fail(LK_CONFLICT, "%s: another process keeps the catalog locked", catalog->path);
    case SQLITE_NOMEM: return lk_fail_memory(catalog->path);
    case SQLITE_CONSTRAINT:
        return lk_fail(LK_CONFLICT, "%s: the path belongs to another picture (%s)", catalog->path, text);
    case SQLITE_TOOBIG: return lk_fail(LK_LIMIT, "%s: a text is too long to store", catalog->path);
    default: return lk_fail(LK_IO, "%s: %s", catalog->path, text);
    }
}

static lk_status execute(lk_catalog *catalog, const char *text)
{
    int code = sqlite3_exec(catalog->db, text, NULL, NULL, NULL);
    return code == SQLITE_OK ? LK_OK : lk_catalog_fail(catalog, sqlite3_extended_errcode(catalog->db));
}

static int pragma_value(sqlite3 *db, const char *text)
{
    sqlite3_stmt *statement = NULL;
    int value = -1;
    if (sqlite3_prepare_v2(db, text, -1, &statement, NULL) == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW)
        value = sqlite3_column_int(statement, 0);
    sqlite3_finalize(statement);
    return value;
}

lk_status lk_catalog_create(const char *path)
{
    lk_catalog catalog = {.path = (char *)path};
    lk_status s = LK_OK;
    int code =
        sqlite3_open_v2(path, &catalog.db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
    if (code != SQLITE_OK) {
        s = lk_catalog_fail(&catalog, code);
        goto done;
    }
    char text[128];
    LK_TRY(execute(&catalog, "PRAGMA journal_mode=WAL"));
    LK_TRY(execute(&catalog, "PRAGMA synchronous=FULL"));
    LK_TRY(execute(&catalog, "BEGIN"));
    snprintf(text, sizeof text, "PRAGMA application_id=%d; PRAGMA user_version=%d;", APPLICATION_ID, SCHEMA_VERSION);
    LK_TRY(execute(&catalog, text));
    LK_TRY(execute(&catalog, schema));
    LK_TRY(execute(&catalog, "COMMIT"));
done:
    sqlite3_close(catalog.db);
    return s;
}

/* Readers too open a WAL database for writing, because they share its index file. Where the folder is read-only that is
 * impossible, and needless if no log of an unfinished writer lies there: then the file alone is the whole truth. */
static int open_database(lk_catalog *catalog, lk_access access)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_URI;
    int code = sqlite3_open_v2(catalog->path, &catalog->db, flags, NULL);
    if (code == SQLITE_OK) {
        sqlite3_busy_timeout(catalog->db, 10000);
        code = sqlite3_exec(catalog->db, "SELECT version FROM state", NULL, NULL, NULL);
    }
    int kind = code & 0xff;
    if (access == LK_WRITE || (kind != SQLITE_READONLY && kind != SQLITE_CANTOPEN)) return code;
    char *log = NULL, *uri = NULL;
    if (asprintf(&log, "%s-wal", catalog->path) < 0) log = NULL;
    if (log && !lk_path_exists(log) && asprintf(&uri, "file:%s?immutable=1", catalog->path) < 0) uri = NULL;
    if (uri && !strpbrk(catalog->path, "?#%")) {
        sqlite3_close(catalog->db);
        catalog->db = NULL;
        code = sqlite3_open_v2(uri, &catalog->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_URI, NULL);
    }
    free(log);
    free(uri);
    return code;
}

lk_status lk_catalog_has_label_tables(lk_catalog *catalog, bool *out)
{
    sqlite3_stmt *st = lk_catalog_statement(catalog, LK_SQL_HAS_LABEL_TABLES);
    *out = false;
    if (!st) return LK_IO;
    int code = sqlite3_step(st);
    *out = code == SQLITE_ROW && sqlite3_column_int(st, 0);
    sqlite3_reset(st);
    return code == SQLITE_ROW ? LK_OK : lk_catalog_fail(catalog, code);
}

lk_status lk_catalog_compare_labels(lk_catalog *catalog, uint64_t *lacking, uint64_t *surplus)
{
    bool tables;
    *lacking = *surplus = 0;
    lk_status s = lk_catalog_has_label_tables(catalog, &tables);
    if (s != LK_OK || !tables) return s;
    sqlite3_stmt *st = lk_catalog_statement(catalog, LK_SQL_COMPARE_LABELS);
    if (!st) return LK_IO;
    int code = sqlite3_step(st);
    if (code == SQLITE_ROW) {
        *lacking = (uint64_t)sqlite3_column_int64(st, 1);
        *surplus = (uint64_t)(sqlite3_column_int64(st, 2) - (sqlite3_column_int64(st, 0) - (int64_t)*lacking));
    }
    sqlite3_reset(st);
    return code == SQLITE_ROW ? LK_OK : lk_catalog_fail(catalog, code);
}

lk_status lk_catalog_make_labels(lk_catalog *catalog)
{
    return execute(catalog, LABELS_ANEW);
}

/* Brings the catalog of an older version up to date. Readers leave it as it is. The indexes and the tables of labels
 * are no new version of the schema: older programs live with them without knowing them. */
static lk_status upgrade(lk_catalog *catalog)
{
    bool tables;
    lk_status s = execute(catalog, NUMBER_INDEX SIZE_INDEXES);
    if (s == LK_OK) s = lk_catalog_has_label_tables(catalog, &tables);
    if (s == LK_OK && !tables) s = execute(catalog, "BEGIN IMMEDIATE; " LABELS_ANEW " COMMIT;");
    if (s != LK_OK || catalog->schema >= SCHEMA_VERSION) return s;
    s = execute(catalog, catalog->schema < 2
                             ? "BEGIN IMMEDIATE; " ANN_TABLE " PRAGMA user_version=3; COMMIT;"
                             : "BEGIN IMMEDIATE; ALTER TABLE ann ADD COLUMN why TEXT NOT NULL DEFAULT '';"
                               "PRAGMA user_version=3; COMMIT;");
    if (s == LK_OK) catalog->schema = SCHEMA_VERSION;
    return s;
}

lk_status lk_catalog_open(const char *path, lk_access access, lk_catalog *out)
{
    *out = (lk_catalog){.path = strdup(path)};
    if (!out->path) return lk_fail_memory(path);
    lk_status s = LK_OK;
    int code = open_database(out, access);
    if (code != SQLITE_OK) {
        s = lk_catalog_fail(out, code);
        goto done;
    }
    if (pragma_value(out->db, "PRAGMA application_id") != APPLICATION_ID) {
        s = lk_fail(LK_CORRUPT, "%s: is not the catalog of a collection", path);
    } else if ((out->schema = pragma_value(out->db, "PRAGMA user_version")) > SCHEMA_VERSION) {
        s = lk_fail(LK_UNSUPPORTED, "%s: was written by a newer version of this program: use that one", path);
    }
    if (s == LK_OK && access == LK_WRITE) s = upgrade(out);
    if (s == LK_OK) s = execute(out, access == LK_WRITE ? "PRAGMA synchronous=FULL" : "PRAGMA query_only=1");
done:
    if (s != LK_OK) lk_catalog_close(out);
    return s;
}

void lk_catalog_close(lk_catalog *catalog)
{
    for (int i = 0; i < LK_SQL_STATEMENTS; i++) sqlite3_finalize(catalog->statements[i]);
    sqlite3_close(catalog->db);
    free(catalog->path);
    *catalog = (lk_catalog){0};
}

sqlite3_stmt *lk_catalog_statement(lk_catalog *catalog, int which)
{
    sqlite3_stmt **slot = &catalog->statements[which];
    if (*slot) {
        sqlite3_reset(*slot);
        sqlite3_clear_bindings(*slot);
    } else {
        int code = sqlite3_prepare_v3(catalog->db, sql[which], -1, SQLITE_PREPARE_PERSISTENT, slot, NULL);
        if (code != SQLITE_OK) lk_catalog_fail(catalog, code);
    }
    return *slot;
}

lk_status lk_catalog_run(lk_catalog *catalog, sqlite3_stmt *statement)
{
    if (!statement) return LK_IO; /* lk_catalog_statement has said why */
    int code = sqlite3_step(statement);
    lk_status s = code == SQLITE_DONE || code == SQLITE_ROW ? LK_OK : lk_catalog_fail(catalog, code);
    sqlite3_reset(statement);
    return s;
}

lk_status lk_catalog_simple(lk_catalog *catalog, int which)
{
    return lk_catalog_run(catalog, lk_catalog_statement(catalog, which));
}

void lk_catalog_read(sqlite3_stmt *st, lk_record *out)
{
    *out = (lk_record){.id = sqlite3_column_int64(st, 0),
                       .path = (const char *)sqlite3_column_text(st, 1),
                       .size = (uint64_t)sqlite3_column_int64(st, 2),
                       .mtime_ns = sqlite3_column_int64(st, 3),
                       .width = (uint32_t)sqlite3_column_int64(st, 5),
                       .height = (uint32_t)sqlite3_column_int64(st, 6),
                       .labels = (const char *)sqlite3_column_text(st, 7),
                       .label = (const char *)sqlite3_column_text(st, 8),
                       .state = sqlite3_column_int(st, 9) == 0 ? LK_PICTURE_INDEXED : LK_PICTURE_SKIPPED,
                       .error = (const char *)sqlite3_column_text(st, 10)};
    if (sqlite3_column_bytes(st, 4) == sizeof out->hash)
        memcpy(out->hash, sqlite3_column_blob(st, 4), sizeof out->hash);
}

lk_status lk_catalog_segments(lk_catalog *catalog, lk_segment_row **out, size_t *count)
{
    *out = NULL;
    *count = 0;
    size_t capacity = 0;
    sqlite3_stmt *st = lk_catalog_statement(catalog, LK_SQL_SEGMENTS);
    if (!st) return LK_IO;
    int code;
    while ((code = sqlite3_step(st)) == SQLITE_ROW) {
        if (!lk_grow((void **)out, &capacity, *count + 1, sizeof **out)) {
            sqlite3_reset(st);
            free(*out);
            *out = NULL;
            return lk_fail_memory("segments");
        }
        (*out)[(*count)++] = (lk_segment_row){.number = (uint64_t)sqlite3_column_int64(st, 0),
                                              .bytes = (uint64_t)sqlite3_column_int64(st, 1),
                                              .rows = (uint64_t)sqlite3_column_int64(st, 2)};
    }
    lk_status s = code == SQLITE_DONE ? LK_OK : lk_catalog_fail(catalog, code);
    sqlite3_reset(st);
    if (s != LK_OK) {
        free(*out);
        *out = NULL;
    }
    return s;
}
