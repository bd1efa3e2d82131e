/* Labels in levels: furniture / chair / office. */
#ifndef LK_TRAIN_HIERARCHY_H
#define LK_TRAIN_HIERARCHY_H

#include "base/arena.h"

#include <jansson.h>
#include <likeness/engine.h>

enum { LK_LEVELS_MOST = 8 };

/* Where the levels of a picture stand. */
typedef struct lk_level_source {
    bool folders;                      /* the folders on the way to the picture */
    size_t count;                      /* columns, the coarsest first; one: its value parts levels by / */
    char columns[LK_LEVELS_MOST][128]; /* count 0 and no folders: there are no levels */
} lk_level_source;

/* asked: "folders", or names of columns parted by commas; NULL = the column `levels`, or level1, level2, ... where the
 * list has them. folder: a folder is read, not a CSV. LK_INVALID. */
lk_status lk_levels_find(const char *asked, bool folder, lk_source_list *list, lk_level_source *out);

/* The levels of one picture: *key joins them by a byte that sorts first, *name by slashes for people; *levels is their
 * number. labels: of the CSV, or NULL; folder: the folders between root and picture, "a/b/c". LK_NO_MEMORY, LK_LIMIT.
 */
lk_status lk_levels_read(const lk_level_source *source, const json_t *labels, const char *folder, lk_arena *arena,
                         const char **key, const char **name, size_t *levels);

/* classes [count][levels]: equal numbers for pictures whose levels agree down to there. A level that a picture does not
 * have gets a negative number that no other picture has. */
lk_status lk_levels_number(const char *const *keys, size_t count, size_t levels, int32_t *classes);

#endif
