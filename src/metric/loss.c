/* The loss object: parameters, memory, and one evaluation from embeddings to gradients. */
#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"
#include "metric/kinds.h"
#include "metric/memory.h"
#include "metric/miners.h"

#include <stdlib.h>
#include <string.h>

struct lk_loss {
    lk_loss_options options; /* distance.kind resolved */
    const lk_loss_traits *traits;
    size_t dim;
    float *parameters;
    size_t parameter_count, rows; /* rows: class weights, proxies */
    double curriculum;
    lk_memory memory; /* capacity 0 = none */
};

static void draw_parameters(lk_loss *loss, uint64_t seed)
{
    if (!loss->rows) {
        for (size_t i = 0; i < loss->parameter_count; i++) loss->parameters[i] = (float)loss->options.beta;
        return;
    }
    lk_random random;
    lk_random_seed(&random, seed);
    double deviation = loss->options.kind == LK_LOSS_PROXY_ANCHOR ? sqrt(2.0 / (double)loss->rows) : 1;
    for (size_t i = 0; i < loss->parameter_count; i++)
        loss->parameters[i] = (float)(deviation * lk_random_normal(&random));
}

lk_status lk_loss_new(const lk_loss_options *options, size_t dim, uint64_t seed, lk_loss **out)
{
    lk_status s = lk_loss_options_check(options, dim);
    if (s) return s;
    lk_loss *loss = lk_alloc_zero(1, sizeof *loss);
    if (!loss) return lk_fail_memory("loss");
    loss->options = *options;
    loss->traits = lk_loss_traits_of(options->kind);
    loss->dim = dim;
    if (options->distance.kind == LK_DISTANCE_DEFAULT)
        loss->options.distance.kind = loss->traits->defaults.distance.kind;
    if (loss->traits->weights)
        loss->rows = options->classes * (options->kind == LK_LOSS_SUBCENTER_ARCFACE ? (size_t)options->subcenters : 1);
    loss->parameter_count = loss->rows * dim;
    if (options->kind == LK_LOSS_MARGIN && options->learn_beta)
        loss->parameter_count = options->beta_per_class ? options->classes : 1;
    if (loss->parameter_count) {
        loss->parameters = lk_alloc_aligned(loss->parameter_count, sizeof *loss->parameters);
        if (!loss->parameters) {
            s = lk_fail_memory("class weights");
            goto done;
        }
        draw_parameters(loss, seed);
    }
    if (options->memory) LK_TRY(lk_memory_new(options->memory, dim, &loss->memory));
    *out = loss;
    loss = NULL;
done:
    lk_loss_free(loss);
    return s;
}

void lk_loss_free(lk_loss *loss)
{
    if (!loss) return;
    lk_memory_free(&loss->memory);
    free(loss->parameters);
    free(loss);
}

const lk_loss_options *lk_loss_options_of(const lk_loss *loss)
{
    return &loss->options;
}

float *lk_loss_parameters(lk_loss *loss, size_t *count)
{
    *count = loss->parameter_count;
    return loss->parameters;
}

static lk_status check_call(const lk_loss *loss, size_t n, size_t dim, const lk_labels *labels, const lk_tuples *tuples)
{
    const char *name = loss->traits->name;
    lk_status s = LK_OK;
    if (dim != loss->dim) return lk_fail(LK_INVALID, "%s: made for %zu dimensions, got %zu", name, loss->dim, dim);
    if (n > UINT32_MAX / 2) return lk_fail(LK_INVALID, "%s: a batch of %zu", name, n);
    if (labels) LK_TRY(lk_labels_check(labels, n));
    bool by_class = loss->traits->weights || loss->options.beta_per_class;
    if (by_class) LK_TRY(lk_labels_check_classes(labels, n, loss->options.classes));
    if (!labels && (!tuples || loss->traits->all)) return lk_fail(LK_INVALID, "%s: needs labels", name);
    if (loss->memory.capacity) {
        if (!labels || labels->kind != LK_LABELS_SINGLE)
            return lk_fail(LK_UNSUPPORTED, "%s: a cross-batch memory takes one class per picture", name);
        if (tuples) return lk_fail(LK_UNSUPPORTED, "%s: a cross-batch memory looks at all pairs itself", name);
    }
done:
    return s;
}

