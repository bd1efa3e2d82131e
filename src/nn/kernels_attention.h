/* Attention of one head, part of kernels_simd.h. Keys are turned once so that 64 of them are multiplied at a time with
 * six rows of q (24 sums in registers), and the probabilities of six rows with whole rows of v. With bf16 instructions
 * two neighbouring factors are kept together and multiplied at once; the sums are f32. */

#if defined(__AVX512F__)
/* sums [rows][4 x 16] over n of a[r][i] * b[i][64], on top of y when `more`; b's rows are `step` floats apart. Of a row
 * there are `runs` of n numbers, `distance` apart. `ahead`: memory that is fetched meanwhile, a line for every i. */
__attribute__((always_inline)) static inline void multiply_rows(const int rows, const float *const *a, size_t runs,
                                                                size_t distance, const float *b, size_t step, size_t n,
                                                                const int vectors, float *y, size_t y_step,
                                                                const bool more, const char *ahead)
{
    lanes sums[LK_HEAD_ROWS][4];
    const float *at[LK_HEAD_ROWS];
    for (int r = 0; r < rows; r++) at[r] = a[r];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
            sums[r][v] = more ? load_lanes(y + (size_t)r * y_step + 16 * (size_t)v) : (lanes){0};
    for (size_t run = 0; run < runs; run++, b += n * step, ahead += 64 * n) {
        for (size_t i = 0; i < n; i++) {
            lanes w[4];
            __builtin_prefetch(ahead + 64 * i, 0, 2);
            for (int v = 0; v < vectors; v++) w[v] = load_lanes(b + i * step + 16 * (size_t)v);
            for (int r = 0; r < rows; r++)
                for (int v = 0; v < vectors; v++) sums[r][v] += at[r][i] * w[v];
        }
        for (int r = 0; r < rows; r++) at[r] += distance;
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) memcpy(y + (size_t)r * y_step + 16 * (size_t)v, &sums[r][v], sizeof(lanes));
}

#endif

#define EACH_ROWS(call, vectors)                                                                                       \
    switch (rows) {                                                                                                    \
    case 6: call(6, vectors); return;                                                                                  \
    case 5: call(5, vectors); return;                                                                                  \
    case 4: call(4, vectors); return;                                                                                  \
    case 3: call(3, vectors); return;                                                                                  \
    case 2: call(2, vectors); return;                                                                                  \
    default: call(1, vectors); return;                                                                                 \
    }
#define EACH_SHAPE(call)                                                                                               \
    switch (vectors) {                                                                                                 \
    case 4: EACH_ROWS(call, 4)                                                                                         \
    case 3: EACH_ROWS(call, 3)                                                                                         \
    case 2: EACH_ROWS(call, 2)                                                                                         \
    default: EACH_ROWS(call, 1)                                                                                        \
    }

#if defined(__AVX512F__)
static void multiply_some(int rows, const float *const *a, size_t runs, size_t distance, const float *b, size_t step,
                          size_t n, int vectors, float *y, size_t y_step, bool more, const void *ahead)
{
#define CALL(r, v) multiply_rows(r, a, runs, distance, b, step, n, v, y, y_step, more, ahead)
    EACH_SHAPE(CALL)
#undef CALL
}
#else
/* Sixteen registers of 32 bytes hold the sums of six rows and two halves, one line of b for every i; or of one row and
 * all of a panel. */
typedef float half_lanes __attribute__((vector_size(32)));

static inline half_lanes load_half(const float *x)
{
    half_lanes v;
    memcpy(&v, x, sizeof v);
    return v;
}

__attribute__((always_inline)) static inline void multiply_halves(const int rows, const int across,
                                                                  const float *const *a, size_t runs, size_t distance,
                                                                  const float *b, size_t step, size_t n, float *y,
                                                                  size_t y_step, const bool more, const char *ahead)
{
    half_lanes sums[LK_HEAD_ROWS][8];
    const float *at[LK_HEAD_ROWS];
    for (int r = 0; r < rows; r++) at[r] = a[r];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int h = 0; h < across; h++)
            sums[r][h] = more ? load_half(y + (size_t)r * y_step + 8 * h) : (half_lanes){0};
    for (size_t run = 0; run < runs; run++, b += n * step, ahead += 8 * (size_t)across * n) {
        for (size_t i = 0; i < n; i++) {
            half_lanes w[8];
            __builtin_prefetch(ahead + 8 * (size_t)across * i, 0, 2); /* a panel takes 8 / across calls */
#pragma GCC unroll 8
            for (int h = 0; h < across; h++) w[h] = load_half(b + i * step + 8 * h);
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++) {
                float x = at[r][i];
#pragma GCC unroll 8
                for (int h = 0; h < across; h++) sums[r][h] += x * w[h];
            }
        }
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) at[r] += distance;
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int h = 0; h < across; h++) memcpy(y + (size_t)r * y_step + 8 * h, &sums[r][h], sizeof sums[r][h]);
}

