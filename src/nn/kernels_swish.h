/* x sigmoid(factor x) = x / (1 + 2^t), t = -factor log2(e) x, part of kernels_simd.h. Networks of SiLU take a third of
 * their time for it when e^x is made to the last bit where bf16 is stored. */

#ifndef LK_NN_KERNELS_SWISH_H
#define LK_NN_KERNELS_SWISH_H

#if defined(__AVX512F__) && defined(__AVX512DQ__)

/* 2^t: 2^f for |f| <= 1/2 by the polynomial of least relative error, 7.5e-8 (fine) or 7.5e-5, times a power of two. */
__attribute__((always_inline)) static inline __m512 exp2_lanes(__m512 t, const bool fine)
{
    static const float exact[] = {0.00132764690f, 0.00967554096f, 0.0555071346f,
                                  0.240221202f,   0.693146944f,   1.00000012f};
    static const float rough[] = {0.0551716425f, 0.242611125f, 0.693260968f, 0.999928057f};
    const float *series = fine ? exact : rough;
    __m512 f = _mm512_reduce_ps(t, 8), p = _mm512_set1_ps(series[0]);
    for (int i = 1; i < (fine ? 6 : 4); i++) p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(series[i]));
    return _mm512_scalef_ps(p, _mm512_sub_ps(t, f));
}

__attribute__((always_inline)) static inline __m512 swish_lanes(__m512 x, __m512 minus, const bool fine)
{
    __m512 t = _mm512_mul_ps(x, minus);
    if (fine) t = _mm512_min_ps(_mm512_set1_ps(126), t); /* NaN stays */
    __m512 d = _mm512_add_ps(exp2_lanes(t, fine), _mm512_set1_ps(1)), r = _mm512_rcp14_ps(d);
    if (fine) r = _mm512_mul_ps(r, _mm512_fnmadd_ps(d, r, _mm512_set1_ps(2)));
    return _mm512_mul_ps(x, r);
}

static void swish_f32(__m512 minus, float *x, size_t n)
{
    size_t i = 0;
    for (; i + 16 <= n; i += 16) _mm512_storeu_ps(x + i, swish_lanes(_mm512_loadu_ps(x + i), minus, true));
    __mmask16 last = (__mmask16)((1u << (n - i)) - 1);
    if (last) _mm512_mask_storeu_ps(x + i, last, swish_lanes(_mm512_maskz_loadu_ps(last, x + i), minus, true));
}
#endif

#if defined(__AVX512BF16__)
/* 32 at a time: those of even places are the low halves of words. */
static void swish_bf16(__m512 minus, uint16_t *x, size_t n)
{
    uint16_t order[32], rest[32] = {0};
    for (int i = 0; i < 32; i++) order[i] = (uint16_t)(i / 2 + i % 2 * 16);
    __m512i places = _mm512_loadu_si512(order);
    for (size_t i = 0; i < n; i += 32) {
        uint16_t *at = n - i < 32 ? rest : x + i;
        if (at == rest) memcpy(rest, x + i, (n - i) * sizeof *x);
        __m512i v = _mm512_loadu_si512(at);
        __m512 even = (__m512)_mm512_slli_epi32(v, 16), odd = (__m512)_mm512_and_si512(v, _mm512_set1_epi32(-65536));
        even = swish_lanes(even, minus, false);
        odd = swish_lanes(odd, minus, false);
        _mm512_storeu_si512(at, _mm512_permutexvar_epi16(places, (__m512i)_mm512_cvtne2ps_pbh(odd, even)));
        if (at == rest) memcpy(x + i, rest, (n - i) * sizeof *x);
    }
}
#endif

static void k_swish(lk_type type, float factor, void *x, size_t n)
{
    float v[LK_RUN];
    size_t bytes = lk_type_width(type);
#if defined(__AVX512F__) && defined(__AVX512DQ__)
    __m512 minus = _mm512_set1_ps(-1.44269504f * factor);
    if (type == LK_TYPE_F32) {
        swish_f32(minus, x, n);
        return;
    }
#if defined(__AVX512BF16__)
    if (type == LK_TYPE_BF16) {
        swish_bf16(minus, x, n);
        return;
    }
#endif
#endif
    for (size_t i = 0; i < n; i += LK_RUN) {
        size_t some = n - i < LK_RUN ? n - i : LK_RUN;
        char *at = (char *)x + i * bytes;
        k_load(type, 1, at, some, v);
        for (size_t j = 0; j < some; j++) v[j] *= sigmoid_f32(factor * v[j]);
        k_store(type, 1, v, some, at);
    }
}

#endif
