/* The life of a collection, and writing to it.
 *
 * A batch is a SQLite transaction that opens with its first change. Vectors gather in memory, go to the growing segment
 * in blocks, and are on disk before the transaction commits: the commit is the one moment at which the batch becomes
 * real. A crash before it leaves bytes beyond the committed length, which nobody reads and the next writer cuts off. */
#include "store/collection.h"
#include "store/blocks.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/workplace.h"
#include "store/ann.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Blocks that are not in their table before it is written anew, which takes two flushes of a disk. */
enum { UNTABLED_MOST = 64 };
/* Values of labels of which any number may be without a picture. */
enum { VALUES_LEAST = 1000 };

char *lk_collection_segment_path(const lk_collection *c, uint64_t number)
{
    char *out;
    return asprintf(&out, "%s/vectors/%06llu.seg", c->path, (unsigned long long)number) < 0 ? NULL : out;
}

lk_collection_config lk_collection_config_of(const lk_collection *c)
{
    lk_collection_config config = c->manifest.config;
    config.model_dir = c->model_dir;
    return config;
}

const char *lk_collection_path(const lk_collection *c)
{
    return c->path;
}

const char *lk_collection_model_dir(const lk_collection *c)
{
    return c->model_dir;
}

/* ---- creating ---- */

static lk_status make_folder(const char *parent, const char *name)
{
    char *path = lk_path_join(parent, name);
    if (!path) return lk_fail_memory(parent);
    lk_status s = mkdir(path, 0777) == 0 ? LK_OK : lk_fail_errno(errno, "%s: cannot be created", path);
    free(path);
    return s;
}

static void now_text(char out[32])
{
    time_t t = time(NULL);
    struct tm utc;
    strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&t, &utc));
}

/* Fills an empty folder with all that makes a collection. */
static lk_status furnish(const char *folder, const lk_collection_config *config)
{
    char created[32], *manifest_path = lk_path_join(folder, "MANIFEST"), *catalog = lk_path_join(folder, "catalog.db");
    char *model = lk_path_join(folder, "model");
    lk_status s = manifest_path && catalog && model ? LK_OK : lk_fail_memory(folder);
    if (s != LK_OK) goto done;
    now_text(created);
    lk_manifest manifest = {.config = *config, .created = created};
    LK_TRY(make_folder(folder, "vectors"));
    LK_TRY(lk_catalog_create(catalog));
    LK_TRY(lk_manifest_write(manifest_path, &manifest));
    if (config->model_dir && rename(config->model_dir, model) != 0) {
        s = lk_fail_errno(errno, "%s: cannot be moved to %s", config->model_dir, model);
        goto done;
    }
    s = lk_folder_sync(folder);
done:
    free(manifest_path);
    free(catalog);
    free(model);
    return s;
}

/* The model is not ours to delete. */
static void give_model_back(const char *folder, const lk_collection_config *config)
{
    char *model = lk_path_join(folder, "model");
    if (model && config->model_dir && rename(model, config->model_dir) != 0) {
        /* It had not been moved in yet, or the collection is in its place. */
    }
    free(model);
}

lk_status lk_collection_create(const char *path, const lk_collection_config *config, lk_collection **out)
{
    *out = NULL;
    if (config->dim == 0 || config->dim > 65536 || !config->embedder_id || !config->embedder_name)
        return lk_fail(LK_INVALID, "%s: a collection needs a width from 1 to 65536 and the name of its embedder", path);
    if (lk_path_exists(path)) return lk_fail(LK_CONFLICT, "%s: exists already", path);
    /* Made whole beside its place and then moved there: nobody ever sees half a collection. */
    lk_workplace workplace = {0};
    char *absolute = NULL; /* without a slash at its end: it is the folder above that is flushed */
    lk_status s;
    LK_TRY(lk_path_absolute(path, &absolute));
    LK_TRY(lk_workplace_open(path, &workplace));
    LK_TRY(furnish(workplace.path, config));
    LK_TRY(lk_file_move(workplace.path, absolute));
    s = lk_collection_open(path, LK_WRITE, out);
done:
    if (s != LK_OK && workplace.path) give_model_back(workplace.path, config);
    lk_workplace_close(&workplace);
    free(absolute);
    return s;
}

