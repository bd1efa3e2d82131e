/* What the segments of a collection hold, read once: shared by verify.c (telling what is wrong with them) and repair.c
 * (mending it). */
#ifndef LK_STORE_VERIFY_H
#define LK_STORE_VERIFY_H

#include "store/collection.h"

enum {
    LK_ROW_USED = 1,   /* a picture refers to it, or it is dead */
    LK_ROW_DAMAGED = 2 /* its block does not match its checksum */
};

typedef struct lk_held {
    uint64_t number;
    uint64_t *ids;      /* [rows]: the picture that each vector says it is of */
    uint8_t *flags;     /* [rows] */
    size_t rows;        /* that can be reached; what comes after is lost */
    uint64_t bytes;     /* that they and the header take */
    size_t intact_rows; /* the same up to the last block that matches its checksum */
    uint64_t intact_bytes;
    bool missing; /* there is no file, or not even a header */
    bool header;  /* the header alone does not match its checksum */
    bool table;   /* its table of blocks is damaged, or says something else */
} lk_held;

typedef struct lk_check {
    lk_collection *collection;
    lk_report_fn report; /* or NULL */
    void *user;
    uint64_t problems;
    lk_held *segments; /* [count], in step with the catalog's */
    size_t count;
} lk_check;

void lk_check_tell(lk_check *check, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* SQLite's own check of the catalog; each line that is not "ok" is a problem. */
void lk_check_database(lk_check *check);
/* Reads every segment and tells what is wrong with it; marks the rows that are dead. LK_NO_MEMORY, LK_IO;
 * LK_CONFLICT (told too): a file that is whole, but of a later version or of another segment. */
lk_status lk_check_segments(lk_check *check, const lk_segment_row *rows, size_t count);
/* The segment of a number, or NULL. */
lk_held *lk_check_segment_of(lk_check *check, uint64_t number);
/* LK_CORRUPT and what else opening and verifying the approximate index says; LK_OK when there is none. */
lk_status lk_check_index(lk_check *check, const lk_segment_row *segments, size_t count);
/* Tells whether the catalog's tables of labels say something else than the pictures' labels, and the remedy. */
lk_status lk_check_labels(lk_check *check, const char *remedy);
void lk_check_free(lk_check *check);

#endif
