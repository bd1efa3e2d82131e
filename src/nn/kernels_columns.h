/* Sums down the columns of matrices [rows][step], part of kernels_simd.h: batch norm and its gradient. Short runs are
 * summed in f32 and the runs in double, in one order. */

enum { COLUMN_RUN = 64 };

/* out [n] = sum over rows of x, or of (x - mean)^2 where mean is given. */
static void k_column_sums(const float *x, size_t rows, size_t step, size_t n, const float *mean, double *out)
{
    for (size_t j = 0; j < n; j++) out[j] = 0;
    for (size_t first = 0; first < rows; first += COLUMN_RUN) {
        size_t last = rows - first < COLUMN_RUN ? rows : first + COLUMN_RUN, j = 0;
        for (; j + 16 <= n; j += 16) {
            lanes sum = {0}, m = {0};
            float parts[16];
            if (mean) m = load_lanes(mean + j);
            for (size_t r = first; r < last; r++) {
                lanes v = load_lanes(x + r * step + j);
                if (mean) {
                    v -= m;
                    v *= v;
                }
                sum += v;
            }
            memcpy(parts, &sum, sizeof parts);
            for (size_t i = 0; i < 16; i++) out[j + i] += (double)parts[i];
        }
        for (; j < n; j++)
            for (size_t r = first; r < last; r++) {
                double v = (double)x[r * step + j] - (mean ? (double)mean[j] : 0);
                out[j] += mean ? v * v : v;
            }
    }
}

/* sum [n] = sum over rows of gy, product [n] = that of gy (x - mean) rstd. */
static void k_column_products(const float *x, const float *gy, size_t rows, size_t step, size_t n, const float *mean,
                              const float *rstd, double *sum, double *product)
{
    for (size_t j = 0; j < n; j++) sum[j] = product[j] = 0;
    for (size_t first = 0; first < rows; first += COLUMN_RUN) {
        size_t last = rows - first < COLUMN_RUN ? rows : first + COLUMN_RUN, j = 0;
        for (; j + 16 <= n; j += 16) {
            lanes s = {0}, p = {0}, m = load_lanes(mean + j), r1 = load_lanes(rstd + j);
            float parts[2][16];
            for (size_t r = first; r < last; r++) {
                lanes g = load_lanes(gy + r * step + j);
                s += g;
                p += g * (load_lanes(x + r * step + j) - m);
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
                double g = (double)gy[r * step + j];
                sum[j] += g;
                product[j] += g * (double)((x[r * step + j] - mean[j]) * rstd[j]);
            }
    }
}

/* gx += a gy + b x + c, a, b, c [n] by column. */
static void k_column_update(const float *x, const float *gy, size_t rows, size_t step, size_t n, const float *a,
                            const float *b, const float *c, float *gx)
{
    for (size_t r = 0; r < rows; r++, x += step, gy += step, gx += step)
        for (size_t j = 0; j < n; j++) gx[j] += a[j] * gy[j] + b[j] * x[j] + c[j];
}