/* ---- opening ---- */

/* The lock is the kernel's (flock): it goes with the process that holds it, however that ends. The text inside only
 * serves the message of whoever comes second. */
static lk_status take_lock(lk_collection *c)
{
    char *path = lk_path_join(c->path, "LOCK"), text[64] = "";
    if (!path) return lk_fail_memory(c->path);
    lk_status s = LK_OK;
    c->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (c->lock < 0) {
        s = lk_fail_errno(errno, "%s: cannot be opened for writing", path);
    } else if (flock(c->lock, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK) {
            ssize_t n = pread(c->lock, text, sizeof text - 1, 0);
            text[n > 0 ? n : 0] = 0;
            text[strcspn(text, "\n")] = 0;
            s = lk_fail(LK_CONFLICT, "%s is being written by %s: wait until it is done, or stop it", c->path,
                        *text ? text : "another process");
        } else {
            s = lk_fail_errno(errno, "%s: cannot be locked", path);
        }
        close(c->lock);
        c->lock = -1;
    } else {
        int n = snprintf(text, sizeof text, "process %ld\n", (long)getpid());
        if (ftruncate(c->lock, 0) != 0 || pwrite(c->lock, text, (size_t)n, 0) != n) {
            /* Only the name in a message is lost: a full disk must not keep pictures from being removed. */
        }
    }
    free(path);
    return s;
}

lk_status lk_collection_drop_orphans(lk_collection *c)
{
    lk_segment_row *known = NULL;
    size_t count = 0;
    lk_status s = lk_catalog_segments(&c->catalog, &known, &count);
    if (s != LK_OK) return s;
    char *folder = lk_path_join(c->path, "vectors");
    DIR *dir = folder ? opendir(folder) : NULL;
    for (struct dirent *e; dir && (e = readdir(dir));) {
        unsigned long long number = 0;
        int end = 0;
        if (e->d_name[0] == '.' || sscanf(e->d_name, "%llu.%n", &number, &end) != 1 || end == 0) continue;
        const char *kind = e->d_name + end;
        if (strncmp(kind, "seg", 3) != 0 && strncmp(kind, "blocks", 6) != 0) continue;
        bool wanted = false, whole = strcmp(kind, "seg") == 0 || strcmp(kind, "blocks") == 0;
        for (size_t i = 0; whole && i < count; i++) wanted |= known[i].number == number;
        if (!wanted)
            unlinkat(dirfd(dir), e->d_name, 0); /* a leftover of a killed writer: it does no harm if it stays */
    }
    if (dir) closedir(dir);
    free(folder);
    free(known);
    return LK_OK;
}

static void table_blocks(lk_collection *c, size_t least, size_t segments)
{
    lk_segment_row *rows = NULL;
    size_t count = 0;
    if (lk_catalog_segments(&c->catalog, &rows, &count) != LK_OK) return;
    for (size_t i = count > segments ? count - segments : 0; i < count; i++) {
        char *path = lk_collection_segment_path(c, rows[i].number);
        if (path)
            lk_block_table_update(path, rows[i].number, rows[i].bytes, c->manifest.config.dim, c->manifest.config.dtype,
                                  least, &c->untabled);
        free(path);
    }
    free(rows);
}

void lk_collection_table_blocks(lk_collection *c, size_t least)
{
    table_blocks(c, least, SIZE_MAX);
}

