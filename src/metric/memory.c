#include "metric/memory.h"

#include "base/error.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

lk_status lk_memory_new(size_t capacity, size_t dim, lk_memory *out)
{
    *out = (lk_memory){.capacity = capacity, .dim = dim};
    out->embeddings = lk_alloc_zero(capacity, dim * sizeof *out->embeddings);
    out->classes = lk_alloc_zero(capacity, sizeof *out->classes);
    if (out->embeddings && out->classes) return LK_OK;
    lk_memory_free(out);
    return lk_fail_memory("cross-batch memory");
}

void lk_memory_free(lk_memory *memory)
{
    free(memory->embeddings);
    free(memory->classes);
    *memory = (lk_memory){0};
}

static void swap_rows(lk_memory *memory, size_t slot, float *row, int32_t *class, bool save, const float *from,
                      int32_t from_class)
{
    float *here = memory->embeddings + slot * memory->dim;
    if (save) {
        memcpy(row, here, memory->dim * sizeof *row);
        *class = memory->classes[slot];
    }
    memcpy(here, from, memory->dim * sizeof *here);
    memory->classes[slot] = from_class;
}

lk_status lk_memory_put(lk_memory *memory, const float *embeddings, const int32_t *classes, size_t n, uint32_t *slot,
                        lk_memory_undo *undo)
{
    if (n > memory->capacity)
        return lk_fail(LK_INVALID, "a batch of %zu does not fit into a cross-batch memory of %zu", n, memory->capacity);
    *undo = (lk_memory_undo){.next = memory->next, .count = memory->count, .n = n};
    undo->embeddings = lk_alloc(n, memory->dim * sizeof *undo->embeddings);
    undo->classes = lk_alloc(n, sizeof *undo->classes);
    if (!undo->embeddings || !undo->classes) {
        lk_memory_keep(undo);
        return lk_fail_memory("cross-batch memory");
    }
    for (size_t i = 0; i < n; i++) {
        slot[i] = (uint32_t)((memory->next + i) % memory->capacity);
        swap_rows(memory, slot[i], undo->embeddings + i * memory->dim, undo->classes + i, true,
                  embeddings + i * memory->dim, classes[i]);
    }
    memory->next = (memory->next + n) % memory->capacity;
    memory->count = memory->count + n < memory->capacity ? memory->count + n : memory->capacity;
    return LK_OK;
}

void lk_memory_keep(lk_memory_undo *undo)
{
    free(undo->embeddings);
    free(undo->classes);
    *undo = (lk_memory_undo){0};
}

void lk_memory_put_back(lk_memory *memory, lk_memory_undo *undo)
{
    for (size_t i = 0; i < undo->n; i++)
        swap_rows(memory, (undo->next + i) % memory->capacity, NULL, NULL, false, undo->embeddings + i * memory->dim,
                  undo->classes[i]);
    memory->next = undo->next;
    memory->count = undo->count;
    lk_memory_keep(undo);
}