static void multiply_some(int rows, const float *const *a, size_t runs, size_t distance, const float *b, size_t step,
                          size_t n, int vectors, float *y, size_t y_step, bool more, const void *ahead)
{
#define CALL(r, across) multiply_halves(r, across, a, runs, distance, b, step, n, y, y_step, more, ahead)
    if (rows == 1 && vectors == 4) {
        CALL(1, 8);
        return;
    }
    for (; vectors; vectors--, b += 16, y += 16) {
        switch (rows) {
        case 6: CALL(6, 2); break;
        case 5: CALL(5, 2); break;
        case 4: CALL(4, 2); break;
        case 3: CALL(3, 2); break;
        case 2: CALL(2, 2); break;
        default: CALL(1, 2); break;
        }
    }
#undef CALL
}
#endif

/* y [rows][width] = a [rows][n] b [n][width], width a multiple of 16. Every 64 columns of b begin `panel` floats after
 * the ones before: columns that lie together keep to few cache lines. */
static void multiply_all(int rows, const float *a, size_t a_step, const float *b, size_t step, size_t panel, size_t n,
                         size_t width, float *y, size_t y_step)
{
    const float *at[LK_HEAD_ROWS];
    for (int r = 0; r < rows; r++) at[r] = a + (size_t)r * a_step;
    for (size_t j = 0; j < width; j += 64, b += panel)
        multiply_some(rows, at, 1, 0, b, step, n, j + 64 <= width ? 4 : (int)((width - j) / 16), y + j, y_step, false,
                      b);
}

/* Probabilities from scores [rows][step], in place; row r is row first + r of q. */
static void probabilities(const lk_head *h, float *scores, size_t step, size_t first, int rows)
{
    for (int r = 0; r < rows; r++) {
        float *row = scores + (size_t)r * step;
        size_t seen = h->causal ? first + (size_t)r + 1 : h->keys;
        k_softmax(row, seen, h->scale);
        for (size_t s = seen; s < step; s++) row[s] = 0;
        if (h->saved) memcpy(h->saved + (first + (size_t)r) * h->keys, row, h->keys * sizeof *row);
    }
}

static void store_row(const lk_head *h, const float *y, size_t row)
{
    k_store(h->y_type, h->y_scale, y, h->width, (char *)h->y + row * h->y_step * lk_type_width(h->y_type));
}

static size_t to_16(size_t n)
{
    return (n + 15) / 16 * 16;
}

static void attention_f32(const lk_head *h)
{
    size_t columns = (h->keys + 63) / 64 * 64, bytes = lk_type_width(h->type);
    float *kt = h->scratch, *v = kt + columns * h->width, *scores = v + columns * h->width;
    float *q = scores + LK_HEAD_ROWS * columns, *y = q + LK_HEAD_ROWS * h->width;
    memset(kt, 0, columns * h->width * sizeof *kt);
    for (size_t s = 0; s < h->keys; s++) {
        k_load(h->type, 1, (const char *)h->k + s * h->k_step * bytes, h->width, q);
        for (size_t i = 0; i < h->width; i++) kt[s / 64 * 64 * h->width + i * 64 + s % 64] = q[i];
        k_load(h->type, 1, (const char *)h->v + s * h->v_step * bytes, h->width, v + s * h->width);
    }
    for (size_t t = 0; t < h->queries; t += LK_HEAD_ROWS) {
        int rows = h->queries - t < LK_HEAD_ROWS ? (int)(h->queries - t) : LK_HEAD_ROWS;
        for (int r = 0; r < rows; r++)
            k_load(h->type, 1, (const char *)h->q + (t + (size_t)r) * h->q_step * bytes, h->width,
                   q + (size_t)r * h->width);
        multiply_all(rows, q, h->width, kt, 64, 64 * h->width, h->width, to_16(h->keys), scores, columns);
        probabilities(h, scores, columns, t, rows);
        multiply_all(rows, scores, columns, v, h->width, 64, h->keys, h->width, y, h->width);
        for (int r = 0; r < rows; r++) store_row(h, y + (size_t)r * h->width, t + (size_t)r);
    }
}

