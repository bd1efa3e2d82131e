/* Allocation helpers that cannot overflow. */
#ifndef LK_BASE_MEMORY_H
#define LK_BASE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

/* count * size bytes, uninitialised; NULL on overflow or out of memory. Free with free(). */
void *lk_alloc(size_t count, size_t size);
void *lk_alloc_zero(size_t count, size_t size);
/* 64-byte aligned (one cache line, one AVX-512 register), size rounded up to a multiple of 64;
 * from 32 MiB on in pages of 2 MiB, where the system has them. Free with free(). */
void *lk_alloc_aligned(size_t count, size_t size);

/* Grows *items (element size `size`) so that it holds at least `need`, doubling *capacity. false when out of memory,
 * and then nothing changed. */
bool lk_grow(void **items, size_t *capacity, size_t need, size_t size);

#endif
