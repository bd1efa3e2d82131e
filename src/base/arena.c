#include "base/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct lk_arena_block {
    lk_arena_block *next;
    size_t used, size;
    _Alignas(16) unsigned char bytes[];
};

void *lk_arena_alloc(lk_arena *arena, size_t size)
{
    if (size > SIZE_MAX / 2) return NULL;
    size = (size + 15) & ~(size_t)15;
    lk_arena_block *block = arena->head;
    if (!block || block->size - block->used < size) {
        size_t room = size > 65536 / 4 ? size : 65536;
        lk_arena_block *fresh = malloc(sizeof *fresh + room);
        if (!fresh) return NULL;
        fresh->used = 0;
        fresh->size = room;
        /* A large block that is full from the start goes behind the head, so that the head's free room is not lost. */
        if (block && room == size) {
            fresh->next = block->next;
            block->next = fresh;
        } else {
            fresh->next = block;
            arena->head = fresh;
        }
        block = fresh;
    }
    void *out = block->bytes + block->used;
    block->used += size;
    return out;
}

char *lk_arena_strdup(lk_arena *arena, const char *text)
{
    size_t n = strlen(text) + 1;
    char *copy = lk_arena_alloc(arena, n);
    if (copy) memcpy(copy, text, n);
    return copy;
}

void lk_arena_free(lk_arena *arena)
{
    lk_arena_block *block = arena->head;
    while (block) {
        lk_arena_block *next = block->next;
        free(block);
        block = next;
    }
    arena->head = NULL;
}
