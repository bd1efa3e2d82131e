/* Winograd's minimal filtering F(4x4, 3x3) (Lavin & Gray, 2016), part of kernels_simd.h: transforms of tiles, 16
 * channels at a time, with the points 0, 1, -1, 2, -2 and infinity. */

/* One line of the transform of 6 inputs: B^T d. */
#define WINOGRAD_IN(d0, d1, d2, d3, d4, d5, o0, o1, o2, o3, o4, o5)                                                    \
    do {                                                                                                               \
        lanes a_ = d4 - 4.0f * d2, b_ = d3 - 4.0f * d1, c_ = d4 - d2, e_ = 2.0f * (d3 - d1);                           \
        o0 = 4.0f * d0 - 5.0f * d2 + d4;                                                                               \
        o1 = a_ + b_;                                                                                                  \
        o2 = a_ - b_;                                                                                                  \
        o3 = c_ + e_;                                                                                                  \
        o4 = c_ - e_;                                                                                                  \
        o5 = 4.0f * d1 - 5.0f * d3 + d5;                                                                               \
    } while (0)

/* Of 6 products to 4 outputs: A^T m. */
#define WINOGRAD_OUT(m0, m1, m2, m3, m4, m5, o0, o1, o2, o3)                                                           \
    do {                                                                                                               \
        lanes a_ = m1 + m2, b_ = m1 - m2, c_ = m3 + m4, e_ = m3 - m4;                                                  \
        o0 = m0 + a_ + c_;                                                                                             \
        o1 = b_ + 2.0f * e_;                                                                                           \
        o2 = a_ + 4.0f * c_;                                                                                           \
        o3 = b_ + 8.0f * e_ + m5;                                                                                      \
    } while (0)

static void k_winograd_in(const float *const taps[36], size_t channels, float *out, size_t step)
{
    for (size_t c = 0; c < channels; c += 16) {
        lanes t[36], o[6];
        for (int j = 0; j < 6; j++) {
            lanes d[6];
            for (int i = 0; i < 6; i++) d[i] = load_lanes(taps[6 * i + j] + c);
            WINOGRAD_IN(d[0], d[1], d[2], d[3], d[4], d[5], t[j], t[6 + j], t[12 + j], t[18 + j], t[24 + j], t[30 + j]);
        }
        for (int i = 0; i < 6; i++) {
            const lanes *d = t + 6 * i;
            WINOGRAD_IN(d[0], d[1], d[2], d[3], d[4], d[5], o[0], o[1], o[2], o[3], o[4], o[5]);
            for (int j = 0; j < 6; j++) memcpy(out + (size_t)(6 * i + j) * step + c, &o[j], sizeof(lanes));
        }
    }
}

static void k_winograd_out(const float *in, size_t step, size_t channels, const float *bias, float *const out[16])
{
    for (size_t c = 0; c < channels; c += 16) {
        lanes t[24], o[4], b = load_lanes(bias + c);
        for (int j = 0; j < 6; j++) {
            lanes m[6];
            for (int i = 0; i < 6; i++) m[i] = load_lanes(in + (size_t)(6 * i + j) * step + c);
            WINOGRAD_OUT(m[0], m[1], m[2], m[3], m[4], m[5], t[j], t[6 + j], t[12 + j], t[18 + j]);
        }
        for (int i = 0; i < 4; i++) {
            const lanes *m = t + 6 * i;
            WINOGRAD_OUT(m[0], m[1], m[2], m[3], m[4], m[5], o[0], o[1], o[2], o[3]);
            for (int j = 0; j < 4; j++) {
                if (!out[4 * i + j]) continue;
                o[j] += b;
                memcpy(out[4 * i + j] + c, &o[j], sizeof(lanes));
            }
        }
    }
}

/* F(2x2, 3x3), points 0, 1, -1 and infinity: only sums, so that bf16 products lose no more than twice what direct ones
 * do. */
#define WINOGRAD2_IN(d0, d1, d2, d3, o0, o1, o2, o3)                                                                   \
    do {                                                                                                               \
        o0 = d0 - d2;                                                                                                  \
        o1 = d1 + d2;                                                                                                  \
        o2 = d2 - d1;                                                                                                  \
        o3 = d1 - d3;                                                                                                  \
    } while (0)

/* 32 numbers to bf16. */
static inline void put32_bf16(lanes a, lanes b, uint16_t *to)
{
#if defined(__AVX512BF16__)
    _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh((__m512)b, (__m512)a));
#else
    put16(LK_TYPE_BF16, 1, a, to);
    put16(LK_TYPE_BF16, 1, b, to + 16);
#endif
}

