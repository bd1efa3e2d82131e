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

static void k_product64(const float *a, size_t a_step, size_t rows, const float *b, size_t n, float *y, size_t y_step)
{
    for (size_t r = 0; r < rows; r += LK_HEAD_ROWS)
        multiply_some(rows - r < LK_HEAD_ROWS ? (int)(rows - r) : LK_HEAD_ROWS, a + r * a_step, a_step, b, 64, n, 4,
                      y + r * y_step, y_step);
}