/* Cuts off what a killed writer left, and finds where to go on. */
static lk_status recover(lk_collection *c, bool damaged)
{
    lk_segment_row *rows = NULL;
    size_t count = 0;
    char *path = NULL;
    lk_status s;
    /* A writer killed in the last moment of its commit may leave a transaction in SQLite's log that we do not see now,
     * but that the next process to read the whole log would find and make real. Whatever its vectors were must
     * therefore not be touched before a commit of our own has taken its place in the log. */
    LK_TRY(lk_catalog_simple(&c->catalog, LK_SQL_BEGIN));
    LK_TRY(lk_catalog_simple(&c->catalog, LK_SQL_BUMP));
    LK_TRY(lk_catalog_simple(&c->catalog, LK_SQL_COMMIT));
    LK_TRY(lk_collection_drop_orphans(c));
    LK_TRY(lk_ann_drop_orphans(c));
    lk_atomic_sweep(c->path, "MANIFEST");
    lk_atomic_sweep(c->path, "neighbours.knn");
    lk_workplace_sweep(c->path);
    LK_TRY(lk_catalog_segments(&c->catalog, &rows, &count));
    c->current = count ? rows[count - 1] : (lk_segment_row){0};
    if (count && !damaged) {
        struct stat st;
        path = lk_collection_segment_path(c, c->current.number);
        if (!path) {
            s = lk_fail_memory(c->path);
            goto done;
        }
        if (stat(path, &st) != 0) {
            s = lk_fail_errno(errno, "%s: is missing; `verify` says what is lost, `verify --repair` goes on without it",
                              path);
            goto done;
        }
        if ((uint64_t)st.st_size < c->current.bytes) {
            s = lk_fail(LK_CORRUPT,
                        "%s: has %lld bytes where %llu were written: the file was cut short; `verify` says what is "
                        "lost, `verify "
                        "--repair` goes on without it",
                        path, (long long)st.st_size, (unsigned long long)c->current.bytes);
            goto done;
        }
        if ((uint64_t)st.st_size > c->current.bytes && truncate(path, (off_t)c->current.bytes) != 0)
            s = lk_fail_errno(errno, "%s: the leftover of an unfinished run cannot be cut off", path);
    }
    /* The catalog is the truth: a manifest that was not replaced in time is made anew. */
    bool same = count == c->manifest.segment_count;
    for (size_t i = 0; same && i < count; i++) same = rows[i].number == c->manifest.segments[i].number;
    if (s == LK_OK && !same) s = lk_collection_write_manifest(c);
done:
    free(path);
    free(rows);
    return s;
}

static lk_status open_collection(const char *path, lk_access access, bool damaged, lk_collection **out)
{
    *out = NULL;
    lk_collection *c = lk_alloc_zero(1, sizeof *c);
    if (!c) return lk_fail_memory(path);
    c->lock = -1;
    c->access = access;
    char *catalog = NULL;
    lk_status s = lk_path_absolute(path, &c->path);
    if (s != LK_OK) goto done;
    catalog = lk_path_join(c->path, "catalog.db");
    c->model_dir = lk_path_join(c->path, "model");
    c->manifest_path = lk_path_join(c->path, "MANIFEST");
    if (!catalog || !c->model_dir || !c->manifest_path) {
        s = lk_fail_memory(path);
        goto done;
    }
    if (!lk_path_exists(c->path)) {
        s = lk_fail(LK_NOT_FOUND, "%s: no such collection", path);
        goto done;
    }
    if (!lk_path_exists(c->manifest_path)) {
        s = lk_fail(LK_NOT_FOUND, "%s: is not a collection (it has no MANIFEST)", path);
        goto done;
    }
    if (access == LK_WRITE) LK_TRY(take_lock(c));
    LK_TRY(lk_manifest_read(c->manifest_path, &c->manifest));
    LK_TRY(lk_catalog_open(catalog, access, &c->catalog));
    if (access == LK_WRITE && !damaged) {
        LK_TRY(recover(c, false));
        lk_collection_table_blocks(c, UNTABLED_MOST); /* of a collection that an older version wrote */
    }
    *out = c;
    c = NULL;
done:
    free(catalog);
    lk_collection_close(c);
    return s;
}

lk_status lk_collection_open(const char *path, lk_access access, lk_collection **out)
{
    return open_collection(path, access, false, out);
}

lk_status lk_collection_open_again(const lk_collection *c, lk_collection **out)
{
    lk_status s = open_collection(c->path, LK_READ, false, out);
    if (s != LK_OK) return s;
    const lk_manifest *a = &c->manifest, *b = &(*out)->manifest;
    if (strcmp(a->created, b->created) == 0 && strcmp(a->config.embedder_id, b->config.embedder_id) == 0) return LK_OK;
    lk_collection_close(*out);
    *out = NULL;
    return lk_fail(LK_CONFLICT, "%s: another collection has taken the place of the one that was opened", c->path);
}

lk_status lk_collection_recover(lk_collection *c)
{
    return recover(c, true);
}

