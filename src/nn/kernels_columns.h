/* Sums down the columns of matrices [rows][n], part of kernels_simd.h: batch norm and its gradient. Short runs are
 * summed in f32 and the runs in double, in one order. */

enum { COLUMN_RUN = 64 };

/* sum [n] = sum over rows of x - shift, square [n] = that of its squares. */
static void k_column_moments(const float *x, size_t rows, size_t n, const float *shift, double *sum, double *square)
{
    for (size_t j = 0; j < n; j++) sum[j] = square[j] = 0;
    for (size_t first = 0; first < rows; first += COLUMN_RUN) {
        size_t last = rows - first < COLUMN_RUN ? rows : first + COLUMN_RUN, j = 0;
        for (; j + 16 <= n; j += 16) {
            lanes s = {0}, q = {0}, m = load_lanes(shift + j);
            float parts[2][16];
            for (size_t r = first; r < last; r++) {
                lanes v = load_lanes(x + r * n + j) - m;
                s += v;
                q += v * v;
            }
            memcpy(parts[0], &s, sizeof s);
            memcpy(parts[1], &q, sizeof q);
            for (size_t i = 0; i < 16; i++) {
                sum[j + i] += (double)parts[0][i];
                square[j + i] += (double)parts[1][i];
            }
        }
        for (; j < n; j++)
            for (size_t r = first; r < last; r++) {
                double v = (double)(x[r * n + j] - shift[j]);
                sum[j] += v;
                square[j] += v * v;
            }
    }
}

/* gy where a x + b is above 0, elsewhere 0: the gradient in front of a ReLU. */
static inline lanes gated(lanes x, lanes gy, lanes a, lanes b)
{
    lanes zero = {0};
    return (lanes)((words)gy & (words)(x * a + b > zero));
}

/* sum [n] = sum over rows of gy, product [n] = that of gy (x - mean) rstd. gate: a, then b [n] of a ReLU behind, or
 * NULL. */
static void k_column_products(const float *x, const float *gy, size_t rows, size_t n, const float *mean,
                              const float *rstd, const float *gate, double *sum, double *product)
{
    for (size_t j = 0; j < n; j++) sum[j] = product[j] = 0;
    for (size_t first = 0; first < rows; first += COLUMN_RUN) {
        size_t last = rows - first < COLUMN_RUN ? rows : first + COLUMN_RUN, j = 0;
        for (; j + 16 <= n; j += 16) {
            lanes s = {0}, p = {0}, m = load_lanes(mean + j), r1 = load_lanes(rstd + j), a = {0}, b = {0};
            float parts[2][16];
            if (gate) {
                a = load_lanes(gate + j);
                b = load_lanes(gate + n + j);
            }
            for (size_t r = first; r < last; r++) {
                lanes g = load_lanes(gy + r * n + j), v = load_lanes(x + r * n + j);
                if (gate) g = gated(v, g, a, b);
                s += g;
                p += g * (v - m);
            }
            p *= r1;
            memcpy(parts[0], &s, sizeof s);
            memcpy(parts[1], &p, sizeof p);
            for (size_t i = 0; i < 16; i++) {
                sum[j + i] += (double)parts[0][i];
                product[j + i] += (double)parts[1][i];
            }
        }
        for (; j < n; j++)
            for (size_t r = first; r < last; r++) {
                float v = x[r * n + j];
                double g = gate && !(v * gate[j] + gate[n + j] > 0) ? 0 : (double)gy[r * n + j];
                sum[j] += g;
                product[j] += g * (double)((v - mean[j]) * rstd[j]);
            }
    }
}

/* gx = (write) or += a gy + b x + c, a, b, c [n] by column; gate as above. */
static void k_column_update(const float *x, const float *gy, size_t rows, size_t n, const float *a, const float *b,
                            const float *c, const float *gate, bool write, float *gx)
{
    for (size_t r = 0; r < rows; r++, x += n, gy += n, gx += n) {
        size_t j = 0;
        for (; j + 16 <= n; j += 16) {
            lanes v = load_lanes(x + j), g = load_lanes(gy + j);
            if (gate) g = gated(v, g, load_lanes(gate + j), load_lanes(gate + n + j));
            lanes out = load_lanes(a + j) * g + load_lanes(b + j) * v + load_lanes(c + j);
            if (!write) out += load_lanes(gx + j);
            memcpy(gx + j, &out, sizeof out);
        }
        for (; j < n; j++) {
            float g = gate && !(x[j] * gate[j] + gate[n + j] > 0) ? 0 : gy[j];
            gx[j] = (write ? 0 : gx[j]) + a[j] * g + b[j] * x[j] + c[j];
        }
    }
}

/* y [rows][n] = x a [n] + b [n], or 0 where that is below 0. */
static void k_affine(const float *x, const float *a, const float *b, size_t rows, size_t n, bool relu, float *y)
{
    lanes zero = {0};
    for (size_t r = 0; r < rows; r++, x += n, y += n) {
        size_t j = 0;
        for (; j + 16 <= n; j += 16) {
            lanes v = load_lanes(x + j) * load_lanes(a + j) + load_lanes(b + j);
            if (relu) v = (lanes)((words)v & ~(words)(v < zero));
            memcpy(y + j, &v, sizeof v);
        }
        for (; j < n; j++) {
            float v = x[j] * a[j] + b[j];
            y[j] = relu && v < 0 ? 0 : v;
        }
    }
}

/* g = 0 where y is not above 0. */
static void k_gate(const float *y, size_t n, float *g)
{
    lanes zero = {0};
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        lanes v = (lanes)((words)load_lanes(g + i) & (words)(load_lanes(y + i) > zero));
        memcpy(g + i, &v, sizeof v);
    }
    for (; i < n; i++)
        if (!(y[i] > 0)) g[i] = 0;
}

/* gy [n] to the first of the taps that is the largest (or NaN): gx[tap] += gy. */
static void k_max_gradient(const float *const *x, float *const *gx, size_t taps, size_t n, const float *gy)
{
    size_t j = 0;
    for (; j + 16 <= n; j += 16) {
        lanes top = load_lanes(x[0] + j), g = load_lanes(gy + j);
        for (size_t t = 1; t < taps; t++) {
            lanes v = load_lanes(x[t] + j);
            words larger = (words)(v > top) | (words)(v != v);
            top = (lanes)(((words)v & larger) | ((words)top & ~larger));
        }
        words left = ~(words){0};
        for (size_t t = 0; t < taps; t++) {
            lanes v = load_lanes(x[t] + j);
            words here = ((words)(v == top) | (words)(v != v)) & left;
            lanes sum = load_lanes(gx[t] + j) + (lanes)((words)g & here);
            left &= ~here;
            memcpy(gx[t] + j, &sum, sizeof sum);
        }
    }
    for (; j < n; j++) {
        size_t best = 0;
        for (size_t t = 1; t < taps; t++)
            if (x[t][j] > x[best][j] || x[t][j] != x[t][j]) best = t;
        gx[best][j] += gy[j];
    }
}
