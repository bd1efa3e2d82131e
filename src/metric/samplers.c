/* Which pictures make up a batch. An epoch is a function of the seed and its number. */
#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"
#include "metric/by_class.h"

#include <likeness/metric.h>
#include <stdlib.h>
#include <string.h>

struct lk_sampler {
    lk_sampler_options options; /* batches resolved; confusable owned */
    size_t n, classes;          /* classes that have pictures */
    uint32_t *at;               /* [classes+1] */
    uint32_t *rows;             /* [n] pictures by class */
    uint32_t *number;           /* [classes] class as the caller numbers it */
    uint32_t *place;            /* [highest number + 1] its position here, UINT32_MAX = no pictures */
    size_t numbers;
};

static lk_status group(lk_sampler *sampler, const int32_t *classes, size_t n)
{
    lk_by_class *order = lk_alloc(n, sizeof *order);
    sampler->at = lk_alloc(n + 1, sizeof *sampler->at);
    sampler->rows = lk_alloc(n, sizeof *sampler->rows);
    sampler->number = lk_alloc(n, sizeof *sampler->number);
    if (!order || !sampler->at || !sampler->rows || !sampler->number) {
        free(order);
        return lk_fail_memory("sampler");
    }
    for (size_t i = 0; i < n; i++) order[i] = (lk_by_class){classes[i], (uint32_t)i};
    qsort(order, n, sizeof *order, lk_by_class_compare);
    for (size_t i = 0; i < n; i++) {
        sampler->rows[i] = order[i].row;
        if (i && order[i].class == order[i - 1].class) continue;
        sampler->at[sampler->classes] = (uint32_t)i;
        sampler->number[sampler->classes++] = (uint32_t)order[i].class;
    }
    sampler->at[sampler->classes] = (uint32_t)n;
    sampler->numbers = (size_t)order[n - 1].class + 1;
    free(order);
    sampler->place = lk_alloc(sampler->numbers, sizeof *sampler->place);
    if (!sampler->place) return lk_fail_memory("sampler");
    memset(sampler->place, 0xff, sampler->numbers * sizeof *sampler->place);
    for (size_t c = 0; c < sampler->classes; c++) sampler->place[sampler->number[c]] = (uint32_t)c;
    return LK_OK;
}

static lk_status check(const lk_sampler_options *o, const int32_t *classes, size_t n)
{
    if (!n || n > INT32_MAX) return lk_fail(LK_INVALID, "%zu pictures cannot be sampled", n);
    if (!o->batch || o->batch > INT32_MAX) return lk_fail(LK_INVALID, "a batch of %zu pictures", o->batch);
    for (size_t i = 0; i < n; i++)
        if (classes[i] < 0 || classes[i] > 1 << 28)
            return lk_fail(LK_INVALID, "class %d of picture %zu", classes[i], i);
    if (o->kind == LK_SAMPLER_PLAIN && o->batch > n)
        return lk_fail(LK_INVALID, "a batch of %zu is more than the %zu pictures there are", o->batch, n);
    bool by_classes = o->kind == LK_SAMPLER_PK || o->kind == LK_SAMPLER_HARD_CLASS;
    if (by_classes && (!o->per_class || o->batch % o->per_class))
        return lk_fail(LK_INVALID, "a batch of %zu is no multiple of %zu pictures per class", o->batch, o->per_class);
    if (o->kind == LK_SAMPLER_HARD_CLASS && (!o->confusable || !o->confusable_count))
        return lk_fail(LK_INVALID, "the hard-class sampler needs the list of confusable classes");
    if ((unsigned)o->kind > LK_SAMPLER_HARD_CLASS)
        return lk_fail(LK_INVALID, "no kind of sampler has number %d", o->kind);
    return LK_OK;
}

lk_status lk_sampler_new(const lk_sampler_options *options, const int32_t *classes, size_t n, lk_sampler **out)
{
    lk_status s = check(options, classes, n);
    if (s) return s;
    lk_sampler *sampler = lk_alloc_zero(1, sizeof *sampler);
    if (!sampler) return lk_fail_memory("sampler");
    sampler->options = *options;
    sampler->options.confusable = NULL;
    sampler->n = n;
    LK_TRY(group(sampler, classes, n));
    if (options->kind == LK_SAMPLER_PK || options->kind == LK_SAMPLER_HARD_CLASS) {
        size_t wanted = options->batch / options->per_class;
        if (wanted > sampler->classes) {
            s = lk_fail(LK_INVALID,
                        "a batch of %zu classes, but there are %zu: lower the batch or raise the pictures per class",
                        wanted, sampler->classes);
            goto done;
        }
    }
    if (options->kind == LK_SAMPLER_HARD_CLASS) {
        size_t bytes = sampler->numbers * options->confusable_count * sizeof(uint32_t);
        uint32_t *copy = lk_alloc(sampler->numbers, options->confusable_count * sizeof *copy);
        if (!copy) {
            s = lk_fail_memory("sampler");
            goto done;
        }
        memcpy(copy, options->confusable, bytes);
        sampler->options.confusable = copy;
    }
    if (!options->batches) sampler->options.batches = n / options->batch ? n / options->batch : 1;
    *out = sampler;
    sampler = NULL;
done:
    lk_sampler_free(sampler);
    return s;
}