static void k_winograd2_in(const uint16_t *const taps[16], size_t channels, uint16_t *out, size_t step)
{
    for (size_t c = 0; c < channels; c += 32) {
        lanes t[2][16];
        for (int half = 0; half < 2; half++) {
            lanes *u = t[half];
            for (int j = 0; j < 4; j++) {
                lanes d[4];
                for (int i = 0; i < 4; i++) GET16(LK_TYPE_BF16, 1, taps[4 * i + j] + c + 16 * half, d[i]);
                WINOGRAD2_IN(d[0], d[1], d[2], d[3], u[j], u[4 + j], u[8 + j], u[12 + j]);
            }
        }
        for (int i = 0; i < 4; i++) {
            lanes a[4], b[4];
            const lanes *d = t[0] + 4 * i, *g = t[1] + 4 * i;
            WINOGRAD2_IN(d[0], d[1], d[2], d[3], a[0], a[1], a[2], a[3]);
            WINOGRAD2_IN(g[0], g[1], g[2], g[3], b[0], b[1], b[2], b[3]);
            for (int j = 0; j < 4; j++) put32_bf16(a[j], b[j], out + (size_t)(4 * i + j) * step + c);
        }
    }
}

static void k_winograd2_out(const float *in, size_t step, size_t channels, const float *bias, bool relu, lk_type type,
                            void *const out[4])
{
    for (size_t c = 0; c < channels; c += 16) {
        lanes t[8], b = load_lanes(bias + c), zero = {0};
        for (int j = 0; j < 4; j++) {
            lanes m[4];
            for (int i = 0; i < 4; i++) m[i] = load_lanes(in + (size_t)(4 * i + j) * step + c);
            t[j] = m[0] + m[1] + m[2];
            t[4 + j] = m[1] - m[2] - m[3];
        }
        for (int i = 0; i < 2; i++) {
            const lanes *m = t + 4 * i;
            lanes o[2] = {m[0] + m[1] + m[2] + b, m[1] - m[2] - m[3] + b};
            for (int j = 0; j < 2; j++) {
                if (!out[2 * i + j]) continue;
                if (relu) o[j] = (lanes)((words)o[j] & ~(words)(o[j] < zero));
                put16(type, 1, o[j], (char *)out[2 * i + j] + c * lk_type_width(type));
            }
        }
    }
}

/* Rows in groups that differ by one at most: a single row left over would cost as much as four. */
#define EACH_GROUP(call)                                                                                               \
    for (size_t groups = (rows + LK_HEAD_ROWS - 1) / LK_HEAD_ROWS, g = 0; g < groups; g++) {                           \
        size_t r = rows * g / groups;                                                                                  \
        int some = (int)(rows * (g + 1) / groups - r);                                                                 \
        call;                                                                                                          \
    }

/* The panel of b after this one will be wanted next: the first groups fetch it. */
static void k_product(const float *a, size_t a_step, size_t rows, const float *b, size_t n, int vectors, bool more,
                      float *y, size_t y_step)
{
    size_t step = 16 * (size_t)vectors;
    const float *at[LK_HEAD_ROWS];
    EACH_GROUP(for (int i = 0; i < some; i++) at[i] = a + (r + (size_t)i) * a_step;
               multiply_some(some, at, 1, 0, b, step, n, vectors, y + r * y_step, y_step, more,
                             b + (g < (size_t)vectors ? n * step + g * n * 16 : 0)))
}

static void k_product_runs(const lk_runs *a, size_t rows, const float *b, int vectors, bool more, float *y,
                           size_t y_step)
{
    size_t step = 16 * (size_t)vectors, n = a->count * a->n;
    const float *at[LK_HEAD_ROWS];
    EACH_GROUP(for (int i = 0; i < some; i++) at[i] = a->rows[r + (size_t)i] + a->offset;
               multiply_some(some, at, a->count, a->distance, b, step, a->n, vectors, y + r * y_step, y_step, more,
                             b + (g < (size_t)vectors ? n * step + g * n * 16 : 0)))
}

#if defined(__AVX512BF16__)
static void k_product_bf16(const uint16_t *a, size_t a_step, size_t rows, const uint16_t *b, size_t n, int vectors,
                           bool more, float *y, size_t y_step)
{
    size_t step = 16 * (size_t)vectors;
    EACH_GROUP(multiply_some_pairs(some, (const uint32_t *)(a + r * a_step), a_step / 2, (const uint32_t *)b, step,
                                   n / 2, vectors, y + r * y_step, y_step, more,
                                   b + (g < (size_t)vectors ? n * step + g * n * 16 : 0)))
}
#else
#define k_product_bf16 NULL
#endif
