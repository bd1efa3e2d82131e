/* The kernels, written so that compilers vectorise them; the including file names the table NN_TABLE and the set
 * NN_NAME. Sums run in 16 lanes that are added in a fixed tree, whatever the width of registers: vectors of the
 * compiler's own kind say so in plain C. */
#include "nn/kernels.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif
#include <math.h>
#include <string.h>

typedef float lanes __attribute__((vector_size(64)));

static inline lanes load_lanes(const float *x)
{
    lanes v;
    memcpy(&v, x, sizeof v);
    return v;
}

static inline float fold(lanes v)
{
    float s[16];
    memcpy(s, &v, sizeof s);
    for (int w = 8; w; w /= 2)
        for (int i = 0; i < w; i++) s[i] += s[i + w];
    return s[0];
}

static void load_bf16(const uint16_t *src, size_t n, float *dst)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)src[i] << 16; /* through a word of its own: dst may be looked at as floats at once */
        memcpy(dst + i, &bits, sizeof bits);
    }
}

/* To nearest even. The instruction makes nothing of what is below 2^-126, so it also does the last few: a number's
 * bytes do not depend on where it lies. */
static void store_bf16(const float *src, size_t n, uint16_t *dst)
{
    size_t i = 0;
#if defined(__AVX512BF16__)
    for (; i + 32 <= n; i += 32)
        _mm512_storeu_si512(dst + i,
                            (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(src + i + 16), _mm512_loadu_ps(src + i)));
    for (size_t some; i < n; i += some) {
        some = n - i < 16 ? n - i : 16;
        __mmask16 mask = (__mmask16)((1u << some) - 1);
        _mm256_mask_storeu_epi16(dst + i, mask, (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, src + i)));
    }
#endif
    for (; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, src + i, 4);
        uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
        dst[i] = (uint16_t)(((bits & 0x7fffffffu) > 0x7f800000u ? bits | 0x400000u : rounded) >> 16);
    }
}

static void k_load(lk_type type, float scale, const void *src, size_t n, float *dst)
{
    const uint8_t *u8 = src;
    const int8_t *s8 = src;
    const int32_t *s32 = src;
    switch (type) {
    case LK_TYPE_BF16: load_bf16(src, n, dst); break;
    case LK_TYPE_U8:
        for (size_t i = 0; i < n; i++) dst[i] = scale * (float)u8[i];
        break;
    case LK_TYPE_I8:
        for (size_t i = 0; i < n; i++) dst[i] = scale * (float)s8[i];
        break;
    case LK_TYPE_I32:
        for (size_t i = 0; i < n; i++) dst[i] = (float)s32[i];
        break;
    default: memcpy(dst, src, n * sizeof *dst);
    }
}

/* Adding 1.5 * 2^23 leaves the number rounded to nearest even in the low bits. */
static inline int32_t rounded(float x, float low, float high)
{
    x = x < low ? low : x;
    x = x > high ? high : x;
    x += 12582912.0f;
    int32_t bits;
    memcpy(&bits, &x, 4);
    return bits - 0x4b400000;
}

#define EACH(word)                                                                                                     \
    for (size_t i = 0; i < n; i++)                                                                                     \
        for (size_t c = 0; c < 3; c++) ((word *)to)[3 * i + c] = ((const word *)planes[c])[i];                         \
    break

