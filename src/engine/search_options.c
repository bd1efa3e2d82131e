/* Names of expansions and re-rankers, with their parameters, as people type them. */
#include "base/error.h"
#include "base/file.h"
#include "engine/searcher.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 4, SHOWN = 40 /* bytes of a value in a message */ };
#define MOST_DISTANCE 1e30

static const char *const rerank_names[] = {"none", "kreciprocal", "diffusion", "superglobal", "geometric"};
static const char *const expansion_names[] = {"none", "aqe", "rank", "alpha"};

lk_kreciprocal_options lk_search_kreciprocal(void)
{
    return (lk_kreciprocal_options){.k1 = 12, .k2 = 2, .lambda = 0.8f};
}

lk_diffusion_options lk_search_diffusion(void)
{
    lk_diffusion_options o = lk_diffusion_defaults();
    o.k = 20;
    o.alpha = 0.2f;
    return o;
}

const char *lk_rerank_name(lk_rerank rerank)
{
    return rerank_names[rerank];
}

/* The position in names [n] of what stands before the first colon; n when there is none. */
static size_t named(const char *text, const char *const *names, size_t n)
{
    size_t length = strcspn(text, ":"), at = 0;
    while (at < n && (strlen(names[at]) != length || strncmp(text, names[at], length) != 0)) at++;
    return at;
}

/* What stands behind: numbers above 0, each after a colon. Returns how many, -1 when they are none or more than most.
 */
static int numbers(const char *text, int most, double out[MOST])
{
    int count = 0;
    const char *at = text + strcspn(text, ":");
    while (*at == ':') {
        char *end;
        double value = strtod(at + 1, &end);
        if (count == most || end == at + 1 || (*end && *end != ':') || !(value >= 0 && value <= 1e6)) return -1;
        out[count++] = value;
        at = end;
    }
    return count;
}

static bool whole(const double *values, int given, int n)
{
    for (int i = 0; i < n && i < given; i++)
        if (values[i] != floor(values[i]) || values[i] < 1) return false;
    return true;
}

lk_status lk_rerank_parse(const char *text, lk_search_options *out)
{
    static const int most[] = {0, 3, 4, 2, 2}, wholes[] = {0, 2, 2, 1, 1};
    lk_kreciprocal_options k = lk_search_kreciprocal();
    lk_diffusion_options d = lk_search_diffusion();
    lk_superglobal_options g = lk_superglobal_defaults();
    double v[MOST] = {0};
    size_t kind = named(text, rerank_names, sizeof rerank_names / sizeof *rerank_names);
    if (kind == sizeof rerank_names / sizeof *rerank_names)
        return lk_fail(LK_INVALID,
                       "there is no re-ranking %.*s: none, kreciprocal, diffusion, superglobal or geometric is wanted",
                       lk_utf8_fit(text, SHOWN), text);
    int n = numbers(text, most[kind], v);
    if (n < 0 || !whole(v, n, wholes[kind]))
        return lk_fail(
            LK_INVALID,
            "%.*s: kreciprocal[:K1[:K2[:LAMBDA]]], diffusion[:K[:KQ[:GAMMA[:ALPHA]]]], superglobal[:K[:BETA]] or "
            "geometric[:LEAST[:WEIGHT]] is wanted",
            lk_utf8_fit(text, SHOWN), text);
    out->rerank = (lk_rerank)kind;
    switch (out->rerank) {
    case LK_RERANK_KRECIPROCAL:
        if (n > 0) k.k1 = (uint32_t)v[0];
        if (n > 1) k.k2 = (uint32_t)v[1];
        if (n > 2) k.lambda = (float)v[2];
        out->kreciprocal = k;
        break;
    case LK_RERANK_DIFFUSION:
        if (n > 0) d.k = (uint32_t)v[0];
        if (n > 1) d.kq = (uint32_t)v[1];
        if (n > 2) d.gamma = (float)v[2];
        if (n > 3) d.alpha = (float)v[3];
        out->diffusion = d;
        break;
    case LK_RERANK_SUPERGLOBAL:
        if (n > 0) g.k = (uint32_t)v[0];
        if (n > 1) g.beta = (float)v[1];
        out->superglobal = g;
        break;
    default: out->geometric_least = n > 0 ? (uint32_t)v[0] : 0; out->geometric_weight = n > 1 ? (float)v[1] : 0;
    }
    return LK_OK;
}

lk_status lk_expansion_parse(const char *text, lk_search_options *out)
{
    static const int most[] = {0, 1, 1, 2};
    double v[MOST] = {0};
    size_t kind = named(text, expansion_names, sizeof expansion_names / sizeof *expansion_names);
    if (kind == sizeof expansion_names / sizeof *expansion_names)
        return lk_fail(LK_INVALID, "there is no query expansion %.*s: none, aqe, rank or alpha is wanted",
                       lk_utf8_fit(text, SHOWN), text);
    int n = numbers(text, most[kind], v);
    if (n < 0 || !whole(v, n, 1))
        return lk_fail(LK_INVALID, "%.*s: aqe[:N], rank[:N] or alpha[:N[:ALPHA]] is wanted", lk_utf8_fit(text, SHOWN),
                       text);
    out->expand = (lk_expansion)kind;
    if (n > 0) out->expand_k = (size_t)v[0];
    if (n > 1) out->expand_alpha = (float)v[1];
    return LK_OK;
}

static lk_status read_number(const char *option, const char *text, double most, float *out)
{
    char *end;
    double number = strtod(text, &end);
    if (end == text || *end || !(number >= 0 && number <= most))
        return lk_fail(LK_INVALID, "%s %.*s: a number from 0 to %g is wanted", option, lk_utf8_fit(text, SHOWN), text,
                       most);
    *out = (float)number;
    return LK_OK;
}

lk_status lk_within_parse(const char *option, const char *text, lk_metric metric, lk_search_options *out)
{
    float distance = 0;
    lk_status s = read_number(option, text, MOST_DISTANCE, &distance);
    if (s != LK_OK) return s;
    if (metric == LK_INNER_PRODUCT) return lk_fail(LK_UNSUPPORTED, "%s: inner products are no distances", option);
    out->range = true;
    out->bound = metric == LK_COSINE ? 1 - distance : distance;
    return LK_OK;
}

lk_status lk_fuse_parse(const char *option, const char *text, lk_search_options *out)
{
    bool best = strcmp(text, "best") == 0;
    if (!best && strcmp(text, "mean") != 0)
        return lk_fail(LK_INVALID, "%s %.*s: mean or best is wanted", option, lk_utf8_fit(text, SHOWN), text);
    out->fuse = best ? LK_FUSE_BEST : LK_FUSE_MEAN;
    return LK_OK;
}

lk_status lk_apart_parse(const char *option, const char *text, lk_search_options *out)
{
    return read_number(option, text, MOST_DISTANCE, &out->diverse.apart);
}

lk_status lk_trade_parse(const char *option, const char *text, lk_search_options *out)
{
    return read_number(option, text, 1, &out->diverse.trade);
}