lk_status lk_collection_open_damaged(const char *path, lk_collection **out)
{
    return open_collection(path, LK_WRITE, true, out);
}

void lk_collection_close(lk_collection *c)
{
    if (!c) return;
    lk_catalog_close(&c->catalog); /* rolls an open transaction back */
    lk_manifest_free(&c->manifest);
    free(c->pending.ids);
    free(c->pending.scales);
    free(c->pending.codes);
    if (c->lock >= 0) close(c->lock);
    free(c->path);
    free(c->model_dir);
    free(c->manifest_path);
    free(c);
}

lk_status lk_collection_write_manifest(lk_collection *c)
{
    free(c->manifest.segments);
    c->manifest.segments = NULL;
    c->manifest.segment_count = 0;
    lk_status s = lk_catalog_segments(&c->catalog, &c->manifest.segments, &c->manifest.segment_count);
    return s == LK_OK ? lk_manifest_write(c->manifest_path, &c->manifest) : s;
}

/* ---- writing ---- */

lk_status lk_collection_for_writing(lk_collection *c)
{
    return c->access == LK_WRITE ? LK_OK : lk_fail(LK_INVALID, "%s was opened for reading alone", c->path);
}

static lk_status begin(lk_collection *c)
{
    lk_status s = lk_collection_for_writing(c);
    if (s != LK_OK || c->in_batch) return s;
    s = lk_catalog_simple(&c->catalog, LK_SQL_BEGIN);
    if (s == LK_OK) c->in_batch = true;
    return s;
}

/* Opens the segment that grows, a new one when there is none or the present one is long. */
static lk_status current_segment(lk_collection *c)
{
    if (c->current.number && c->current.bytes < LK_SEGMENT_BYTES) return LK_OK;
    lk_segment_row fresh = {.number = c->current.number + 1, .bytes = LK_SEGMENT_HEADER};
    char *path = lk_collection_segment_path(c, fresh.number);
    if (!path) return lk_fail_memory(c->path);
    lk_status s = lk_segment_create(path, fresh.number, c->manifest.config.dim, c->manifest.config.dtype);
    free(path);
    if (s != LK_OK) return s;
    c->current = fresh;
    c->current_is_new = true;
    return LK_OK;
}

/* Puts what is pending behind the current segment. */
static lk_status flush(lk_collection *c)
{
    lk_pending *p = &c->pending;
    if (p->rows == 0) return LK_OK;
    char *path = lk_collection_segment_path(c, c->current.number);
    if (!path) return lk_fail_memory(c->path);
    uint64_t end = 0;
    lk_status s = lk_segment_append(path, c->current.bytes, c->manifest.config.dim, c->manifest.config.dtype, p->rows,
                                    p->ids, p->scales, p->codes, &end);
    free(path);
    if (s != LK_OK) return s;
    c->current.bytes = end;
    c->current.rows += p->rows;
    c->untabled++;
    p->rows = 0;
    sqlite3_stmt *st = lk_catalog_statement(&c->catalog, LK_SQL_SEGMENT_PUT);
    if (!st) return LK_IO;
    sqlite3_bind_int64(st, 1, (sqlite3_int64)c->current.number);
    sqlite3_bind_int64(st, 2, (sqlite3_int64)c->current.bytes);
    sqlite3_bind_int64(st, 3, (sqlite3_int64)c->current.rows);
    return lk_catalog_run(&c->catalog, st);
}

/* Encodes a vector into the pending rows; *row is its place in the current segment. */
static lk_status add_vector(lk_collection *c, const float *vector, uint64_t *row)
{
    const lk_collection_config *config = &c->manifest.config;
    lk_pending *p = &c->pending;
    lk_status s = LK_OK;
    if (p->rows == LK_BLOCK_ROWS) s = flush(c);
    if (s == LK_OK && p->rows == 0) s = current_segment(c);
    if (s != LK_OK) return s;
    size_t width = lk_dtype_bytes(config->dtype, config->dim);
    if (p->rows == p->capacity) {
        size_t wanted = p->capacity ? 2 * p->capacity : 64;
        uint64_t *ids = realloc(p->ids, wanted * sizeof *ids);
        if (ids) p->ids = ids;
        float *scales = realloc(p->scales, wanted * sizeof *scales);
        if (scales) p->scales = scales;
        uint8_t *codes = realloc(p->codes, wanted * width);
        if (codes) p->codes = codes;
        if (!ids || !scales || !codes) return lk_fail_memory("batch of vectors");
        p->capacity = wanted;
    }
    s = lk_vectors_encode(config->dtype, config->dim, 1, vector, config->metric == LK_COSINE,
                          p->codes + p->rows * width, config->dtype == LK_I8 ? p->scales + p->rows : NULL);
    *row = c->current.rows + p->rows;
    return s;
}