#if defined(__AVX512BF16__)
#include "nn/kernels_swish.h"

/* As multiply_rows, over pairs: a [r][pair] and b [pair][64] hold two bf16 each. `ahead`: memory that is fetched
 * meanwhile, a line for every pair. */
__attribute__((always_inline)) static inline void multiply_pairs(const int rows, const uint32_t *a, size_t a_step,
                                                                 const uint32_t *b, size_t step, size_t pairs,
                                                                 const int vectors, float *y, size_t y_step,
                                                                 const bool more, const char *ahead)
{
    __m512 sums[LK_HEAD_ROWS][4];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
            sums[r][v] = more ? _mm512_loadu_ps(y + (size_t)r * y_step + 16 * (size_t)v) : _mm512_setzero_ps();
    for (size_t i = 0; i < pairs; i++) {
        __m512i w[4];
        _mm_prefetch(ahead + 64 * i, _MM_HINT_T1);
        for (int v = 0; v < vectors; v++) w[v] = _mm512_loadu_si512(b + i * step + 16 * (size_t)v);
        for (int r = 0; r < rows; r++) {
            __m512i x = _mm512_set1_epi32((int)a[(size_t)r * a_step + i]);
            for (int v = 0; v < vectors; v++) sums[r][v] = _mm512_dpbf16_ps(sums[r][v], (__m512bh)x, (__m512bh)w[v]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) _mm512_storeu_ps(y + (size_t)r * y_step + 16 * (size_t)v, sums[r][v]);
}

static void multiply_some_pairs(int rows, const uint32_t *a, size_t a_step, const uint32_t *b, size_t step,
                                size_t pairs, int vectors, float *y, size_t y_step, bool more, const void *ahead)
{
#define CALL(r, v) multiply_pairs(r, a, a_step, b, step, pairs, v, y, y_step, more, ahead)
    EACH_SHAPE(CALL)
#undef CALL
}

/* 16 rows of 16 words, turned. */
static inline void turn_words(__m512i r[16])
{
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        for (int h = 0; h < 2; h++) {
            r[i + 2 * h] = _mm512_unpacklo_epi64(t[i + h], t[i + 2 + h]);
            r[i + 2 * h + 1] = _mm512_unpackhi_epi64(t[i + h], t[i + 2 + h]);
        }
    }
    for (int i = 0; i < 8; i++) { /* blocks of four words: quarters of rows i % 4 + 4 j */
        int a = i % 4 + i / 4 * 8;
        t[i] = _mm512_shuffle_i32x4(r[a], r[a + 4], 0x88);
        t[i + 8] = _mm512_shuffle_i32x4(r[a], r[a + 4], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 4], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 4], 0xdd);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 8], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 8], t[i + 12], 0xdd);
    }
}

/* Keys in panels of at most 64, as alike as 16 divides them: of the first `vectors` sixteens, those before panel i. */
static size_t panel_begin(size_t vectors, size_t i)
{
    return vectors * i / ((vectors + 3) / 4);
}

/* kt: panels [pair of components][key], v [pair of keys][component]: neighbours in one word. */
static void turn_keys(const lk_head *h, uint32_t *kt, uint32_t *v)
{
    size_t half = h->width / 2, vectors = (h->keys + 15) / 16;
    for (size_t panel = 0; panel_begin(vectors, panel) < vectors; panel++) {
        size_t first = panel_begin(vectors, panel), columns = (panel_begin(vectors, panel + 1) - first) * 16;
        for (size_t s = first * 16; s < first * 16 + columns; s += 16) {
            uint32_t *to = kt + first * 16 * half + (s - first * 16);
            for (size_t i = 0; i < half; i += 16) {
                size_t some = half - i < 16 ? half - i : 16;
                __mmask16 mask = (__mmask16)((1u << some) - 1);
                __m512i r[16];
                for (size_t j = 0; j < 16; j++)
                    r[j] = s + j < h->keys
                               ? _mm512_maskz_loadu_epi32(mask, (const uint16_t *)h->k + (s + j) * h->k_step + 2 * i)
                               : _mm512_setzero_si512();
                turn_words(r);
                for (size_t j = 0; j < some; j++) _mm512_storeu_si512(to + (i + j) * columns, r[j]);
            }
        }
    }
    for (size_t s = 0; s < h->keys; s += 2) {
        const uint16_t *a = (const uint16_t *)h->v + s * h->v_step, *b = s + 1 < h->keys ? a + h->v_step : NULL;
        for (size_t i = 0; i < h->width; i += 16) {
            __m512i word = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(a + i)));
            if (b)
                word = _mm512_or_si512(
                    word, _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(b + i))), 16));
            _mm512_storeu_si512(v + s / 2 * h->width + i, word);
        }
    }
}

