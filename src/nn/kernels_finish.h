/* What follows a product, part of kernels_simd.h. */
#include "nn/kernels_swish.h"

#if defined(__AVX512F__) && defined(__AVX512DQ__)
/* x (1 + erf(x / sqrt 2)) / 2 with erf by Abramowitz & Stegun 7.1.26: for negative x it is the small term itself, for
 * positive x what that leaves of x. */
__attribute__((always_inline)) static inline __m512 gelu_lanes(__m512 x, const bool fine)
{
    static const float series[] = {1.061405429f, -1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f};
    __m512 d = _mm512_fmadd_ps(_mm512_abs_ps(x), _mm512_set1_ps(0.3275911f * 0.70710678f), _mm512_set1_ps(1));
    __m512 t = _mm512_rcp14_ps(d), p = _mm512_set1_ps(series[0]);
    if (fine) t = _mm512_mul_ps(t, _mm512_fnmadd_ps(d, t, _mm512_set1_ps(2)));
    for (int i = 1; i < 5; i++) p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(series[i]));
    __m512 e = exp2_lanes(_mm512_mul_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(-0.5f * 1.44269504f)), fine);
    __m512 term = _mm512_mul_ps(_mm512_mul_ps(_mm512_mul_ps(p, t), e), _mm512_mul_ps(x, _mm512_set1_ps(0.5f)));
    return _mm512_mask_sub_ps(term, _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GT_OQ), x, term);
}

__attribute__((always_inline)) static inline void activate_row(int kind, lanes v[4], int vectors, const bool fine)
{
    float row[64];
    switch (kind) {
    case -1: return;
    case LK_GELU:
        for (int i = 0; i < vectors; i++) v[i] = (lanes)gelu_lanes((__m512)v[i], fine);
        return;
    case LK_SILU:
    case LK_QUICK_GELU:
        for (int i = 0; i < vectors; i++)
            v[i] = (lanes)swish_lanes((__m512)v[i],
                                      _mm512_set1_ps(kind == LK_SILU ? -1.44269504f : -1.44269504f * 1.702f), fine);
        return;
    default:
        memcpy(row, v, sizeof *v * (size_t)vectors);
        k_activate((lk_activation)kind, row, 16 * (size_t)vectors);
        memcpy(v, row, sizeof *v * (size_t)vectors);
    }
}
#else
static void activate_row(int kind, lanes v[4], int vectors, const bool fine)
{
    float row[64];
    (void)fine;
    if (kind < 0) return;
    memcpy(row, v, sizeof *v * (size_t)vectors);
    k_activate((lk_activation)kind, row, 16 * (size_t)vectors);
    memcpy(v, row, sizeof *v * (size_t)vectors);
}
#endif

__attribute__((always_inline)) static inline void finish_rows(const lk_finish *f, const float *sums, size_t rows,
                                                              int vectors, const int before, const lk_type other,
                                                              const lk_type type)
{
    size_t bytes = lk_type_width(type), other_bytes = lk_type_width(other);
    lanes bias[4] = {0};
    for (int i = 0; f->bias && i < vectors; i++) bias[i] = load_lanes(f->bias + 16 * i);
    for (size_t r = 0; r < rows; r++) {
        lanes v[4] = {0};
        for (int i = 0; i < vectors; i++) v[i] = load_lanes(sums + r * 64 + 16 * (size_t)i) + bias[i];
        activate_row(before, v, vectors, type == LK_TYPE_F32);
        for (int i = 0; f->other && i < vectors; i++) {
            lanes w;
            GET16(other, f->other_scale, (const char *)f->other + (r * f->y_step + 16 * (size_t)i) * other_bytes, w);
            v[i] += w;
        }
        if (f->after >= 0) activate_row(f->after, v, vectors, true);
        for (int i = 0; i < vectors; i++)
            put16(type, 1 / f->y_scale, v[i], (char *)f->y + (r * f->y_step + 16 * (size_t)i) * bytes);
    }
}

static void k_finish(const lk_finish *f, const float *sums, size_t rows)
{
    /* constants for the usual ones */
    bool same = !f->other || f->other_type == f->y_type;
#define USUAL(activation, type)                                                                                        \
    if (f->y_type == (type) && same && f->before == (activation)) {                                                    \
        if (f->vectors == 4)                                                                                           \
            finish_rows(f, sums, rows, 4, activation, type, type);                                                     \
        else                                                                                                           \
            finish_rows(f, sums, rows, f->vectors, activation, type, type);                                            \
        return;                                                                                                        \
    }
    USUAL(-1, LK_TYPE_BF16)
    USUAL(LK_GELU, LK_TYPE_BF16)
    USUAL(LK_QUICK_GELU, LK_TYPE_BF16)
    USUAL(LK_SILU, LK_TYPE_BF16)
    USUAL(-1, LK_TYPE_F32)
    USUAL(LK_GELU, LK_TYPE_F32)
#undef USUAL
    finish_rows(f, sums, rows, f->vectors, f->before, f->other_type, f->y_type);
}