/* Pairs for the losses that compare embeddings with embeddings. */
static lk_status make_sets(const lk_loss *loss, lk_problem *p)
{
    if (loss->traits->weights) return LK_OK;
    if (!p->tuples || loss->traits->all)
        return lk_pair_sets_all(&p->options->rule, p->labels, p->n, p->reference_labels, p->m, p->own, &p->sets);
    lk_status s = lk_pair_sets_of(p->tuples, p->n, p->m, &p->sets);
    if (!s && loss->traits->unique) s = lk_pair_sets_unique(&p->sets, p->n, p->m);
    return s;
}

/* Gradients of gathered rows [2 count][dim] back to where the rows came from. */
static void scatter(const lk_gathered *gathered, const float *from, size_t dim, float *grad)
{
    for (size_t i = 0; i < 2 * gathered->count; i++)
        for (size_t k = 0; k < dim; k++) grad[gathered->index[i] * dim + k] += from[i * dim + k];
}

/* For a loss that compares rows of its own choice. */
static lk_status evaluate_gathered(lk_loss *loss, lk_problem *p, const float *embeddings, double *value, float *grad)
{
    lk_status s = LK_OK;
    lk_gathered gathered = {0};
    lk_matrix matrix = {0};
    size_t n = p->n, dim = loss->dim;
    float *part = NULL;
    LK_TRY(lk_gather_n_pairs(p, embeddings, dim, &gathered));
    p->n = p->m = gathered.count;
    size_t half = gathered.count * dim;
    LK_TRY(lk_matrix_new(loss->options.distance, gathered.rows, p->n, gathered.rows + half, p->m, dim, &matrix));
    p->matrix = &matrix;
    p->value = matrix.value;
    p->slope = lk_alloc_zero(p->n * p->m, sizeof *p->slope);
    p->norm_slope = lk_alloc_zero(p->n, sizeof *p->norm_slope);
    part = lk_alloc(2 * half, sizeof *part);
    if (!p->slope || !p->norm_slope || !part) {
        s = lk_fail_memory("slopes");
        goto done;
    }
    LK_TRY(loss->traits->run(p, value));
    if (!grad) goto done;
    memset(grad, 0, n * dim * sizeof *grad);
    LK_TRY(lk_matrix_backward(&matrix, p->slope, NULL, part, part + half));
    scatter(&gathered, part, dim, grad);
done:
    lk_matrix_free(&matrix);
    free(gathered.index);
    free(gathered.rows);
    free(part);
    return s;
}

static lk_status evaluate(lk_loss *loss, lk_problem *p, const float *embeddings, const float *references, double *value,
                          float *grad_embeddings, float *grad_parameters)
{
    lk_status s = LK_OK;
    lk_matrix matrix = {0};
    p->side = lk_is_similarity(loss->options.distance.kind) ? -1 : 1;
    LK_TRY(make_sets(loss, p));
    if (loss->options.kind == LK_LOSS_N_PAIRS) {
        s = evaluate_gathered(loss, p, embeddings, value, grad_embeddings);
        goto done;
    }
    s = (loss->rows ? lk_matrix_new_weights : lk_matrix_new)(loss->options.distance, embeddings, p->n, references, p->m,
                                                             loss->dim, &matrix);
    if (s != LK_OK) goto done;
    p->matrix = &matrix;
    p->value = matrix.value;
    p->slope = lk_alloc_zero(p->n * p->m, sizeof *p->slope);
    p->norm_slope = lk_alloc_zero(p->n, sizeof *p->norm_slope);
    size_t betas = loss->rows || !loss->parameter_count ? 1 : loss->parameter_count;
    p->parameter_slope = lk_alloc_zero(betas, sizeof *p->parameter_slope);
    if (!p->slope || !p->norm_slope || !p->parameter_slope) {
        s = lk_fail_memory("slopes");
        goto done;
    }
    LK_TRY(loss->traits->run(p, value));
    bool by_length = loss->options.kind == LK_LOSS_SPHEREFACE;
    LK_TRY(lk_matrix_backward(&matrix, p->slope, by_length ? p->norm_slope : NULL, grad_embeddings,
                              loss->rows ? grad_parameters : NULL));
    if (grad_parameters && !p->n) memset(grad_parameters, 0, loss->parameter_count * sizeof *grad_parameters);
    for (size_t i = 0; grad_parameters && !loss->rows && i < loss->parameter_count; i++)
        grad_parameters[i] = (float)p->parameter_slope[i];
done:
    lk_matrix_free(&matrix);
    free(p->slope);
    free(p->norm_slope);
    free(p->parameter_slope);
    lk_pair_sets_free(&p->sets);
    return s;
}

