/* x sigmoid(factor x) = x / (1 + 2^t), t = -factor log2(e) x, part of kernels_simd.h. Networks of SiLU take a third of
 * their time for it when e^x is made to the last bit where bf16 is stored. */

#ifndef LK_NN_KERNELS_SWISH_H
#define LK_NN_KERNELS_SWISH_H

#if defined(__AVX512F__) && defined(__AVX512DQ__)

/* 2^t by the polynomial of least relative error for 2^f, 0 <= f < 1: 1.8e-7 (fine) or 7.5e-5. scalef rounds t down by
 * itself. */
static const float exp2_fine[] = {0.00188507838f, 0.00896964595f, 0.0558454096f,
                                  0.240145475f,   0.693154395f,   0.999999881f};
static const float exp2_rough[] = {0.0780245885f, 0.22606723f, 0.695833385f, 0.999925196f};

__attribute__((always_inline)) static inline __m512 exp2_by(__m512 t, const float *series, const int terms)
{
    __m512 f = _mm512_reduce_ps(t, 9), p = _mm512_set1_ps(series[0]);
    for (int i = 1; i < terms; i++) p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(series[i]));
    return _mm512_scalef_ps(p, t);
}

__attribute__((always_inline)) static inline __m512 exp2_lanes(__m512 t, const bool fine)
{
    return fine ? exp2_by(t, exp2_fine, 6) : exp2_by(t, exp2_rough, 4);
}

__attribute__((always_inline)) static inline __m512 swish_lanes(__m512 x, __m512 minus, const bool fine)
{
    __m512 t = _mm512_mul_ps(x, minus);
    if (fine) t = _mm512_min_ps(_mm512_set1_ps(126), t); /* NaN stays */
    __m512 d = _mm512_add_ps(exp2_lanes(t, fine), _mm512_set1_ps(1)), r = _mm512_rcp14_ps(d);
    if (fine) r = _mm512_mul_ps(r, _mm512_fnmadd_ps(d, r, _mm512_set1_ps(2)));
    return _mm512_mul_ps(x, r);
}

static void swish_f32(float unit, float *t, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        __mmask16 mask = n - i < 16 ? (__mmask16)((1u << (n - i)) - 1) : (__mmask16)-1;
        __m512 v = _mm512_maskz_loadu_ps(mask, t + i);
        __m512 d = exp2_lanes(_mm512_min_ps(_mm512_set1_ps(126), v), true); /* NaN stays */
        d = _mm512_add_ps(d, _mm512_set1_ps(1));
        __m512 r = _mm512_rcp14_ps(d);
        r = _mm512_mul_ps(r, _mm512_fnmadd_ps(d, r, _mm512_set1_ps(2)));
        _mm512_mask_storeu_ps(t + i, mask, _mm512_mul_ps(_mm512_mul_ps(v, _mm512_set1_ps(unit)), r));
    }
}
#endif

#if defined(__AVX512BF16__)
/* t / (1/unit + 2^t/unit): the unit costs nothing. */
static void swish_bf16(float unit, uint16_t *t, size_t n)
{
    uint16_t rest[32] = {0};
    float series[4], one = 1 / unit;
    for (int i = 0; i < 4; i++) series[i] = exp2_rough[i] / unit;
    __m512i places = places_of_halves();
    for (size_t i = 0; i < n; i += 32) {
        uint16_t *at = n - i < 32 ? rest : t + i;
        if (at == rest) memcpy(rest, t + i, (n - i) * sizeof *t);
        __m512i v = _mm512_loadu_si512(at);
        __m512 even = EVEN_HALVES(v), odd = ODD_HALVES(v);
        __m512 a = _mm512_add_ps(exp2_by(even, series, 4), _mm512_set1_ps(one));
        __m512 b = _mm512_add_ps(exp2_by(odd, series, 4), _mm512_set1_ps(one));
        even = _mm512_mul_ps(even, _mm512_rcp14_ps(a));
        odd = _mm512_mul_ps(odd, _mm512_rcp14_ps(b));
        _mm512_storeu_si512(at, _mm512_permutexvar_epi16(places, (__m512i)_mm512_cvtne2ps_pbh(odd, even)));
        if (at == rest) memcpy(t + i, rest, (n - i) * sizeof *t);
    }
}
#endif

static void k_swish(lk_type type, float unit, void *t, size_t n)
{
    float v[LK_RUN];
    size_t bytes = lk_type_width(type);
#if defined(__AVX512F__) && defined(__AVX512DQ__)
    if (type == LK_TYPE_F32) {
        swish_f32(unit, t, n);
        return;
    }
#if defined(__AVX512BF16__)
    if (type == LK_TYPE_BF16) {
        swish_bf16(unit, t, n);
        return;
    }
#endif
#endif
    for (size_t i = 0; i < n; i += LK_RUN) {
        size_t some = n - i < LK_RUN ? n - i : LK_RUN;
        char *at = (char *)t + i * bytes;
        k_load(type, 1, at, some, v);
        for (size_t j = 0; j < some; j++) v[j] *= unit * sigmoid_f32(-0.69314718f * v[j]);
        k_store(type, 1, v, some, at);
    }
}

#endif