/* e^(scale (x - largest x)) of the first `seen` scores as bf16, nothing from there to `end`; returns 1 / their sum. */
static float exponentials(const float *x, size_t seen, size_t end, float scale, uint16_t *p)
{
    __m512 top = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps(), factor = _mm512_set1_ps(scale * 1.44269504f);
    for (size_t i = 0; i < seen; i += 16) {
        __mmask16 mask = seen - i < 16 ? (__mmask16)((1u << (seen - i)) - 1) : (__mmask16)-1;
        top = _mm512_mask_max_ps(top, mask, top, _mm512_loadu_ps(x + i));
    }
    top = _mm512_mul_ps(_mm512_set1_ps(_mm512_reduce_max_ps(top)), factor);
    for (size_t i = 0; i < end; i += 16) {
        __mmask16 mask = seen >= i + 16 ? (__mmask16)-1 : seen > i ? (__mmask16)((1u << (seen - i)) - 1) : 0;
        __m512 e = exp2_lanes(_mm512_fmsub_ps(_mm512_maskz_loadu_ps(mask, x + i), factor, top), false);
        e = _mm512_maskz_mov_ps(mask, e);
        sum = _mm512_add_ps(sum, e);
        _mm256_storeu_si256((__m256i *)(p + i), (__m256i)_mm512_cvtneps_pbh(e));
    }
    return 1.0f / _mm512_reduce_add_ps(sum);
}

static void attention_bf16(const lk_head *h)
{
    size_t columns = (h->keys + 63) / 64 * 64, half = h->width / 2, pairs = columns / 2, vectors = (h->keys + 15) / 16;
    uint32_t *kt = (uint32_t *)h->scratch, *v = kt + half * columns, *q = v + pairs * h->width,
             *p = q + LK_HEAD_ROWS * half;
    float *scores = (float *)(p + LK_HEAD_ROWS * pairs), *y = scores + LK_HEAD_ROWS * columns;
    turn_keys(h, kt, v);
    for (size_t t = 0; t < h->queries; t += LK_HEAD_ROWS) {
        int rows = h->queries - t < LK_HEAD_ROWS ? (int)(h->queries - t) : LK_HEAD_ROWS;
        for (int r = 0; r < rows; r++)
            memcpy(q + (size_t)r * half, (const uint16_t *)h->q + (t + (size_t)r) * h->q_step, h->width * 2);
        for (size_t panel = 0; panel_begin(vectors, panel) < vectors; panel++) {
            size_t first = panel_begin(vectors, panel), some = panel_begin(vectors, panel + 1) - first;
            const uint32_t *b = kt + first * 16 * half;
            multiply_some_pairs(rows, q, half, b, 16 * some, half, (int)some, scores + first * 16, columns, false, b);
        }
        float inverse[LK_HEAD_ROWS];
        for (int r = 0; r < rows; r++) {
            size_t seen = h->causal ? t + (size_t)r + 1 : h->keys;
            inverse[r] = exponentials(scores + (size_t)r * columns, seen, to_16(h->keys), h->scale,
                                      (uint16_t *)(p + (size_t)r * pairs));
        }
        for (size_t j = 0; j < h->width; j += 64)
            multiply_some_pairs(rows, p, pairs, v + j, h->width, (h->keys + 1) / 2,
                                j + 64 <= h->width ? 4 : (int)((h->width - j) / 16), y + j, h->width, false, v);
        for (int r = 0; r < rows; r++) {
            float *row = y + (size_t)r * h->width;
            for (size_t i = 0; i < h->width; i++) row[i] *= inverse[r];
            store_row(h, row, t + (size_t)r);
        }
    }
}

#endif

static void k_attention(const lk_head *h)
{
#if defined(__AVX512BF16__)
    if (h->type == LK_TYPE_BF16) {
        attention_bf16(h);
        return;
    }
#endif
    attention_f32(h);
}
