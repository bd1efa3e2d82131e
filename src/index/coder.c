/* The quantisers of quantise.h and rabitq.h behind one face: mean off, rotation, code; query, product, score.
 *
 * With x = c + r, c the mean: q.x = q.c + q.r, and |q - x|^2 = |(q - c) - r|^2 = |q - c|^2 + |r|^2 - 2 (q - c).r. */
#include "base/error.h"
#include "base/memory.h"
#include "index/quantise.h"
#include "index/rabitq.h"
#include <likeness/codes.h>

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* In front of each code. */
typedef union factors {
    lk_rabitq_factors rabitq;
    struct {
        lk_lvq_factors lvq;
        float squares; /* |r|^2 of what the code stands for */
        float slip;    /* |r|^2 of the vector is at most this further */
        uint32_t sum;  /* of the codes */
    } scalar;
} factors;

struct lk_coder {
    lk_codes_kind kind;
    int bits;
    lk_metric metric;
    size_t dim, code; /* bytes behind the factors */
    float *centre;
    lk_rotation rotation; /* LK_CODES_RABITQ */
    const lk_code_kernels *kernels;
};

static lk_status take(const lk_coder *coder, const float *vector, size_t number, float *out)
{
    double squares = 0;
    for (size_t i = 0; i < coder->dim; i++) squares += (double)vector[i] * vector[i];
    if (!(squares < FLT_MAX))
        return lk_fail(LK_INVALID, "vector %zu holds a component that is not finite, or too large", number);
    double factor = coder->metric == LK_COSINE && squares > 0 ? 1 / sqrt(squares) : 1;
    for (size_t i = 0; i < coder->dim; i++) out[i] = (float)(vector[i] * factor);
    return LK_OK;
}

static lk_status learn_centre(lk_coder *coder, size_t n, const float *vectors)
{
    double *sums = lk_alloc_zero(coder->dim, sizeof *sums);
    float *row = lk_alloc(coder->dim, sizeof *row);
    lk_status s = sums && row ? LK_OK : lk_fail_memory("codes");
    for (size_t r = 0; s == LK_OK && r < n; r++) {
        s = take(coder, vectors + r * coder->dim, r, row);
        for (size_t i = 0; s == LK_OK && i < coder->dim; i++) sums[i] += row[i];
    }
    for (size_t i = 0; s == LK_OK && i < coder->dim; i++) coder->centre[i] = (float)(sums[i] / (double)n);
    free(sums);
    free(row);
    return s;
}

lk_status lk_coder_new(lk_codes_kind kind, int bits, lk_metric metric, size_t n, size_t dim, const float *vectors,
                       uint64_t seed, lk_coder **out)
{
    *out = NULL;
    if (n == 0 || dim == 0 || dim > LK_CODES_MAX_DIM)
        return lk_fail(LK_INVALID, "codes of %zu vectors of %zu components cannot be made", n, dim);
    if (kind == LK_CODES_SCALAR ? bits != 4 && bits != 8
                                : kind != LK_CODES_RABITQ || bits < 1 || bits > LK_RABITQ_MAX_BITS)
        return lk_fail(LK_INVALID, "there are no codes of kind %d with %d bits", (int)kind, bits);
    lk_coder *coder = lk_alloc_zero(1, sizeof *coder);
    if (!coder) return lk_fail_memory("codes");
    *coder = (lk_coder){.kind = kind,
                        .bits = bits,
                        .metric = metric,
                        .dim = dim,
                        .code = kind == LK_CODES_SCALAR ? lk_lvq_bytes(bits, dim) : lk_rabitq_bytes(bits, dim),
                        .centre = lk_alloc(dim, sizeof *coder->centre),
                        .kernels = lk_code_kernels_for(lk_cpu_detect())};
    lk_status s = coder->centre ? LK_OK : lk_fail_memory("codes");
    if (s == LK_OK) s = learn_centre(coder, n, vectors);
    if (s == LK_OK && kind == LK_CODES_RABITQ) s = lk_rotation_init(&coder->rotation, dim, seed);
    if (s == LK_OK)
        *out = coder;
    else
        lk_coder_free(coder);
    return s;
}

void lk_coder_free(lk_coder *coder)
{
    if (!coder) return;
    lk_rotation_free(&coder->rotation);
    free(coder->centre);
    free(coder);
}

size_t lk_coder_bytes(const lk_coder *coder)
{
    return sizeof(factors) + coder->code;
}

static unsigned scalar_code(const lk_coder *coder, const uint8_t *code, size_t i)
{
    return coder->bits == 8 ? code[i] : code[i / 2] >> (i % 2 * 4) & 15u;
}

/* rest [dim] is the vector without the mean; back [dim] is scratch. */
static void encode_scalar(const lk_coder *coder, const float *rest, float *back, factors *f, uint8_t *code)
{
    double own = 0, coded = 0;
    lk_lvq_encode(coder->bits, coder->dim, rest, code, &f->scalar.lvq);
    lk_lvq_decode(coder->bits, coder->dim, code, &f->scalar.lvq, back);
    for (size_t i = 0; i < coder->dim; i++) {
        own += (double)rest[i] * rest[i];
        coded += (double)back[i] * back[i];
        f->scalar.sum += scalar_code(coder, code, i);
    }
    f->scalar.squares = (float)coded;
    f->scalar.slip = (float)fabs(own - coded);
}

