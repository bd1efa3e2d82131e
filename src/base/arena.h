/* Memory of one lifetime: many small allocations, one free. Not thread-safe. */
#ifndef LK_BASE_ARENA_H
#define LK_BASE_ARENA_H

#include <stddef.h>

typedef struct lk_arena_block lk_arena_block;
typedef struct lk_arena {
    lk_arena_block *head; /* zero-initialise the struct before first use */
} lk_arena;

/* 16-byte aligned, uninitialised; NULL when out of memory. size 0 gives a valid pointer. */
void *lk_arena_alloc(lk_arena *arena, size_t size);
char *lk_arena_strdup(lk_arena *arena, const char *text);
/* Frees everything; the arena may be used again. */
void lk_arena_free(lk_arena *arena);

#endif
