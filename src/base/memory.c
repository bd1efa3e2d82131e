#include "base/memory.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

/* What is walked through at random finds its places faster in large pages, from where their rounding no longer counts.
 */
enum { LARGE = 32 << 20, LARGE_PAGE = 2 << 20 };

void *lk_alloc(size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) return NULL;
    return malloc(bytes ? bytes : 1);
}

void *lk_alloc_zero(size_t count, size_t size)
{
    return calloc(count ? count : 1, size ? size : 1);
}

void *lk_alloc_aligned(size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX - 64) return NULL;
    bytes = (bytes + 63) & ~(size_t)63;
#ifdef MADV_HUGEPAGE
    if (bytes >= LARGE && bytes <= SIZE_MAX - LARGE_PAGE) {
        bytes = (bytes + LARGE_PAGE - 1) & ~(size_t)(LARGE_PAGE - 1);
        void *p = aligned_alloc(LARGE_PAGE, bytes);
        if (p) madvise(p, bytes, MADV_HUGEPAGE);
        return p;
    }
#endif
    return aligned_alloc(64, bytes ? bytes : 64);
}

bool lk_grow(void **items, size_t *capacity, size_t need, size_t size)
{
    if (need <= *capacity) return true;
    size_t wanted = *capacity ? *capacity : 16, bytes;
    while (wanted < need) {
        if (wanted > SIZE_MAX / 2) return false;
        wanted *= 2;
    }
    if (__builtin_mul_overflow(wanted, size, &bytes)) return false;
    void *grown = realloc(*items, bytes);
    if (!grown) return false;
    *items = grown;
    *capacity = wanted;
    return true;
}
