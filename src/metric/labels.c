#include "metric/labels.h"

#include "base/error.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>

double lk_label_similarity(const lk_labels *a, size_t i, const lk_labels *b, size_t j)
{
    if (a->kind == LK_LABELS_SINGLE) return a->classes[i] == b->classes[j];
    if (a->kind == LK_LABELS_HIERARCHY) {
        size_t same = 0;
        while (same < a->levels && a->classes[i * a->levels + same] == b->classes[j * b->levels + same]) same++;
        return (double)same / (double)a->levels;
    }
    const int32_t *p = a->sets + a->set_at[i], *p_end = a->sets + a->set_at[i + 1];
    const int32_t *q = b->sets + b->set_at[j], *q_end = b->sets + b->set_at[j + 1];
    size_t all = (size_t)(p_end - p) + (size_t)(q_end - q), common = 0;
    while (p < p_end && q < q_end) {
        if (*p == *q)
            common++, p++, q++;
        else if (*p < *q)
            p++;
        else
            q++;
    }
    return all ? (double)common / (double)(all - common) : 0;
}

void lk_labels_of_views(size_t pictures, int32_t *classes)
{
    for (size_t i = 0; i < 2 * pictures; i++) classes[i] = (int32_t)(i % pictures);
}

lk_status lk_labels_check(const lk_labels *labels, size_t n)
{
    bool whole = labels->kind == LK_LABELS_MULTI ? labels->set_at && labels->sets : labels->classes != NULL;
    if (n && !whole) return lk_fail(LK_INVALID, "labels of this kind need arrays that are missing");
    if (labels->kind == LK_LABELS_HIERARCHY && !labels->levels) return lk_fail(LK_INVALID, "a hierarchy needs levels");
    if (labels->kind > LK_LABELS_HIERARCHY) return lk_fail(LK_INVALID, "no kind of labels has number %d", labels->kind);
    return LK_OK;
}

lk_status lk_labels_check_classes(const lk_labels *labels, size_t n, uint32_t classes)
{
    if (!labels) return lk_fail(LK_INVALID, "this loss has class weights and needs labels");
    if (labels->kind != LK_LABELS_SINGLE)
        return lk_fail(LK_INVALID, "this loss has class weights and takes one class per picture");
    for (size_t i = 0; i < n; i++)
        if (labels->classes[i] < 0 || (uint32_t)labels->classes[i] >= classes)
            return lk_fail(LK_INVALID, "label %d of picture %zu is not one of the %u classes", labels->classes[i], i,
                           classes);
    return LK_OK;
}

lk_relation lk_relate(const lk_pair_rule *rule, const lk_labels *a, size_t i, const lk_labels *b, size_t j)
{
    double similarity = lk_label_similarity(a, i, b, j);
    if (a->kind == LK_LABELS_SINGLE) return (lk_relation){similarity, 1 - similarity};
    if (rule->soft) return (lk_relation){similarity, 1 - similarity};
    double from = rule->positive > 0 ? rule->positive : 0.5;
    return (lk_relation){similarity >= from, similarity < from && similarity <= rule->negative};
}

static int by_class(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

lk_status lk_labels_summary(const lk_labels *labels, size_t n, lk_label_summary *out)
{
    *out = (lk_label_summary){.pictures = n};
    if (!labels) return LK_OK;
    lk_status s = lk_labels_check(labels, n);
    if (s) return s;
    bool multi = labels->kind == LK_LABELS_MULTI;
    size_t count = multi ? (n ? labels->set_at[n] : 0) : n;
    int32_t *classes = lk_alloc(count, sizeof *classes);
    if (!classes) return lk_fail_memory("classes");
    size_t levels = labels->kind == LK_LABELS_HIERARCHY ? labels->levels : 1;
    for (size_t i = 0; i < count; i++) classes[i] = multi ? labels->sets[i] : labels->classes[i * levels + levels - 1];
    qsort(classes, count, sizeof *classes, by_class);
    out->kind = labels->kind;
    out->levels = levels;
    out->labelled = n;
    for (size_t i = 0; multi && i < n; i++) out->labelled -= labels->set_at[i + 1] == labels->set_at[i];
    out->labels_per_picture = n ? (double)count / (double)n : 0;
    for (size_t i = 0, end; i < count; i = end) {
        for (end = i; end < count && classes[end] == classes[i];) end++;
        size_t size = end - i;
        if (!out->classes++ || size < out->smallest) out->smallest = size;
        if (size > out->largest) out->largest = size;
        out->singletons += size == 1;
    }
    free(classes);
    return LK_OK;
}