/* Where the vector of a picture lies; segment 0 = it has none. */
typedef struct place {
    sqlite3_int64 segment, row;
} place;

static lk_status place_of(lk_collection *c, int64_t id, place *out)
{
    *out = (place){0};
    sqlite3_stmt *st = lk_catalog_statement(&c->catalog, LK_SQL_PLACE);
    if (!st) return LK_IO;
    sqlite3_bind_int64(st, 1, id);
    int code = sqlite3_step(st);
    if (code == SQLITE_ROW && sqlite3_column_type(st, 0) != SQLITE_NULL)
        *out = (place){sqlite3_column_int64(st, 0), sqlite3_column_int64(st, 1)};
    sqlite3_reset(st);
    return code == SQLITE_ROW || code == SQLITE_DONE ? LK_OK : lk_catalog_fail(&c->catalog, code);
}

/* The vector there no longer belongs to any picture. */
static lk_status bury_vector(lk_collection *c, place at)
{
    if (at.segment == 0) return LK_OK;
    sqlite3_stmt *st = lk_catalog_statement(&c->catalog, LK_SQL_DEAD);
    if (!st) return LK_IO;
    sqlite3_bind_int64(st, 1, at.segment);
    sqlite3_bind_int64(st, 2, at.row);
    return lk_catalog_run(&c->catalog, st);
}

/* The catalog's tables of labels are made by SQLite, which reads less deeply than Jansson. */
static lk_status check_depth(lk_collection *c, const lk_record *record)
{
    sqlite3_stmt *st = lk_catalog_statement(&c->catalog, LK_SQL_READS_LABELS);
    if (!st) return LK_IO;
    sqlite3_bind_text(st, 1, record->labels, -1, SQLITE_STATIC);
    int code = sqlite3_step(st);
    lk_status s = code == SQLITE_ROW ? LK_OK : lk_catalog_fail(&c->catalog, code);
    if (s == LK_OK && !sqlite3_column_int(st, 0))
        s = lk_fail(LK_INVALID, "%s: its labels are nested too deeply", record->path);
    sqlite3_reset(st);
    return s;
}

/* Checks the strings of a record; *label receives a malloc'ed copy of the label, or NULL. */
static lk_status check_record(lk_collection *c, const lk_record *record, char **label)
{
    *label = NULL;
    if (!record->path || !*record->path || !lk_utf8_valid(record->path))
        return lk_fail(LK_INVALID, "%s: the name is not valid UTF-8: rename the file",
                       record->path ? record->path : "");
    if (!record->labels) return LK_OK;
    json_error_t error;
    json_t *object = json_loads(record->labels, 0, &error);
    if (!json_is_object(object)) {
        json_decref(object);
        return lk_fail(LK_INVALID, "%s: its labels are not a JSON object: %s", record->path, object ? "" : error.text);
    }
    json_t *member = json_object_get(object, "label");
    lk_status s = check_depth(c, record);
    if (s == LK_OK && member && !json_is_null(member)) {
        *label = json_is_string(member) ? strdup(json_string_value(member))
                                        : json_dumps(member, JSON_ENCODE_ANY | JSON_COMPACT);
        if (!*label) s = lk_fail_memory("label");
    }
    json_decref(object);
    return s;
}