lk_status lk_loss_forward_backward(lk_loss *loss, const float *embeddings, size_t n, size_t dim,
                                   const lk_labels *labels, const lk_tuples *tuples, double *value,
                                   float *grad_embeddings, float *grad_parameters)
{
    lk_status s = check_call(loss, n, dim, labels, tuples);
    if (s) return s;
    lk_problem p = {.options = &loss->options,
                    .n = n,
                    .m = loss->rows ? loss->rows : n,
                    .labels = labels,
                    .reference_labels = labels,
                    .tuples = tuples,
                    .parameters = loss->parameters,
                    .curriculum = loss->curriculum};
    const float *references = loss->rows ? loss->parameters : NULL;
    lk_memory_undo undo = {0};
    uint32_t *own = NULL;
    lk_labels remembered;
    lk_tuples mined = {0};
    *value = 0;
    if (loss->memory.capacity) {
        own = lk_alloc(n, sizeof *own);
        if (!own) return lk_fail_memory("cross-batch memory");
        LK_TRY(lk_memory_put(&loss->memory, embeddings, labels->classes, n, own, &undo));
        remembered = (lk_labels){.kind = LK_LABELS_SINGLE, .classes = loss->memory.classes};
        references = loss->memory.embeddings;
        p.m = loss->memory.count;
        p.reference_labels = &remembered;
        p.own = own;
        if (loss->options.memory_miner != LK_MINER_ALL) {
            lk_miner_options miner = lk_miner_defaults(loss->options.memory_miner);
            LK_TRY(lk_mine_between(&miner, embeddings, n, labels, references, p.m, &remembered, own, dim,
                                   loss->memory.next, &mined));
            p.tuples = &mined;
        }
    }
    LK_TRY(evaluate(loss, &p, embeddings, references, value, grad_embeddings, grad_parameters));
    loss->curriculum = p.curriculum;
done:
    if (s && undo.embeddings) lk_memory_put_back(&loss->memory, &undo);
    lk_memory_keep(&undo);
    lk_tuples_free(&mined);
    free(own);
    return s;
}

/* State: what must agree, then the curriculum and the memory as it lies. */
typedef struct state_head {
    uint64_t kind, dim, capacity, next, count;
    double curriculum;
} state_head;

size_t lk_loss_state_size(const lk_loss *loss)
{
    size_t row = loss->dim * sizeof(float) + sizeof(int32_t);
    if (!loss->memory.capacity && loss->options.kind != LK_LOSS_CURRICULAR) return 0;
    return sizeof(state_head) + loss->memory.capacity * row;
}

void lk_loss_state_save(const lk_loss *loss, void *bytes)
{
    const lk_memory *m = &loss->memory;
    if (!lk_loss_state_size(loss)) return;
    state_head head = {loss->options.kind, loss->dim, m->capacity, m->next, m->count, loss->curriculum};
    char *at = bytes;
    memcpy(at, &head, sizeof head);
    if (!m->capacity) return;
    at += sizeof head;
    memcpy(at, m->classes, m->capacity * sizeof *m->classes);
    memcpy(at + m->capacity * sizeof *m->classes, m->embeddings, m->capacity * m->dim * sizeof *m->embeddings);
}

lk_status lk_loss_state_restore(lk_loss *loss, const void *bytes, size_t size)
{
    lk_memory *m = &loss->memory;
    state_head head;
    if (size != lk_loss_state_size(loss))
        return lk_fail(LK_CONFLICT, "%s: the kept state has another size", loss->traits->name);
    if (!size) return LK_OK;
    memcpy(&head, bytes, sizeof head);
    if (head.kind != (uint64_t)loss->options.kind || head.dim != loss->dim || head.capacity != m->capacity ||
        head.count > m->capacity || (m->capacity && head.next >= m->capacity) || !isfinite(head.curriculum))
        return lk_fail(LK_CONFLICT, "%s: the kept state is of another loss", loss->traits->name);
    loss->curriculum = head.curriculum;
    if (!m->capacity) return LK_OK;
    m->next = head.next;
    m->count = head.count;
    const char *at = (const char *)bytes + sizeof head;
    memcpy(m->classes, at, m->capacity * sizeof *m->classes);
    memcpy(m->embeddings, at + m->capacity * sizeof *m->classes, m->capacity * m->dim * sizeof *m->embeddings);
    return LK_OK;
}
