#include "train/validate.h"

#include "base/error.h"
#include "base/memory.h"

#include <likeness/eval.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 10000, KEEP_BYTES = 512 << 20, GRAIN = 8 };
static const uint32_t cuts[2] = {1, 10};
enum { CUTS = 2 };

lk_status lk_validation_open(lk_context *context, const lk_train_data *data, lk_pictures *pictures, lk_validation *v)
{
    size_t all = data->validation.count;
    *v = (lk_validation){.context = context, .data = data, .pictures = pictures, .count = all < MOST ? all : MOST};
    v->n = data->labelled ? v->count : 2 * v->count;
    if (v->n == 0) return LK_OK;
    v->rows = lk_alloc(v->count, sizeof *v->rows);
    v->usable = lk_alloc_zero(v->n, 1);
    if (!v->rows || !v->usable) return lk_fail_memory("validation");
    for (size_t i = 0; i < v->count; i++) v->rows[i] = (uint32_t)(i * all / v->count);
    return LK_OK;
}

void lk_validation_free(lk_validation *v)
{
    free(v->rows);
    free(v->prepared);
    free(v->usable);
    free(v->vectors);
    *v = (lk_validation){0};
}

/* ---- vectors ---- */

typedef struct preparing {
    lk_validation *v;
    size_t first, size;
    float *out;
} preparing;

static lk_status prepare(void *arg, size_t begin, size_t end, int worker)
{
    const preparing *p = arg;
    lk_validation *v = p->v;
    (void)worker;
    for (size_t i = begin; i < end; i++) {
        size_t at = p->first + i, row = v->rows[at % v->count];
        uint64_t view = v->data->labelled ? 0 : 1 + at / v->count;
        lk_status s = lk_pictures_plain(v->pictures, v->data->validation.pictures[row], view, p->out + i * p->size);
        if (s == LK_NO_MEMORY) return s;
        v->usable[at] = s == LK_OK; /* said when first tried; the picture takes no part */
    }
    return LK_OK;
}

/* One batch from `at` on. */
static lk_status embed_batch(lk_validation *v, lk_network *net, float *input, size_t at)
{
    size_t side = lk_network_side(net), size = 3 * side * side, dim = net->dim, batch = net->batch;
    size_t n = v->n - at < batch ? v->n - at : batch;
    lk_status s = LK_OK;
    preparing p = {v, at, size, v->prepared ? v->prepared + at * size : input};
    if (!v->ready || !v->prepared) s = lk_parallel_for(lk_context_pool(v->context), n, 4, prepare, &p);
    if (s == LK_OK && v->prepared) memcpy(input, p.out, n * size * sizeof(float));
    for (size_t i = 0; s == LK_OK && i < n; i++)
        if (!v->usable[at + i]) memset(input + i * size, 0, size * sizeof(float));
    if (s == LK_OK) s = lk_network_forward(net, false, 0, input);
    if (s == LK_OK) s = lk_normalise_forward(n, dim, net->main.embedding, 1e-12f, v->vectors + at * dim);
    for (size_t i = 0; s == LK_OK && i < n; i++)
        if (!v->usable[at + i]) memset(v->vectors + (at + i) * dim, 0, dim * sizeof(float));
    return s;
}

/* Several processes share the work: each fills in its batches, the rest is 0 until all are added up. */
static lk_status embed_own(lk_validation *v, lk_network *net, float *input)
{
    size_t side = lk_network_side(net), size = 3 * side * side, batch = net->batch;
    size_t processes = (size_t)lk_processes_count(net->processes), rank = (size_t)lk_processes_rank(net->processes);
    if (!v->vectors && !(v->vectors = lk_alloc(v->n * net->dim, sizeof *v->vectors)))
        return lk_fail_memory("validation");
    memset(v->vectors, 0, v->n * net->dim * sizeof *v->vectors);
    if (!v->ready && v->n * size * sizeof(float) <= KEEP_BYTES) v->prepared = lk_alloc(v->n * size, sizeof(float));
    for (size_t at = rank * batch; at < v->n; at += processes * batch) {
        if (lk_context_cancelled(v->context)) return lk_fail(LK_CANCELLED, "cancelled");
        lk_status s = embed_batch(v, net, input, at);
        if (s != LK_OK) return s;
    }
    v->ready = true;
    return LK_OK;
}

static lk_status embed(lk_validation *v, lk_network *net, float *input)
{
    size_t dim = net->dim;
    lk_status s = lk_processes_agree(net->processes, embed_own(v, net, input));
    if (s == LK_OK) s = lk_processes_sum(net->processes, v->vectors, v->n * dim);
    if (s != LK_OK || lk_processes_count(net->processes) == 1) return s;
    for (size_t i = 0; i < v->n; i++) {
        bool any = false;
        for (size_t k = 0; k < dim; k++) any |= v->vectors[i * dim + k] != 0;
        v->usable[i] = any;
    }
    return LK_OK;
}

/* ---- metrics ---- */

typedef struct judging {
    lk_validation *v;
    size_t dim;
    lk_labels labels;
    uint64_t *ids;
    double *values; /* [n][columns] */
    uint8_t *counted;
    lk_confusion *confusions; /* [n]; wrong_score below right_score where there is none */
} judging;

static bool alike(const judging *j, size_t a, size_t b)
{
    if (!j->v->data->labelled) return a % j->v->count == b % j->v->count;
    return lk_label_similarity(&j->labels, a, &j->labels, b) >= 0.5;
}

static uint32_t picture_of(const lk_validation *v, size_t i)
{
    return v->data->validation.pictures[v->rows[i % v->count]];
}

