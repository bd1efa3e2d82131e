/* The catalog: which pictures there are, and where their vectors lie. A thin layer over SQLite; the truth of a
 * collection. */
#ifndef LK_STORE_CATALOG_H
#define LK_STORE_CATALOG_H

#include <likeness/collection.h>
#include <sqlite3.h>

/* The labels of a row, for SQLite's functions of JSON. They fail on what is nested deeper than they read (1000 or 2000
 * levels; lk_collection_put refuses it, versions before did not), which counts as no labels. Shorter texts need no
 * look: that many brackets do not fit. */
#define LK_SQL_LABELS(row)                                                                                             \
    "CASE WHEN length(" row ".labels)<2000 OR json_valid(" row ".labels) THEN " row ".labels ELSE '{}' END"

/* Statements are prepared once, at their first use. */
enum {
    LK_SQL_BEGIN,
    LK_SQL_COMMIT,
    LK_SQL_ROLLBACK,
    LK_SQL_READ,
    LK_SQL_INSERT,
    LK_SQL_REPLACE,
    LK_SQL_TOUCH,
    LK_SQL_DELETE,
    LK_SQL_BY_ID,
    LK_SQL_BY_PATH,
    LK_SQL_BY_HASH,
    LK_SQL_EACH,
    LK_SQL_PLACE,
    LK_SQL_DEAD,
    LK_SQL_DEAD_OF,
    LK_SQL_SEGMENT_PUT,
    LK_SQL_SEGMENTS,
    LK_SQL_BUMP,
    LK_SQL_VERSION,
    LK_SQL_COUNTS,
    LK_SQL_MOVE,
    LK_SQL_FORGET_SEGMENTS,
    LK_SQL_FORGET_DEAD,
    LK_SQL_ANN,
    LK_SQL_ANN_2,
    LK_SQL_ANN_PUT,
    LK_SQL_FORGET_ANN,
    LK_SQL_PLACES,
    LK_SQL_LOSE,
    LK_SQL_DEAD_BEYOND,
    LK_SQL_FORGET_VALUES,
    LK_SQL_COUNT_VALUES,
    LK_SQL_HAS_LABEL_TABLES,
    LK_SQL_COMPARE_LABELS,
    LK_SQL_READS_LABELS,
    LK_SQL_SELECT_BEGIN,
    LK_SQL_SELECT_END,
    LK_SQL_STATEMENTS
};

typedef struct lk_catalog {
    sqlite3 *db;
    char *path;
    int schema; /* version of the tables */
    sqlite3_stmt *statements[LK_SQL_STATEMENTS];
} lk_catalog;

/* Makes an empty catalog. */
lk_status lk_catalog_create(const char *path);
lk_status lk_catalog_open(const char *path, lk_access access, lk_catalog *out);
void lk_catalog_close(lk_catalog *catalog);

/* A reset statement with nothing bound. NULL, with the error set, when it cannot be prepared. */
sqlite3_stmt *lk_catalog_statement(lk_catalog *catalog, int which);
/* Runs a statement that returns no rows (bound by the caller, from lk_catalog_statement; NULL fails). */
lk_status lk_catalog_run(lk_catalog *catalog, sqlite3_stmt *statement);
lk_status lk_catalog_simple(lk_catalog *catalog, int which);
/* Whether the tables of labels are there with all that keeps them up to date: not in a collection that only older
 * versions have written to. */
lk_status lk_catalog_has_label_tables(lk_catalog *catalog, bool *out);
/* How many labels of pictures these tables lack, and how many they have that no picture has; 0 where they are not
 * there. */
lk_status lk_catalog_compare_labels(lk_catalog *catalog, uint64_t *lacking, uint64_t *surplus);
/* Makes them anew, within the open transaction. */
lk_status lk_catalog_make_labels(lk_catalog *catalog);
/* SQLite's last error in our words. */
lk_status lk_catalog_fail(lk_catalog *catalog, int code);

/* The columns of LK_SQL_BY_*, LK_SQL_EACH as a record whose strings point into the statement. */
void lk_catalog_read(sqlite3_stmt *statement, lk_record *out);

/* One row of the table of segments. */
typedef struct lk_segment_row {
    uint64_t number, bytes, rows;
} lk_segment_row;
/* All of them by number; *out is malloc'ed. */
lk_status lk_catalog_segments(lk_catalog *catalog, lk_segment_row **out, size_t *count);

#endif
