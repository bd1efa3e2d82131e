/* Rows sorted one class after the other, and by number within one. */
#ifndef LK_METRIC_BY_CLASS_H
#define LK_METRIC_BY_CLASS_H

#include <stdint.h>

typedef struct lk_by_class {
    int32_t class;
    uint32_t row;
} lk_by_class;

/* For qsort. */
static inline int lk_by_class_compare(const void *a, const void *b)
{
    const lk_by_class *x = a, *y = b;
    if (x->class != y->class) return x->class < y->class ? -1 : 1;
    return (x->row > y->row) - (x->row < y->row);
}

#endif