static lk_status judge_one(judging *j, size_t q, float *scores, uint8_t *skip, size_t *relevant, uint64_t *ranks)
{
    const lk_validation *v = j->v;
    size_t n = v->n, found = 0, wrong = SIZE_MAX, right = SIZE_MAX;
    if (!v->usable[q]) return LK_OK;
    const float *x = v->vectors + q * j->dim;
    for (size_t i = 0; i < n; i++) {
        const float *y = v->vectors + i * j->dim;
        float sum = 0;
        for (size_t k = 0; k < j->dim; k++) sum += x[k] * y[k];
        scores[i] = sum;
        skip[i] = !v->usable[i];
        if (i == q || skip[i]) continue;
        bool same = alike(j, q, i);
        if (same) relevant[found++] = i;
        size_t *best = same ? &right : &wrong;
        if (*best == SIZE_MAX || sum > scores[*best]) *best = i;
    }
    if (found == 0) return LK_OK;
    lk_status s = lk_eval_ranks(scores, j->ids, n, 1, q, skip, relevant, found, ranks, NULL);
    if (s == LK_OK)
        s = lk_eval_query(ranks, NULL, found, found, NULL, cuts, CUTS, j->values + q * lk_eval_columns(CUTS));
    j->counted[q] = 1;
    if (wrong != SIZE_MAX)
        j->confusions[q] =
            (lk_confusion){picture_of(v, q), picture_of(v, wrong), picture_of(v, right), scores[wrong], scores[right]};
    return s;
}

static lk_status judge(void *arg, size_t begin, size_t end, int worker)
{
    judging *j = arg;
    size_t n = j->v->n;
    (void)worker;
    float *scores = lk_alloc(n, sizeof *scores);
    uint8_t *skip = lk_alloc(n, 1);
    size_t *relevant = lk_alloc(n, sizeof *relevant);
    uint64_t *ranks = lk_alloc(n, sizeof *ranks);
    lk_status s = scores && skip && relevant && ranks ? LK_OK : lk_fail_memory("validation");
    for (size_t q = begin; s == LK_OK && q < end; q++) s = judge_one(j, q, scores, skip, relevant, ranks);
    free(scores);
    free(skip);
    free(relevant);
    free(ranks);
    return s;
}

static int worse(const void *a, const void *b)
{
    const lk_confusion *x = a, *y = b;
    float dx = x->wrong_score - x->right_score, dy = y->wrong_score - y->right_score;
    if (dx != dy) return dx > dy ? -1 : 1;
    return (x->query > y->query) - (x->query < y->query);
}

static void summarise(judging *j, lk_train_epoch *epoch)
{
    lk_validation *v = j->v;
    size_t columns = lk_eval_columns(CUTS), counted = 0;
    double sums[4] = {0};
    const size_t which[4] = {LK_EVAL_MAP, lk_eval_column(LK_EVAL_HIT, 0, CUTS), lk_eval_column(LK_EVAL_HIT, 1, CUTS),
                             lk_eval_column(LK_EVAL_NDCG_AT, 1, CUTS)};
    for (size_t q = 0; q < v->n; q++) {
        if (!j->counted[q]) continue;
        counted++;
        for (int k = 0; k < 4; k++) sums[k] += j->values[q * columns + which[k]];
    }
    for (int k = 0; k < 4; k++) sums[k] /= counted ? (double)counted : 1;
    epoch->map = sums[0];
    epoch->hit1 = sums[1];
    epoch->hit10 = sums[2];
    epoch->ndcg10 = sums[3];
    qsort(j->confusions, v->n, sizeof *j->confusions, worse);
    v->confusion_count = 0;
    const size_t most = sizeof v->confusions / sizeof *v->confusions;
    for (size_t i = 0; i < v->n && v->confusion_count < most; i++)
        if (j->confusions[i].wrong_score > j->confusions[i].right_score)
            v->confusions[v->confusion_count++] = j->confusions[i];
}

lk_status lk_validate(lk_validation *v, lk_network *net, float *input, lk_train_epoch *epoch)
{
    if (v->n < 2) return LK_OK;
    const lk_train_part *part = &v->data->validation;
    judging j = {.v = v, .dim = net->dim};
    int32_t *classes = lk_alloc(v->n, sizeof *classes), *sets = NULL;
    uint32_t *set_at = lk_alloc(v->n + 1, sizeof *set_at);
    if (part->set_at) sets = lk_alloc(part->set_at[part->count] + 1, sizeof *sets);
    j.ids = lk_alloc(v->n, sizeof *j.ids);
    j.values = lk_alloc_zero(v->n * lk_eval_columns(CUTS), sizeof *j.values);
    j.counted = lk_alloc_zero(v->n, 1);
    j.confusions = lk_alloc_zero(v->n, sizeof *j.confusions);
    bool room = classes && set_at && (sets || !part->set_at) && j.ids && j.values && j.counted && j.confusions;
    lk_status s = lk_processes_agree(net->processes, room ? LK_OK : lk_fail_memory("validation"));
    if (s == LK_OK) s = embed(v, net, input);
    if (s == LK_OK) {
        for (size_t i = 0; i < v->n; i++) j.ids[i] = i;
        j.labels = lk_train_labels_of(v->data, part, v->rows, v->count, true, classes, set_at, sets);
        s = lk_parallel_for(lk_context_pool(v->context), v->n, GRAIN, judge, &j);
    }
    if (s == LK_OK) summarise(&j, epoch);
    free(classes);
    free(sets);
    free(set_at);
    free(j.ids);
    free(j.values);
    free(j.counted);
    free(j.confusions);
    return s;
}