#if defined(__AVX512F__)
/* 16 bytes of each plane at a time, which compilers do one by one. */
static size_t interleave_bytes(const uint8_t *const planes[3], size_t n, uint8_t *to)
{
/* [of the result's sixteen][plane]: byte taken, 128 = none */
#define BYTE(i, c) ((i) % 3 == (c) ? (i) / 3 : 128)
#define FOUR(i, c) BYTE(i, c), BYTE(i + 1, c), BYTE(i + 2, c), BYTE(i + 3, c)
#define SIXTEEN(i, c)                                                                                                  \
    {                                                                                                                  \
        FOUR(i, c), FOUR(i + 4, c), FOUR(i + 8, c), FOUR(i + 12, c)                                                    \
    }
#define PART(i)                                                                                                        \
    {                                                                                                                  \
        SIXTEEN(i, 0), SIXTEEN(i, 1), SIXTEEN(i, 2)                                                                    \
    }
    static const uint8_t order[3][3][16] = {PART(0), PART(16), PART(32)};
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        for (int part = 0; part < 3; part++) {
            __m128i sum = _mm_setzero_si128();
            for (int c = 0; c < 3; c++)
                sum = _mm_or_si128(sum, _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(planes[c] + i)),
                                                         _mm_loadu_si128((const __m128i *)order[part][c])));
            _mm_storeu_si128((__m128i *)(to + 3 * i + 16 * part), sum);
        }
    }
    return i;
}
#else
#define interleave_bytes(planes, n, to) 0
#endif

static void k_interleave(lk_type type, const void *const planes[3], size_t n, void *to)
{
    switch (lk_type_width(type)) {
    case 1:
        for (size_t i = interleave_bytes((const uint8_t *const *)planes, n, to); i < n; i++)
            for (size_t c = 0; c < 3; c++) ((uint8_t *)to)[3 * i + c] = ((const uint8_t *)planes[c])[i];
        break;
    case 2: EACH(uint16_t);
    default: EACH(uint32_t);
    }
}
#undef EACH

/* e^x = 2^n e^r with |r| <= ln(2)/2; e^r by its series to r^7 (error below 1e-8). Below -87.3 it is about 1e-38. */
static inline float exp_f32(float x)
{
    x = x < -87.3f ? -87.3f : x;
    x = x > 88.7f ? 88.7f : x;
    float t = x * 1.44269504f + 12582912.0f, n = t - 12582912.0f;
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9841270e-4f;
    p = p * r + 1.3888889e-3f;
    p = p * r + 8.3333333e-3f;
    p = p * r + 4.1666667e-2f;
    p = p * r + 1.6666667e-1f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    int32_t bits;
    memcpy(&bits, &t, 4);
    /* In two halves, so that 2^128 of the largest x does not overflow in between. */
    int32_t whole = bits - 0x4b400000, half = whole >> 1;
    uint32_t a = (uint32_t)(half + 127) << 23, b = (uint32_t)(whole - half + 127) << 23; /* of NaN any: p is NaN */
    float fa, fb;
    memcpy(&fa, &a, 4);
    memcpy(&fb, &b, 4);
    return p * fa * fb;
}

static inline float sigmoid_f32(float x)
{
    return 1.0f / (1.0f + exp_f32(-x));
}

/* Near zero by the series, where 1 - 2/(e^2x + 1) would cancel. */
static inline float tanh_f32(float x)
{
    float s = x * x,
          near = x * (1.0f + s * (-0.333333333f + s * (0.133333333f + s * (-0.0539682540f + s * 0.0218694885f))));
    float far = 1.0f - 2.0f / (exp_f32(2.0f * x) + 1.0f);
    return s < 0.04f ? near : far;
}

/* Abramowitz & Stegun 7.1.26: |error| < 1.5e-7. *density receives e^(-x^2). */
static inline float erf_f32(float x, float *density)
{
    float a = fabsf(x), t = 1.0f / (1.0f + 0.3275911f * a), e = exp_f32(-a * a);
    float y =
        1.0f -
        e * t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
    *density = e;
    return x < 0 ? -y : y;
}

static inline float clamp(float x, float low, float high)
{
    x = x < low ? low : x;
    return x > high ? high : x;
}

#define EACH(value)                                                                                                    \
    for (size_t i = 0; i < n; i++) {                                                                                   \
        float v = x[i];                                                                                                \
        x[i] = (value);                                                                                                \
    }                                                                                                                  \
    break

