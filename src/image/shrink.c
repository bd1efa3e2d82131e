#include "image/shrink.h"

#include "base/memory.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define LOBES 3
#define PAST 3   /* numbers beyond a line that are read and not counted: four channels are weighed at once */
#define STRIP 16 /* numbers of a line that are weighed at once */

typedef float four __attribute__((vector_size(16), aligned(4), may_alias));

/* From `from` pixels to `to`: averages of `box` pixels, then for each result `taps` averages from `first` on. */
typedef struct axis {
    uint32_t from, to, box, boxes, taps;
    uint32_t *first; /* [to] */
    float *weights;  /* [to][taps] */
} axis;

struct lk_shrink {
    axis x, y;
    uint32_t channels; /* weighed: 1, 3, or 4 with alpha multiplied in */
    bool same, flatten;
    uint8_t background[3];
    lk_image out;
    uint32_t rows, lines, done; /* taken, averaged, written */
    size_t stride;              /* of a line: x.boxes * channels and PAST, in whole strips */
    uint8_t *bytes;             /* a row without alpha, or one on its way out */
    float *sum;                 /* rows of one box before columns are averaged; NULL where they are not */
    float *ring;                /* [y.taps][stride] the last lines */
    float *line;                /* [stride] weighed along y */
};

static double lanczos(double x)
{
    if (x == 0) return 1;
    if (fabs(x) >= LOBES) return 0;
    return LOBES * sin(M_PI * x) * sin(M_PI * x / LOBES) / (M_PI * M_PI * x * x);
}

/* What lies beyond an edge is like the pixel at the edge, so that one's weight takes the others'. */
static bool axis_make(axis *a, uint32_t from, uint32_t to)
{
    double ratio = (double)from / to;
    uint32_t box = ratio >= 4 ? (uint32_t)(ratio / 2) : 1;
    ratio /= box;
    uint32_t half = from == to ? 0 : (uint32_t)rint(LOBES * ratio), reach = 2 * half + 1;
    *a = (axis){.from = from, .to = to, .box = box, .boxes = (from - 1) / box + 1};
    a->taps = reach < a->boxes ? reach : a->boxes;
    a->first = lk_alloc(to, sizeof *a->first);
    a->weights = lk_alloc_zero(to, a->taps * sizeof *a->weights);
    if (!a->first || !a->weights) return false;
    int64_t last = a->boxes - a->taps;
    for (uint32_t i = 0; i < to; i++) {
        double centre = (i + 0.5) * ratio - 0.5, total = 0;
        int64_t start = (int64_t)(centre + 0.5) - half;
        int64_t first = start < 0 ? 0 : start > last ? last : start;
        float *weights = a->weights + (size_t)i * a->taps;
        for (uint32_t k = 0; k < reach; k++) {
            int64_t at = start + k < 0 ? 0 : start + k >= a->boxes ? a->boxes - 1 : start + k;
            double weight = lanczos(((double)(start + k) - centre) / ratio);
            total += weight;
            weights[at - first] += (float)weight;
        }
        for (uint32_t k = 0; k < a->taps; k++) weights[k] = (float)(weights[k] / total);
        a->first[i] = (uint32_t)first;
    }
    return true;
}

lk_shrink *lk_shrink_new(uint32_t width, uint32_t height, uint32_t channels, const uint8_t background[3],
                         const lk_image *out)
{
    lk_shrink *s = lk_alloc_zero(1, sizeof *s);
    if (!s) return NULL;
    s->out = *out;
    s->flatten = channels == 4 && out->channels == 3;
    s->channels = s->flatten ? 3 : channels;
    s->same = width == out->width && height == out->height;
    memcpy(s->background, background, 3);
    s->bytes = lk_alloc(width, s->channels);
    bool made = s->bytes && axis_make(&s->x, width, out->width) && axis_make(&s->y, height, out->height);
    if (made && !s->same) {
        s->stride = ((size_t)s->x.boxes * s->channels + PAST + STRIP - 1) / STRIP * STRIP;
        s->ring = lk_alloc_zero(s->y.taps, s->stride * sizeof *s->ring);
        s->line = lk_alloc_zero(s->stride, sizeof *s->line);
        if (s->x.box > 1) s->sum = lk_alloc(width, s->channels * sizeof *s->sum);
        made = s->ring && s->line && (s->sum || s->x.box == 1);
    }
    if (made) return s;
    lk_shrink_free(s);
    return NULL;
}

void lk_shrink_free(lk_shrink *s)
{
    if (!s) return;
    free(s->x.first);
    free(s->x.weights);
    free(s->y.first);
    free(s->y.weights);
    free(s->bytes);
    free(s->sum);
    free(s->ring);
    free(s->line);
    free(s);
}

void lk_flatten(const uint8_t *from, uint8_t *to, size_t count, const uint8_t background[3])
{
    for (; count; count--, from += 4, to += 3) {
        uint32_t alpha = from[3];
        for (size_t c = 0; c < 3; c++) to[c] = (uint8_t)((from[c] * alpha + background[c] * (255 - alpha)) / 255);
    }
}

/* Bytes as numbers, added `times` to the sum or beginning one. Straight alpha is multiplied in, or invisible colours
 * would bleed into visible ones. */