/* Writes a record: statement 1 INSERT, REPLACE or TOUCH. */
static lk_status write_record(lk_collection *c, int which, int64_t id, const lk_record *record, const char *label,
                              bool has_vector, uint64_t row)
{
    sqlite3_stmt *st = lk_catalog_statement(&c->catalog, which);
    if (!st) return LK_IO;
    if (id) sqlite3_bind_int64(st, 1, id);
    sqlite3_bind_text(st, 2, record->path, -1, SQLITE_STATIC);
    sqlite3_bind_int64(st, 3, (sqlite3_int64)record->size);
    sqlite3_bind_int64(st, 4, record->mtime_ns);
    if (which != LK_SQL_TOUCH) {
        sqlite3_bind_blob(st, 5, record->hash, sizeof record->hash, SQLITE_STATIC);
        sqlite3_bind_int64(st, 6, record->width);
        sqlite3_bind_int64(st, 7, record->height);
        sqlite3_bind_int(st, 10, record->state == LK_PICTURE_INDEXED ? 0 : 1);
        sqlite3_bind_text(st, 11, record->error, -1, SQLITE_STATIC);
        if (has_vector) {
            sqlite3_bind_int64(st, 12, (sqlite3_int64)c->current.number);
            sqlite3_bind_int64(st, 13, (sqlite3_int64)row);
        }
    }
    sqlite3_bind_text(st, 8, record->labels ? record->labels : "{}", -1, SQLITE_STATIC);
    sqlite3_bind_text(st, 9, label, -1, SQLITE_STATIC);
    return lk_catalog_run(&c->catalog, st);
}

static lk_status id_of_path(lk_collection *c, const char *path, int64_t *id)
{
    lk_record known;
    *id = 0;
    lk_status s = lk_collection_find_path(c, path, &known);
    if (s == LK_NOT_FOUND) return LK_OK;
    if (s == LK_OK) *id = known.id;
    if (s == LK_OK) lk_record_free(&known);
    return s;
}

lk_status lk_collection_put(lk_collection *c, const lk_record *record, const float *vector, int64_t *id_out)
{
    char *label = NULL;
    uint64_t row = 0;
    int64_t id = record->id;
    place old = {0};
    lk_status s = lk_collection_for_writing(c);
    if (s != LK_OK) return s;
    if ((record->state == LK_PICTURE_INDEXED) != (vector != NULL))
        return lk_fail(LK_INVALID, "%s: an indexed picture has a vector, a skipped one has none", record->path);
    LK_TRY(check_record(c, record, &label));
    LK_TRY(begin(c));
    if (!id) LK_TRY(id_of_path(c, record->path, &id));
    if (vector) LK_TRY(lk_fail_in(add_vector(c, vector, &row), "%s", record->path));
    if (id) LK_TRY(place_of(c, id, &old));
    LK_TRY(write_record(c, id ? LK_SQL_REPLACE : LK_SQL_INSERT, id, record, label, vector != NULL, row));
    if (id && sqlite3_changes(c->catalog.db) == 0) {
        s = lk_fail(LK_NOT_FOUND, "%s: no picture has the id %lld", c->path, (long long)id);
        goto done;
    }
    if (id)
        c->relabelled = true;
    else
        id = sqlite3_last_insert_rowid(c->catalog.db);
    /* Only now does the new vector take the place of the old: a record that was refused leaves all as it was. */
    LK_TRY(bury_vector(c, old));
    if (vector) c->pending.ids[c->pending.rows++] = (uint64_t)id;
    if (id_out) *id_out = id;
done:
    free(label);
    return s;
}

lk_status lk_collection_update(lk_collection *c, const lk_record *record)
{
    char *label = NULL;
    int64_t id = record->id;
    lk_status s = lk_collection_for_writing(c);
    if (s != LK_OK) return s;
    LK_TRY(check_record(c, record, &label));
    LK_TRY(begin(c));
    if (!id) LK_TRY(id_of_path(c, record->path, &id));
    c->relabelled = true;
    if (id) LK_TRY(write_record(c, LK_SQL_TOUCH, id, record, label, false, 0));
    if (!id || sqlite3_changes(c->catalog.db) == 0)
        s = lk_fail(LK_NOT_FOUND, "%s: is not in the collection", record->path);
done:
    free(label);
    return s;
}