static void k_activate(lk_activation kind, float *x, size_t n)
{
    switch (kind) {
    case LK_RELU: EACH(v < 0 ? 0 : v);
    case LK_RELU6: EACH(clamp(v, 0, 6));
    case LK_GELU:
        for (size_t i = 0; i < n; i++) {
            float density;
            x[i] = 0.5f * x[i] * (1.0f + erf_f32(x[i] * 0.70710678f, &density));
        }
        break;
    case LK_GELU_TANH: EACH(v * sigmoid_f32(1.5957691216f * (v + 0.044715f * v * v * v)));
    case LK_QUICK_GELU: EACH(v * sigmoid_f32(1.702f * v));
    case LK_SILU: EACH(v * sigmoid_f32(v));
    case LK_SIGMOID: EACH(sigmoid_f32(v));
    case LK_HARD_SWISH: EACH(v * (clamp(v + 3, 0, 6) / 6));
    case LK_HARD_SIGMOID: EACH(clamp(v + 3, 0, 6) / 6);
    case LK_TANH: EACH(tanh_f32(v));
    }
}

#undef EACH
/* d is the derivative at v. */
#define EACH(...)                                                                                                      \
    for (size_t i = 0; i < n; i++) {                                                                                   \
        float v = x[i], d;                                                                                             \
        __VA_ARGS__;                                                                                                   \
        gx[i] += gy[i] * d;                                                                                            \
    }                                                                                                                  \
    break

static void k_activate_gradient(lk_activation kind, const float *x, const float *gy, size_t n, float *gx)
{
    switch (kind) {
    case LK_RELU: EACH(d = v > 0 ? 1.0f : 0.0f);
    case LK_RELU6: EACH(d = v > 0 && v < 6 ? 1.0f : 0.0f);
    case LK_GELU: EACH(float e; d = 0.5f * (1.0f + erf_f32(v * 0.70710678f, &e)); d += v * 0.39894228f * e);
    case LK_GELU_TANH:
        /* v s(u), u = 2 sqrt(2/pi) (v + 0.044715 v^3): d = s + v s (1-s) u' */
        EACH(float u = 1.5957691216f * (v + 0.044715f * v * v * v); float s = sigmoid_f32(u);
             d = s + v * s * (1 - s) * 1.5957691216f * (1 + 0.134145f * v * v));
    case LK_QUICK_GELU: EACH(float s = sigmoid_f32(1.702f * v); d = s + 1.702f * v * s * (1 - s));
    case LK_SILU: EACH(float s = sigmoid_f32(v); d = s + v * s * (1 - s));
    case LK_SIGMOID: EACH(float s = sigmoid_f32(v); d = s * (1 - s));
    case LK_HARD_SWISH: EACH(d = v <= -3 ? 0.0f : v >= 3 ? 1.0f : (2 * v + 3) / 6);
    case LK_HARD_SIGMOID: EACH(d = v > -3 && v < 3 ? 1.0f / 6 : 0.0f);
    case LK_TANH: EACH(float t = tanh_f32(v); d = 1 - t * t);
    }
}
#undef EACH

typedef uint32_t words __attribute__((vector_size(64)));
typedef int32_t truths __attribute__((vector_size(64)));
typedef uint16_t halves __attribute__((vector_size(32)));
typedef uint8_t codes_u8 __attribute__((vector_size(16)));
typedef int8_t codes_s8 __attribute__((vector_size(16)));

#if defined(__AVX512F__)
/* Compilers take codes apart one by one. */
#define WIDEN_U8(at) (lanes) _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(at))))
#define WIDEN_I8(at) (lanes) _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(at))))
#else
static inline lanes widen_codes(const void *at, bool sign)
{
    codes_u8 u;
    codes_s8 s;
    memcpy(&u, at, sizeof u);
    memcpy(&s, at, sizeof s);
    return sign ? __builtin_convertvector(s, lanes) : __builtin_convertvector(u, lanes);
}
#define WIDEN_U8(at) widen_codes(at, false)
#define WIDEN_I8(at) widen_codes(at, true)
#endif