static void add_row(const lk_shrink *s, const uint8_t *restrict row, float times, bool begin, float *restrict sum)
{
    size_t n = (size_t)s->x.from * s->channels;
    if (s->channels == 4) {
        for (size_t i = 0; i < n; i += 4) {
            float alpha = times * row[i + 3];
            for (size_t c = 0; c < 3; c++) sum[i + c] = (begin ? 0 : sum[i + c]) + row[i + c] * (alpha / 255);
            sum[i + 3] = (begin ? 0 : sum[i + 3]) + alpha;
        }
    } else {
        for (size_t i = 0; i < n; i++) sum[i] = (begin ? 0 : sum[i]) + times * row[i];
    }
}

/* Columns of a row of sums, and what makes averages of both. */
static void average(const lk_shrink *s, float *line)
{
    const axis *x = &s->x;
    size_t channels = s->channels;
    float part = 1 / ((float)x->box * (float)s->y.box);
    for (uint32_t b = 0; b < x->boxes; b++) {
        uint32_t left = b * x->box, n = x->from - left < x->box ? x->from - left : x->box;
        const float *p = s->sum + left * channels;
        for (size_t c = 0; c < channels; c++) {
            float sum = p[(n - 1) * channels + c] * (float)(x->box - n); /* the last box goes on as it ends */
            for (uint32_t i = 0; i < n; i++) sum += p[i * channels + c];
            line[b * channels + c] = sum * part;
        }
    }
}

/* Along y, a strip of numbers at a time, which stays in registers. Colours are cut off at black and white between the
 * axes, as where rows are bytes. */
static void weigh_lines(lk_shrink *s)
{
    const axis *y = &s->y;
    const float *weights = y->weights + (size_t)s->done * y->taps;
    uint32_t first = y->first[s->done] % y->taps;
    for (size_t i = 0; i < s->stride; i += STRIP) {
        four sum[STRIP / 4] = {0};
        for (uint32_t k = 0, at = first; k < y->taps; k++, at = at + 1 == y->taps ? 0 : at + 1) {
            const four *from = (const four *)(s->ring + at * s->stride + i);
            for (size_t j = 0; j < STRIP / 4; j++) sum[j] += weights[k] * from[j];
        }
        memcpy(s->line + i, sum, sizeof sum);
    }
    if (s->channels == 4) return;
    for (size_t i = 0; i < s->stride; i++) s->line[i] = s->line[i] < 0 ? 0 : s->line[i] > 255 ? 255 : s->line[i];
}

static uint8_t to_byte(float x)
{
    return x <= 0 ? 0 : x >= 255 ? 255 : (uint8_t)(x + 0.5f);
}

/* Along x. */
static void weigh_columns(const lk_shrink *s, uint8_t *to)
{
    size_t channels = s->channels;
    for (uint32_t i = 0; i < s->x.to; i++, to += channels) {
        const float *w = s->x.weights + (size_t)i * s->x.taps, *from = s->line + s->x.first[i] * channels;
        four sum = {0};
        for (uint32_t k = 0; k < s->x.taps; k++, from += channels) sum += w[k] * *(const four *)from;
        if (channels == 4) sum *= (four){0, 0, 0, 1} + (sum[3] < 0.01f ? 0 : 255 / sum[3]) * (four){1, 1, 1, 0};
        for (size_t c = 0; c < channels; c++) to[c] = to_byte(sum[c]);
    }
}

/* A finished row into the picture, grey or without alpha as it may be. */
static void write_row(lk_shrink *s, const uint8_t *row)
{
    size_t has = s->channels, wants = s->out.channels;
    uint8_t *to = s->out.pixels + (size_t)s->done++ * s->out.width * wants;
    if (has == wants) {
        memcpy(to, row, s->out.width * has);
        return;
    }
    for (uint32_t i = 0; i < s->out.width; i++, row += has, to += wants) {
        for (size_t c = 0; c < 3; c++) to[c] = row[has == 1 ? 0 : c];
        if (wants == 4) to[3] = 255;
    }
}

void lk_shrink_row(lk_shrink *s, const uint8_t *row)
{
    axis *x = &s->x, *y = &s->y;
    if (s->rows == y->from) return;
    if (s->flatten) {
        lk_flatten(row, s->bytes, x->from, s->background);
        row = s->bytes;
    }
    s->rows++;
    if (s->same) {
        write_row(s, row);
        return;
    }
    float *line = s->ring + s->lines % y->taps * s->stride, *sum = s->sum ? s->sum : line;
    uint32_t in_box = (s->rows - 1) % y->box, missing = y->box - 1 - in_box;
    bool last = s->rows == y->from;
    /* Without columns to average the sum is the line, so it is divided at once. */
    float share = s->sum ? 1 : 1 / (float)y->box;
    add_row(s, row, share * (float)(last ? 1 + missing : 1), in_box == 0, sum);
    if (missing && !last) return;
    if (s->sum) average(s, line);
    s->lines++;
    while (s->done < y->to && y->first[s->done] + y->taps <= s->lines) {
        weigh_lines(s);
        weigh_columns(s, s->bytes);
        write_row(s, s->bytes);
    }
}
