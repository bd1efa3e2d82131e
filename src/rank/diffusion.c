/* Diffusion on the graph of mutual neighbours of a shortlist; include/likeness/rank.h has the equations. */
#include "base/error.h"
#include "base/memory.h"
#include "index/id_map.h"
#include <likeness/rank.h>

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Symmetric, by rows. */
typedef struct graph {
    size_t n;
    size_t *starts; /* [n + 1] */
    uint32_t *columns;
    double *values; /* A, then S */
} graph;

static void graph_free(graph *g)
{
    free(g->starts);
    free(g->columns);
    free(g->values);
}

lk_diffusion_options lk_diffusion_defaults(void)
{
    return (lk_diffusion_options){.k = 50, .kq = 10, .gamma = 3, .alpha = 0.99f, .iterations = 20, .tolerance = 1e-6f};
}

static double affinity(double distance, double gamma)
{
    double similarity = 1 - distance / 2;
    return similarity > 0 ? pow(similarity, gamma) : 0;
}

/* Lists of positions within the shortlist: near [n][k], UINT32_MAX where a neighbour is outside. */
static lk_status look_up(const lk_diffusion_options *o, const lk_shortlist *list, const lk_neighbour_source *source,
                         uint32_t *near, float *distances)
{
    lk_id_map places = {0};
    lk_hit *hits = lk_alloc(o->k, sizeof *hits);
    lk_status s = hits && lk_id_map_reserve(&places, list->count) ? LK_OK : lk_fail_memory("diffusion");
    for (size_t i = 0; s == LK_OK && i < list->count; i++) lk_id_map_put(&places, list->ids[i], i);
    for (size_t i = 0; s == LK_OK && i < list->count; i++) {
        size_t found = 0;
        float farthest;
        s = source->neighbours(source->user, list->ids[i], o->k, hits, &found, &farthest);
        if (s == LK_NOT_FOUND) {
            s = LK_OK;
            found = 0;
        }
        for (size_t j = 0; j < o->k; j++) {
            uint64_t at = j < found ? lk_id_map_get(&places, hits[j].id) : LK_NO_PLACE;
            near[i * o->k + j] = at == LK_NO_PLACE ? UINT32_MAX : (uint32_t)at;
            distances[i * o->k + j] = j < found ? hits[j].score : 0;
        }
    }
    free(hits);
    lk_id_map_free(&places);
    return s;
}

static lk_status build(const lk_diffusion_options *o, const lk_shortlist *list, const lk_neighbour_source *source,
                       graph *g)
{
    size_t n = g->n = list->count, k = o->k;
    uint32_t *near = lk_alloc(n * k, sizeof *near);
    float *distances = lk_alloc(n * k, sizeof *distances);
    double *scale = lk_alloc_zero(n, sizeof *scale);
    g->starts = lk_alloc(n + 1, sizeof *g->starts);
    g->columns = lk_alloc(n * k, sizeof *g->columns);
    g->values = lk_alloc(n * k, sizeof *g->values);
    lk_status s = near && distances && scale && g->starts && g->columns && g->values
                      ? look_up(o, list, source, near, distances)
                      : lk_fail_memory("diffusion");
    size_t cells = 0;
    for (size_t i = 0; s == LK_OK && i < n; i++) {
        g->starts[i] = cells;
        for (size_t m = 0; m < k; m++) {
            uint32_t j = near[i * k + m];
            bool mutual = false;
            if (j == UINT32_MAX || j == i) continue;
            for (size_t b = 0; b < k; b++) mutual |= near[j * k + b] == i;
            double a = mutual ? affinity((double)distances[i * k + m], (double)o->gamma) : 0;
            if (a <= 0) continue;
            g->columns[cells] = j;
            g->values[cells++] = a;
            scale[i] += a;
        }
        scale[i] = scale[i] > 0 ? 1 / sqrt(scale[i]) : 0;
    }
    if (s == LK_OK) {
        g->starts[n] = cells;
        for (size_t i = 0; i < n; i++)
            for (size_t c = g->starts[i]; c < g->starts[i + 1]; c++) g->values[c] *= scale[i] * scale[g->columns[c]];
    }
    free(near);
    free(distances);
    free(scale);
    return s;
}

/* out = x - alpha S x */
static void apply(const graph *g, double alpha, const double *x, double *out)
{
    for (size_t i = 0; i < g->n; i++) {
        double sum = 0;
        for (size_t c = g->starts[i]; c < g->starts[i + 1]; c++) sum += g->values[c] * x[g->columns[c]];
        out[i] = x[i] - alpha * sum;
    }
}

static double dot(const double *a, const double *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* Conjugate gradients (Hestenes & Stiefel, 1952) from zero. residual holds y on entry. */
static lk_status solve(const graph *g, const lk_diffusion_options *o, double *residual, double *f)
{
    size_t n = g->n;
    double *direction = lk_alloc(n, sizeof *direction), *image = lk_alloc(n, sizeof *image);
    if (!direction || !image) {
        free(direction);
        free(image);
        return lk_fail_memory("diffusion");
    }
    memcpy(direction, residual, n * sizeof *direction);
    double square = dot(residual, residual, n), enough = (double)o->tolerance * (double)o->tolerance * square;
    for (uint32_t step = 0; step < o->iterations && square > enough; step++) {
        apply(g, (double)o->alpha, direction, image);
        double length = square / dot(direction, image, n);
        for (size_t i = 0; i < n; i++) f[i] += length * direction[i];
        for (size_t i = 0; i < n; i++) residual[i] -= length * image[i];
        double next = dot(residual, residual, n);
        for (size_t i = 0; i < n; i++) direction[i] = residual[i] + next / square * direction[i];
        square = next;
    }
    free(direction);
    free(image);
    return LK_OK;
}

lk_status lk_diffusion_rerank(const lk_diffusion_options *options, const lk_shortlist *list,
                              const lk_neighbour_source *source, float *out)
{
    lk_diffusion_options o = options ? *options : lk_diffusion_defaults();
    if (o.k == 0 || o.kq == 0 || !(o.alpha >= 0 && o.alpha < 1) || !(o.gamma > 0) || o.iterations == 0 ||
        !(o.tolerance >= 0))
        return lk_fail(LK_INVALID,
                       "diffusion: k, kq, gamma and the iterations are above 0, alpha is from 0 to below 1");
    if (list->count == 0) return LK_OK;
    graph g = {0};
    double *y = lk_alloc_zero(list->count, sizeof *y), *f = lk_alloc_zero(list->count, sizeof *f);
    lk_status s = y && f ? LK_OK : lk_fail_memory("diffusion");
    if (s == LK_OK) s = build(&o, list, source, &g);
    if (s == LK_OK) {
        for (size_t i = 0; i < list->count && i < o.kq; i++)
            y[i] = affinity((double)list->distances[i], (double)o.gamma);
        s = solve(&g, &o, y, f);
    }
    for (size_t i = 0; s == LK_OK && i < list->count; i++) out[i] = (float)f[i];
    free(y);
    free(f);
    graph_free(&g);
    return s;
}