/* 16 stored numbers. */
#define GET16(type, scale, at, v)                                                                                      \
    do {                                                                                                               \
        if ((type) == LK_TYPE_BF16) {                                                                                  \
            halves h_;                                                                                                 \
            memcpy(&h_, (at), sizeof h_);                                                                              \
            (v) = (lanes)(__builtin_convertvector(h_, words) << 16);                                                   \
        } else if ((type) == LK_TYPE_U8) {                                                                             \
            (v) = WIDEN_U8(at) * (scale);                                                                              \
        } else if ((type) == LK_TYPE_I8) {                                                                             \
            (v) = WIDEN_I8(at) * (scale);                                                                              \
        } else {                                                                                                       \
            memcpy(&(v), (at), sizeof(v));                                                                             \
        }                                                                                                              \
    } while (0)

/* Stores 16 numbers as k_store does. */
__attribute__((always_inline)) static inline void put16(lk_type type, float inverse, lanes v, void *to)
{
#if defined(__AVX512BF16__)
    if (type == LK_TYPE_BF16) {
        _mm256_storeu_si256(to, (__m256i)_mm512_cvtneps_pbh((__m512)v));
        return;
    }
#endif
    if (type == LK_TYPE_BF16) {
        words bits = (words)v, up = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
        words nan = (words)(v != v);
        halves h = __builtin_convertvector((up & ~nan) | (((bits | 0x400000u) >> 16) & nan), halves);
        memcpy(to, &h, sizeof h);
    } else if (type == LK_TYPE_U8 || type == LK_TYPE_I8) {
        float low = type == LK_TYPE_U8 ? 0 : -128, high = type == LK_TYPE_U8 ? 255 : 127;
        v *= inverse;
        words below = (words)(v < low), above;
        v = (lanes)(((words)((lanes){0} + low) & below) | ((words)v & ~below));
        above = (words)(v > high);
        v = (lanes)(((words)((lanes){0} + high) & above) | ((words)v & ~above));
        words code = (words)(v + 12582912.0f) - 0x4b400000u;
        codes_u8 c = __builtin_convertvector(code & 0xffu, codes_u8);
        memcpy(to, &c, sizeof c);
    } else {
        memcpy(to, &v, sizeof v);
    }
}

static void k_store(lk_type type, float scale, const float *src, size_t n, void *dst)
{
    uint8_t *u8 = dst;
    int8_t *s8 = dst;
    float inverse = 1.0f / scale;
    size_t i = 0;
    switch (type) {
    case LK_TYPE_BF16: store_bf16(src, n, dst); break;
    case LK_TYPE_U8:
        for (; i + 16 <= n; i += 16) put16(LK_TYPE_U8, inverse, load_lanes(src + i), u8 + i);
        for (; i < n; i++) u8[i] = (uint8_t)rounded(src[i] * inverse, 0, 255);
        break;
    case LK_TYPE_I8:
        for (; i + 16 <= n; i += 16) put16(LK_TYPE_I8, inverse, load_lanes(src + i), s8 + i);
        for (; i < n; i++) s8[i] = (int8_t)rounded(src[i] * inverse, -128, 127);
        break;
    default: memcpy(dst, src, n * sizeof *src);
    }
}

__attribute__((always_inline)) static inline void sum_lanes(const lk_type type, float scale, const char *at,
                                                            size_t count, size_t step, const int vectors, float *y)
{
    lanes sums[4] = {0}, v;
    for (size_t r = 0; r < count; r++, at += step) {
        for (int i = 0; i < vectors; i++) {
            GET16(type, scale, at + (size_t)(16 * i) * lk_type_width(type), v);
            sums[i] += v;
        }
    }
    memcpy(y, sums, sizeof *sums * (size_t)vectors);
}