lk_status lk_collection_remove(lk_collection *c, int64_t id)
{
    place old;
    lk_status s = begin(c);
    if (s == LK_OK) s = place_of(c, id, &old);
    if (s == LK_OK) s = bury_vector(c, old);
    sqlite3_stmt *st = s == LK_OK ? lk_catalog_statement(&c->catalog, LK_SQL_DELETE) : NULL;
    if (s != LK_OK) return s;
    if (!st) return LK_IO;
    sqlite3_bind_int64(st, 1, id);
    c->relabelled = true;
    s = lk_catalog_run(&c->catalog, st);
    if (s == LK_OK && sqlite3_changes(c->catalog.db) == 0)
        s = lk_fail(LK_NOT_FOUND, "%s: no picture has the id %lld", c->path, (long long)id);
    return s;
}

lk_status lk_collection_rollback(lk_collection *c)
{
    lk_status s = lk_collection_for_writing(c);
    if (s != LK_OK || !c->in_batch) return s;
    c->pending.rows = 0;
    c->in_batch = c->current_is_new = c->relabelled = false;
    if (sqlite3_get_autocommit(c->catalog.db) == 0) s = lk_catalog_simple(&c->catalog, LK_SQL_ROLLBACK);
    lk_segment_row *rows = NULL;
    size_t count = 0;
    if (s == LK_OK) s = lk_catalog_segments(&c->catalog, &rows, &count);
    if (s == LK_OK) c->current = count ? rows[count - 1] : (lk_segment_row){0};
    free(rows);
    return s;
}

/* Values of labels that no picture has any more make look-ups slower and nothing wrong. Looking for them takes as long
 * as there are values, so it is done when there are twice as many as the last time left, and once by each writer. */
static lk_status forget_values(lk_collection *c)
{
    if (!c->relabelled) return LK_OK;
    sqlite3_stmt *st = lk_catalog_statement(&c->catalog, LK_SQL_COUNT_VALUES);
    if (!st) return LK_IO;
    int code = sqlite3_step(st);
    uint64_t values = code == SQLITE_ROW ? (uint64_t)sqlite3_column_int64(st, 0) : 0;
    sqlite3_reset(st);
    if (code != SQLITE_ROW) return lk_catalog_fail(&c->catalog, code);
    if (values <= VALUES_LEAST || values <= c->values_most) return LK_OK;
    lk_status s = lk_catalog_simple(&c->catalog, LK_SQL_FORGET_VALUES);
    if (s == LK_OK) c->values_most = 2 * (values - (uint64_t)sqlite3_changes(c->catalog.db));
    return s;
}

lk_status lk_collection_commit(lk_collection *c)
{
    lk_status s = lk_collection_for_writing(c);
    if (s != LK_OK || !c->in_batch) return s;
    LK_TRY(flush(c));
    LK_TRY(forget_values(c));
    LK_TRY(lk_catalog_simple(&c->catalog, LK_SQL_BUMP));
    LK_TRY(lk_catalog_simple(&c->catalog, LK_SQL_COMMIT));
    c->in_batch = c->relabelled = false;
    if (c->current_is_new) {
        c->current_is_new = false;
        s = lk_collection_write_manifest(c); /* the batch is real already: this is for the next reader of MANIFEST */
    }
    if (s == LK_OK && c->untabled >= UNTABLED_MOST) table_blocks(c, UNTABLED_MOST, 2);
    return s;
done : {
    char message[LK_ERROR_SIZE]; /* what failed matters, not how well the clean-up went */
    strcpy(message, lk_error_message());
    lk_collection_rollback(c);
    return lk_fail(s, "%s", message);
}
}

/* ---- reading ---- */

void lk_record_free(lk_record *record)
{
    if (!record) return;
    free((char *)record->path); /* one block holds all strings; the path comes first */
    *record = (lk_record){0};
}

/* Copies the borrowed strings of a record into one block. */
static lk_status own_record(lk_record *record)
{
    const char **texts[] = {&record->path, &record->labels, &record->label, &record->error};
    size_t size = 0;
    for (size_t i = 0; i < 4; i++) size += *texts[i] ? strlen(*texts[i]) + 1 : 0;
    char *block = lk_alloc(size, 1);
    if (!block) return lk_fail_memory("record");
    for (size_t i = 0; i < 4; i++) {
        if (!*texts[i]) continue;
        size_t n = strlen(*texts[i]) + 1;
        memcpy(block, *texts[i], n);
        *texts[i] = block;
        block += n;
    }
    return LK_OK;
}