lk_status lk_coder_encode(const lk_coder *coder, size_t n, const float *vectors, uint8_t *codes)
{
    float *rest = lk_alloc(2 * coder->dim, sizeof *rest), *back = rest + coder->dim;
    if (!rest) return lk_fail_memory("codes");
    lk_status s = LK_OK;
    for (size_t r = 0; s == LK_OK && r < n; r++) {
        uint8_t *at = codes + r * lk_coder_bytes(coder);
        factors f;
        memset(&f, 0, sizeof f); /* its unused bytes are written too */
        s = take(coder, vectors + r * coder->dim, r, rest);
        if (s != LK_OK) break;
        for (size_t i = 0; i < coder->dim; i++) rest[i] -= coder->centre[i];
        if (coder->kind == LK_CODES_SCALAR) {
            encode_scalar(coder, rest, back, &f, at + sizeof f);
        } else {
            lk_rotate(&coder->rotation, rest);
            s = lk_rabitq_encode(coder->bits, coder->dim, rest, at + sizeof f, &f.rabitq);
        }
        memcpy(at, &f, sizeof f);
    }
    free(rest);
    return s;
}

lk_status lk_coder_decode(const lk_coder *coder, size_t n, const uint8_t *codes, float *out)
{
    for (size_t r = 0; r < n; r++) {
        const uint8_t *at = codes + r * lk_coder_bytes(coder);
        float *row = out + r * coder->dim;
        factors f;
        memcpy(&f, at, sizeof f);
        if (coder->kind == LK_CODES_SCALAR) {
            lk_lvq_decode(coder->bits, coder->dim, at + sizeof f, &f.scalar.lvq, row);
        } else {
            lk_rabitq_decode(coder->bits, coder->dim, at + sizeof f, &f.rabitq, row);
            lk_rotate_back(&coder->rotation, row);
        }
        for (size_t i = 0; i < coder->dim; i++) row[i] += coder->centre[i];
    }
    return LK_OK;
}

/* What is compared with the codes: the query, or for distances what is left of it without the mean. */
typedef struct asked {
    float *query;       /* [dim], rotated */
    int8_t *components; /* [dim] */
    lk_rabitq_query rounded;
    double added;     /* to every score: q.c, or |q - c|^2 */
    double total;     /* of the components of query */
    double magnitude; /* of their sizes */
} asked;

static lk_status ask(const lk_coder *coder, const float *query, uint64_t seed, asked *out)
{
    lk_status s = take(coder, query, 0, out->query);
    if (s != LK_OK) return s;
    for (size_t i = 0; i < coder->dim; i++) {
        if (coder->metric == LK_L2) {
            out->query[i] -= coder->centre[i];
            out->added += (double)out->query[i] * out->query[i];
        } else {
            out->added += (double)out->query[i] * coder->centre[i];
        }
    }
    if (coder->kind == LK_CODES_RABITQ) lk_rotate(&coder->rotation, out->query);
    for (size_t i = 0; i < coder->dim; i++) {
        out->total += out->query[i];
        out->magnitude += fabs((double)out->query[i]);
    }
    lk_rabitq_query_init(&out->rounded, coder->dim, out->query, seed, out->components);
    return LK_OK;
}

/* The estimate of q.r; *bound is how far off it may be. */
static double scalar_product(const lk_coder *coder, const asked *q, const factors *f, const uint8_t *code,
                             double *bound)
{
    const lk_lvq_factors *lvq = &f->scalar.lvq;
    int32_t (*dot)(const int8_t *, const uint8_t *, size_t) =
        coder->bits == 8 ? coder->kernels->dot_u8 : coder->kernels->dot_u4;
    double product = (double)dot(q->components, code, coder->dim) * (double)q->rounded.step;
    /* Half a step of the codes for each component of the query, a step of the query for each code; and some rounding.
     */
    *bound = 0.5 * (double)lvq->scale * q->magnitude + (double)lvq->scale * (double)q->rounded.step * f->scalar.sum;
    *bound += 1e-6 * (fabs(q->total * (double)lvq->offset) + fabs((double)lvq->scale * product));
    return (double)lvq->offset * q->total + (double)lvq->scale * product;
}

static void score_one(const lk_coder *coder, const asked *q, const uint8_t *at, float *score, float *bound)
{
    factors f;
    double product, error, squares, slip = 0;
    memcpy(&f, at, sizeof f);
    if (coder->kind == LK_CODES_SCALAR) {
        product = scalar_product(coder, q, &f, at + sizeof f, &error);
        squares = (double)f.scalar.squares;
        slip = (double)f.scalar.slip;
    } else {
        float own;
        product = (double)lk_rabitq_dot(coder->kernels, coder->bits, &q->rounded, at + sizeof f, &f.rabitq, &own);
        squares = (double)f.rabitq.squares;
        error = (double)own;
    }
    *score = (float)(coder->metric == LK_L2 ? q->added + squares - 2 * product : q->added + product);
    *bound = (float)(coder->metric == LK_L2 ? 2 * error + slip + 1e-6 * (q->added + squares) : error);
}

lk_status lk_coder_scores(const lk_coder *coder, const float *query, uint64_t seed, size_t n, const uint8_t *codes,
                          float *scores, float *bounds)
{
    asked q = {.query = lk_alloc(coder->dim, sizeof *q.query), .components = lk_alloc(coder->dim, 1)};
    lk_status s = q.query && q.components ? ask(coder, query, seed, &q) : lk_fail_memory("codes");
    for (size_t i = 0; s == LK_OK && i < n; i++) {
        float bound;
        score_one(coder, &q, codes + i * lk_coder_bytes(coder), &scores[i], bounds ? &bounds[i] : &bound);
    }
    free(q.query);
    free(q.components);
    return s;
}