static void k_sum_rows(lk_type type, float scale, const void *rows, size_t count, size_t step, size_t n, float *y)
{
    size_t bytes = lk_type_width(type), j = 0;
    for (int vectors; j + 16 <= n; j += 16 * (size_t)vectors) {
        const char *at = (const char *)rows + j * bytes;
        vectors = j + 64 <= n ? 4 : 1;
        if (vectors == 1)
            sum_lanes(type, scale, at, count, step * bytes, 1, y + j);
        else if (type == LK_TYPE_BF16) /* constants */
            sum_lanes(LK_TYPE_BF16, 1, at, count, step * bytes, 4, y + j);
        else if (type == LK_TYPE_F32)
            sum_lanes(LK_TYPE_F32, 1, at, count, step * bytes, 4, y + j);
        else if (type == LK_TYPE_U8)
            sum_lanes(LK_TYPE_U8, scale, at, count, step * bytes, 4, y + j);
        else
            sum_lanes(type, scale, at, count, step * bytes, 4, y + j);
    }
    for (; j < n; j++) {
        y[j] = 0;
        for (size_t r = 0; r < count; r++) {
            float v;
            k_load(type, scale, (const char *)rows + (r * step + j) * bytes, 1, &v);
            y[j] += v;
        }
    }
}

/* The largest of the taps, NaN where one is NaN. */
__attribute__((always_inline)) static inline lanes top_of(const lk_type type, float scale, const void *const *taps,
                                                          size_t count, size_t at)
{
    lanes top, v;
    GET16(type, scale, (const char *)taps[0] + at, top);
#if defined(__AVX512F__)
    __mmask16 nan = _mm512_cmp_ps_mask((__m512)top, (__m512)top, _CMP_UNORD_Q);
    for (size_t t = 1; t < count; t++) {
        GET16(type, scale, (const char *)taps[t] + at, v);
        nan |= _mm512_cmp_ps_mask((__m512)v, (__m512)v, _CMP_UNORD_Q);
        top = (lanes)_mm512_max_ps((__m512)v, (__m512)top);
    }
    return (lanes)_mm512_mask_mov_ps((__m512)top, nan, _mm512_set1_ps(NAN));
#else
    for (size_t t = 1; t < count; t++) {
        GET16(type, scale, (const char *)taps[t] + at, v);
        truths larger = (v > top) | (v != v);
        top = (lanes)(((words)v & (words)larger) | ((words)top & ~(words)larger));
    }
    return top;
#endif
}

static void k_max_taps(lk_type type, float scale, const void *const *taps, size_t count, size_t n, float *y)
{
    size_t j = 0;
    for (; j + 16 <= n; j += 16) {
        lanes top;
        switch (type) { /* a constant in each */
        case LK_TYPE_BF16: top = top_of(LK_TYPE_BF16, 1, taps, count, j * 2); break;
        case LK_TYPE_F32: top = top_of(LK_TYPE_F32, 1, taps, count, j * 4); break;
        default: top = top_of(type, scale, taps, count, j * lk_type_width(type));
        }
        memcpy(y + j, &top, sizeof top);
    }
    for (; j < n; j++) {
        for (size_t t = 0; t < count; t++) {
            float v;
            k_load(type, scale, (const char *)taps[t] + j * lk_type_width(type), 1, &v);
            if (t == 0 || v > y[j] || v != v) y[j] = v;
        }
    }
}

static void k_max_codes(lk_type type, const void *const *taps, size_t count, size_t n, void *y)
{
    size_t j = 0;
#if defined(__AVX512BW__)
    for (; j + 64 <= n; j += 64) {
        __m512i top = _mm512_loadu_si512((const char *)taps[0] + j);
        for (size_t t = 1; t < count; t++) {
            __m512i x = _mm512_loadu_si512((const char *)taps[t] + j);
            top = type == LK_TYPE_U8 ? _mm512_max_epu8(top, x) : _mm512_max_epi8(top, x);
        }
        _mm512_storeu_si512((char *)y + j, top);
    }
#endif
    uint8_t *u8 = (uint8_t *)y + j;
    int8_t *s8 = (int8_t *)y + j;
    n -= j;
    memcpy(u8, (const char *)taps[0] + j, n);
    for (size_t t = 1; t < count; t++) {
        const uint8_t *u = (const uint8_t *)taps[t] + j;
        const int8_t *s = (const int8_t *)taps[t] + j;
        if (type == LK_TYPE_U8)
            for (size_t i = 0; i < n; i++) u8[i] = u[i] > u8[i] ? u[i] : u8[i];
        else
            for (size_t i = 0; i < n; i++) s8[i] = s[i] > s8[i] ? s[i] : s8[i];
    }
}