/* Steps a bound look-up. */
static lk_status find(lk_collection *c, sqlite3_stmt *st, lk_record *out)
{
    *out = (lk_record){0};
    int code = sqlite3_step(st);
    lk_status s;
    if (code == SQLITE_ROW) {
        lk_catalog_read(st, out);
        s = own_record(out);
        if (s != LK_OK) *out = (lk_record){0};
    } else {
        s = code == SQLITE_DONE ? lk_fail(LK_NOT_FOUND, "%s: no such picture in the collection", c->path)
                                : lk_catalog_fail(&c->catalog, code);
    }
    sqlite3_reset(st);
    return s;
}

lk_status lk_collection_find_id(lk_collection *c, int64_t id, lk_record *out)
{
    sqlite3_stmt *st = lk_catalog_statement(&c->catalog, LK_SQL_BY_ID);
    if (!st) return LK_IO;
    sqlite3_bind_int64(st, 1, id);
    lk_status s = find(c, st, out);
    return s == LK_NOT_FOUND ? lk_fail(s, "no picture has the id %lld", (long long)id) : s;
}

lk_status lk_collection_find_path(lk_collection *c, const char *path, lk_record *out)
{
    sqlite3_stmt *st = lk_catalog_statement(&c->catalog, LK_SQL_BY_PATH);
    if (!st) return LK_IO;
    sqlite3_bind_text(st, 1, path, -1, SQLITE_STATIC);
    return find(c, st, out);
}

lk_status lk_collection_find_hash(lk_collection *c, const uint64_t hash[2], int64_t after, lk_record *out)
{
    sqlite3_stmt *st = lk_catalog_statement(&c->catalog, LK_SQL_BY_HASH);
    if (!st) return LK_IO;
    sqlite3_bind_blob(st, 1, hash, 2 * sizeof *hash, SQLITE_STATIC);
    sqlite3_bind_int64(st, 2, after);
    return find(c, st, out);
}

lk_status lk_collection_each(lk_collection *c, int64_t after, lk_record_fn fn, void *user)
{
    sqlite3_stmt *st = lk_catalog_statement(&c->catalog, LK_SQL_EACH);
    if (!st) return LK_IO;
    sqlite3_bind_int64(st, 1, after);
    lk_status s = LK_OK;
    int code = SQLITE_DONE;
    while (s == LK_OK && (code = sqlite3_step(st)) == SQLITE_ROW) {
        lk_record record;
        lk_catalog_read(st, &record);
        s = fn(user, &record);
    }
    if (s == LK_OK && code != SQLITE_DONE) s = lk_catalog_fail(&c->catalog, code);
    sqlite3_reset(st);
    return s;
}

lk_status lk_collection_version(lk_collection *c, uint64_t *version)
{
    *version = 0;
    sqlite3_stmt *st = lk_catalog_statement(&c->catalog, LK_SQL_VERSION);
    if (!st) return LK_IO;
    int code = sqlite3_step(st);
    lk_status s = code == SQLITE_ROW ? LK_OK : lk_catalog_fail(&c->catalog, code);
    if (s == LK_OK) *version = (uint64_t)sqlite3_column_int64(st, 0);
    sqlite3_reset(st);
    return s;
}

lk_status lk_collection_stats_of(lk_collection *c, lk_collection_stats *out)
{
    *out = (lk_collection_stats){0};
    sqlite3_stmt *st = lk_catalog_statement(&c->catalog, LK_SQL_COUNTS);
    if (!st) return LK_IO;
    int code = sqlite3_step(st);
    lk_status s = code == SQLITE_ROW ? LK_OK : lk_catalog_fail(&c->catalog, code);
    if (s == LK_OK)
        *out = (lk_collection_stats){.indexed = (uint64_t)sqlite3_column_int64(st, 0),
                                     .skipped = (uint64_t)sqlite3_column_int64(st, 1),
                                     .dead_vectors = (uint64_t)sqlite3_column_int64(st, 2),
                                     .segments = (uint64_t)sqlite3_column_int64(st, 3),
                                     .vector_bytes = (uint64_t)sqlite3_column_double(st, 4)};
    sqlite3_reset(st);
    struct stat file;
    if (stat(c->catalog.path, &file) == 0) out->catalog_bytes = (uint64_t)file.st_size;
    return s;
}