void lk_sampler_free(lk_sampler *sampler)
{
    if (!sampler) return;
    free((void *)(uintptr_t)sampler->options.confusable);
    free(sampler->at);
    free(sampler->rows);
    free(sampler->number);
    free(sampler->place);
    free(sampler);
}

size_t lk_sampler_batches(const lk_sampler *sampler)
{
    return sampler->options.batches;
}

static void shuffle(lk_random *random, uint32_t *items, size_t count)
{
    for (size_t i = count; i > 1; i--) {
        size_t j = lk_random_below(random, i);
        uint32_t kept = items[i - 1];
        items[i - 1] = items[j];
        items[j] = kept;
    }
}

/* An endless walk over shuffled items: all once, then all again in another order. */
typedef struct walk {
    uint32_t *items;
    size_t count, next;
} walk;

/* The next item that is not taken; the ones passed over come right after. */
static uint32_t step(walk *w, lk_random *random, const bool *taken)
{
    if (w->next == w->count) {
        shuffle(random, w->items, w->count);
        w->next = 0;
    }
    size_t at = w->next;
    while (taken && at < w->count && taken[w->items[at]]) at++;
    if (at == w->count) { /* only taken ones are left of this pass: shuffle the whole again */
        shuffle(random, w->items, w->count);
        for (at = w->next = 0; taken[w->items[at]];) at++;
    }
    uint32_t item = w->items[at];
    memmove(w->items + w->next + 1, w->items + w->next, (at - w->next) * sizeof *w->items);
    w->items[w->next++] = item;
    return item;
}

/* Puts the confusable classes of those chosen so far behind them, breadth first. */
static size_t add_confusable(const lk_sampler *s, uint32_t *chosen, size_t count, size_t wanted, bool *taken)
{
    size_t width = s->options.confusable_count;
    for (size_t from = 0; from < count && count < wanted; from++) {
        const uint32_t *list = s->options.confusable + (size_t)s->number[chosen[from]] * width;
        for (size_t k = 0; k < width && count < wanted; k++) {
            uint32_t c = list[k] < s->numbers ? s->place[list[k]] : UINT32_MAX;
            if (c == UINT32_MAX || taken[c]) continue;
            taken[c] = true;
            chosen[count++] = c;
        }
    }
    return count;
}

/* K pictures of a class; scratch [pictures of the class]. */
static void draw_pictures(const lk_sampler *s, lk_random *random, uint32_t class, size_t k, uint32_t *scratch,
                          uint32_t *out)
{
    size_t size = s->at[class + 1] - s->at[class];
    for (size_t done = 0; done < k;) {
        memcpy(scratch, s->rows + s->at[class], size * sizeof *scratch);
        for (size_t i = 0; i < size && done < k; i++) {
            size_t j = i + lk_random_below(random, size - i);
            out[done++] = scratch[j];
            scratch[j] = scratch[i];
        }
    }
}

static void batch_of_classes(const lk_sampler *s, lk_random *random, walk *classes, bool *taken, uint32_t *chosen,
                             uint32_t *scratch, uint32_t *rows)
{
    size_t k = s->options.per_class, wanted = s->options.batch / k, count = 0;
    memset(taken, 0, s->classes * sizeof *taken);
    while (count < wanted) {
        uint32_t c = step(classes, random, taken);
        taken[c] = true;
        chosen[count++] = c;
        if (s->options.kind == LK_SAMPLER_HARD_CLASS) count = add_confusable(s, chosen, count, wanted, taken);
    }
    for (size_t i = 0; i < wanted; i++) draw_pictures(s, random, chosen[i], k, scratch, rows + i * k);
}

lk_status lk_sampler_epoch(const lk_sampler *s, uint64_t epoch, uint32_t *rows)
{
    const lk_sampler_options *o = &s->options;
    size_t items = o->kind == LK_SAMPLER_PLAIN ? s->n : s->classes;
    uint32_t *memory = lk_alloc(items + s->classes + s->n, sizeof *memory);
    bool *taken = lk_alloc_zero(s->classes, sizeof *taken);
    if (!memory || !taken) {
        free(memory);
        free(taken);
        return lk_fail_memory("sampler");
    }
    uint32_t *chosen = memory + items, *scratch = chosen + s->classes;
    walk w = {memory, items, items};
    for (size_t i = 0; i < items; i++) memory[i] = (uint32_t)i;
    lk_random random;
    lk_random_seed(&random, o->seed ^ (epoch + 1) * 0x9e3779b97f4a7c15u);
    for (size_t b = 0; b < o->batches; b++) {
        uint32_t *batch = rows + b * o->batch;
        switch (o->kind) {
        case LK_SAMPLER_PLAIN:
            for (size_t i = 0; i < o->batch; i++) batch[i] = step(&w, &random, NULL);
            break;
        case LK_SAMPLER_BALANCED:
            for (size_t i = 0; i < o->batch; i++)
                draw_pictures(s, &random, (uint32_t)lk_random_below(&random, s->classes), 1, scratch, batch + i);
            break;
        default: batch_of_classes(s, &random, &w, taken, chosen, scratch, batch);
        }
    }
    free(memory);
    free(taken);
    return LK_OK;
}