__attribute__((always_inline)) static inline void gate_rows(const lk_type type, float scale, const void *x,
                                                            const float *gate, size_t rows, size_t n,
                                                            const lk_type y_type, float y_scale, void *y)
{
    size_t bytes = lk_type_width(type), y_bytes = lk_type_width(y_type);
    for (size_t r = 0; r < rows; r++) {
        size_t j = 0;
        float v[16] = {0};
        for (; j + 16 <= n; j += 16) {
            lanes w;
            GET16(type, scale, (const char *)x + (r * n + j) * bytes, w);
            w *= load_lanes(gate + j);
            put16(y_type, 1.0f / y_scale, w, (char *)y + (r * n + j) * y_bytes);
        }
        if (j == n) continue;
        k_load(type, scale, (const char *)x + (r * n + j) * bytes, n - j, v);
        for (size_t i = j; i < n; i++) v[i - j] *= gate[i];
        k_store(y_type, y_scale, v, n - j, (char *)y + (r * n + j) * y_bytes);
    }
}

#if defined(__AVX512BF16__)
/* 32 numbers as words: those of even places are the low halves. */
#define EVEN_HALVES(words) (__m512) _mm512_slli_epi32(words, 16)
#define ODD_HALVES(words) (__m512) _mm512_and_si512(words, _mm512_set1_epi32(-65536))

/* Brings [even, odd], as conversion leaves them, back into the order of places. */
static inline __m512i places_of_halves(void)
{
    uint16_t order[32];
    for (int i = 0; i < 32; i++) order[i] = (uint16_t)(i / 2 + i % 2 * 16);
    return _mm512_loadu_si512(order);
}

static void gate_rows_bf16(const uint16_t *x, const float *gate, size_t rows, size_t n, uint16_t *y)
{
    __m512i places = places_of_halves(), split = _mm512_loadu_si512(&(const struct { uint32_t at[16]; }){
                                             {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30}});
    size_t j = 0;
    for (; j + 32 <= n; j += 32) {
        __m512 low = _mm512_loadu_ps(gate + j), high = _mm512_loadu_ps(gate + j + 16);
        __m512 even = _mm512_permutex2var_ps(low, split, high),
               odd = _mm512_permutex2var_ps(low, _mm512_add_epi32(split, _mm512_set1_epi32(1)), high);
        for (size_t r = 0; r < rows; r++) {
            __m512i v = _mm512_loadu_si512(x + r * n + j);
            __m512 a = _mm512_mul_ps(EVEN_HALVES(v), even), b = _mm512_mul_ps(ODD_HALVES(v), odd);
            _mm512_storeu_si512(y + r * n + j, _mm512_permutexvar_epi16(places, (__m512i)_mm512_cvtne2ps_pbh(b, a)));
        }
    }
    for (; j < n; j += 16) {
        size_t some = n - j < 16 ? n - j : 16;
        __mmask16 mask = (__mmask16)((1u << some) - 1);
        __m512 g = _mm512_maskz_loadu_ps(mask, gate + j);
        for (size_t r = 0; r < rows; r++) {
            __m512i v = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, x + r * n + j));
            __m512 w = _mm512_mul_ps((__m512)_mm512_slli_epi32(v, 16), g);
            _mm256_mask_storeu_epi16(y + r * n + j, mask, (__m256i)_mm512_cvtneps_pbh(w));
        }
    }
}
#endif

static void k_gate_rows(lk_type type, float scale, const void *x, const float *gate, size_t rows, size_t n,
                        lk_type y_type, float y_scale, void *y)
{
#if defined(__AVX512BF16__)
    if (type == LK_TYPE_BF16 && y_type == LK_TYPE_BF16) {
        gate_rows_bf16(x, gate, rows, n, y);
        return;
    }
#endif
    if (type == LK_TYPE_BF16 && y_type == LK_TYPE_BF16) /* constants */
        gate_rows(LK_TYPE_BF16, 1, x, gate, rows, n, LK_TYPE_BF16, 1, y);
    else if (type == LK_TYPE_F32 && y_type == LK_TYPE_F32)
        gate_rows(LK_TYPE_F32, 1, x, gate, rows, n, LK_TYPE_F32, 1, y);
    else
        gate_rows(type, scale, x, gate, rows, n, y_type, y_scale, y);
}

static float k_sum(const float *x, size_t n)
{
    lanes s[4] = {0};
    size_t i = 0;
    for (; i + 64 <= n; i += 64)
        for (size_t v = 0; v < 4; v++) s[v] += load_lanes(x + i + 16 * v);
    for (; i + 16 <= n; i += 16) s[0] += load_lanes(x + i);
    float total = fold((s[0] + s[1]) + (s[2] + s[3]));
    for (; i < n; i++) total += x[i];
    return total;
}

static float k_dot(const float *a, const float *b, size_t n)
{
    lanes s = {0}, t = {0};
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        s += load_lanes(a + i) * load_lanes(b + i);
        t += load_lanes(a + i + 16) * load_lanes(b + i + 16);
    }
    if (i + 16 <= n) {
        s += load_lanes(a + i) * load_lanes(b + i);
        i += 16;
    }
    float total = fold(s + t);
    for (; i < n; i++) total += a[i] * b[i];
    return total;
}

#if defined(__AVX512F__)

static inline __m512 exp_lanes(__m512 x)
{
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 8);
    __m512 r =
        _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x));
    static const float series[] = {1.3888889e-3f, 8.3333333e-3f, 4.1666667e-2f, 1.6666667e-1f, 0.5f, 1.0f, 1.0f};
    __m512 p = _mm512_set1_ps(1.9841270e-4f);
    for (int i = 0; i < 7; i++) p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(series[i]));
    return _mm512_scalef_ps(p, n);
}

/* The same with instructions that C has no words for: 2^n by scalef, masks for the end. */
static void k_softmax(float *x, size_t n, float scale)
{
    __m512 top = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps(), factor = _mm512_set1_ps(scale);
    __mmask16 last = (__mmask16)((1u << (n % 16)) - 1);
    size_t whole = n / 16 * 16;
    for (size_t i = 0; i < whole; i += 16) top = _mm512_max_ps(top, _mm512_loadu_ps(x + i));
    if (last) top = _mm512_mask_max_ps(top, last, top, _mm512_maskz_loadu_ps(last, x + whole));
    top = _mm512_mul_ps(_mm512_set1_ps(_mm512_reduce_max_ps(top)), factor);
    for (size_t i = 0; i < whole; i += 16) {
        __m512 e = exp_lanes(_mm512_fmsub_ps(_mm512_loadu_ps(x + i), factor, top));
        sum = _mm512_add_ps(sum, e);
        _mm512_storeu_ps(x + i, e);
    }
    if (last) {
        __m512 e = exp_lanes(_mm512_fmsub_ps(_mm512_maskz_loadu_ps(last, x + whole), factor, top));
        sum = _mm512_mask_add_ps(sum, last, sum, e);
        _mm512_mask_storeu_ps(x + whole, last, e);
    }
    __m512 inverse = _mm512_set1_ps(1.0f / _mm512_reduce_add_ps(sum));
    for (size_t i = 0; i < whole; i += 16) _mm512_storeu_ps(x + i, _mm512_mul_ps(_mm512_loadu_ps(x + i), inverse));
    if (last) _mm512_mask_storeu_ps(x + whole, last, _mm512_mul_ps(_mm512_maskz_loadu_ps(last, x + whole), inverse));
}

#else

static void k_softmax(float *x, size_t n, float scale)
{
    float m[16], top = -INFINITY;
    for (int i = 0; i < 16; i++) m[i] = -INFINITY;
    size_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 16; j++) m[j] = x[i + (size_t)j] > m[j] ? x[i + (size_t)j] : m[j];
    for (; i < n; i++) top = x[i] > top ? x[i] : top;
    for (int j = 0; j < 16; j++) top = m[j] > top ? m[j] : top;
    for (i = 0; i < n; i++) x[i] = exp_f32((x[i] - top) * scale);
    float inverse = 1.0f / k_sum(x, n);
    for (i = 0; i < n; i++) x[i] *= inverse;
}

#endif

#include "nn/kernels_attention.h"
#include "nn/kernels_columns.h"
#include "nn/kernels_finish.h"
#include "nn/kernels_winograd.h"

static void k_softmax_gradient(const float *y, const float *gy, size_t n, float scale, float *gx)
{
    float d = k_dot(y, gy, n);
    for (size_t i = 0; i < n; i++) gx[i] += scale * y[i] * (gy[i] - d);
}

static void k_moments(const float *x, size_t n, float eps, float *mean, float *rstd)
{
    float m = k_sum(x, n) / (float)n;
    lanes s[4] = {0}, d;
    size_t i = 0;
    for (; i + 64 <= n; i += 64) {
        for (size_t v = 0; v < 4; v++) {
            d = load_lanes(x + i + 16 * v) - m;
            s[v] += d * d;
        }
    }
    for (; i + 16 <= n; i += 16) {
        d = load_lanes(x + i) - m;
        s[0] += d * d;
    }
    float total = fold((s[0] + s[1]) + (s[2] + s[3]));
    for (; i < n; i++) total += (x[i] - m) * (x[i] - m);
    *mean = m;
    *rstd = 1.0f / sqrtf(total / (float)n + eps);
}

static void k_normalise(const float *x, size_t n, float mean, float rstd, const float *weight, const float *bias,
                        float *y)
{
    for (size_t i = 0; i < n; i++) y[i] = (x[i] - mean) * rstd * weight[i] + bias[i];
}

static void k_add(const float *a, const float *b, size_t n, float *y)
{
    for (size_t i = 0; i < n; i++) y[i] = a[i] + b[i];
}

static void k_multiply(const float *a, const float *b, size_t n, float *y)
{
    for (size_t i = 0; i < n; i++) y[i] = a[i] * b[i];
}

static void k_multiply_add(const float *a, const float *b, size_t n, float *y)
{
    for (size_t i = 0; i < n; i++) y[i] += a[i] * b[i];
}

static void k_axpy(float a, const float *x, size_t n, float *y)
{
    for (size_t i = 0; i < n; i++) y[i] += a * x[i];
}

static void k_scale(float a, const float *x, size_t n, float *y)
{
    for (size_t i = 0; i < n; i++) y[i] = a * x[i];
}

static void k_max(const float *a, const float *b, size_t n, float *y)
{
    for (size_t i = 0; i < n; i++) y[i] = a[i] > b[i] || a[i] != a[i] ? a[i] : b[i];
}

const lk_nn_kernels NN_TABLE = {
    .name = NN_NAME,
    .load = k_load,
    .store = k_store,
    .interleave = k_interleave,
    .activate = k_activate,
    .swish = k_swish,
    .activate_gradient = k_activate_gradient,
    .softmax = k_softmax,
    .softmax_gradient = k_softmax_gradient,
    .attention = k_attention,
    .moments = k_moments,
    .normalise = k_normalise,
    .winograd_in = k_winograd_in,
    .winograd_out = k_winograd_out,
    .product = k_product,
    .product_runs = k_product_runs,
    .finish = k_finish,
    .winograd2_in = k_winograd2_in,
    .winograd2_out = k_winograd2_out,
    .product_bf16 = k_product_bf16,
    .column_moments = k_column_moments,
    .column_products = k_column_products,
    .column_update = k_column_update,
    .sum_rows = k_sum_rows,
    .max_taps = k_max_taps,
    .max_codes = k_max_codes,
    .gate_rows = k_gate_rows,
    .sum = k_sum,
    .dot = k_dot,
    .add = k_add,
    .multiply = k_multiply,
    .multiply_add = k_multiply_add,
    .axpy = k_axpy,
    .scale = k_scale,
    .max = k_max,
    .affine = k_affine,
    .gate = k_gate,
    .max_gradient = k_max_gradient,
};
