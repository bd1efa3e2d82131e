/* Affine maps and homographies from pairs of points. Both sides are moved to their centre and scaled to a mean distance
 * of sqrt(2) first (Hartley, 1997): without that the equations of a homography lose half their digits. */
#include "rank/fit.h"

#include "base/error.h"

#include <lapacke.h>
#include <math.h>
#include <string.h>

/* x -> (x - centre) * scale */
typedef struct frame {
    lk_point centre;
    double scale;
} frame;

static lk_point pick(const lk_point *points, const uint32_t *chosen, size_t i)
{
    return points[chosen ? chosen[i] : i];
}

static bool frame_of(size_t n, const uint32_t *chosen, const lk_point *points, frame *out)
{
    lk_point sum = {0, 0};
    double spread = 0;
    for (size_t i = 0; i < n; i++) {
        lk_point p = pick(points, chosen, i);
        sum.x += p.x;
        sum.y += p.y;
    }
    out->centre = (lk_point){sum.x / (double)n, sum.y / (double)n};
    for (size_t i = 0; i < n; i++) {
        lk_point p = pick(points, chosen, i);
        spread += hypot(p.x - out->centre.x, p.y - out->centre.y);
    }
    out->scale = sqrt(2) * (double)n / spread;
    return spread > 0 && isfinite(spread);
}

static lk_point into(const frame *f, lk_point p)
{
    return (lk_point){(p.x - f->centre.x) * f->scale, (p.y - f->centre.y) * f->scale};
}

/* Gaussian elimination with partial pivoting: a [n][n + columns], the right-hand sides behind; solutions take their
 * place. */
static bool eliminate(double *a, size_t n, size_t columns)
{
    size_t width = n + columns;
    for (size_t c = 0; c < n; c++) {
        size_t pivot = c;
        for (size_t r = c + 1; r < n; r++)
            if (fabs(a[r * width + c]) > fabs(a[pivot * width + c])) pivot = r;
        if (!(fabs(a[pivot * width + c]) > 1e-10)) return false;
        for (size_t j = c; j < width && pivot != c; j++) {
            double t = a[c * width + j];
            a[c * width + j] = a[pivot * width + j];
            a[pivot * width + j] = t;
        }
        for (size_t r = 0; r < n; r++) {
            double factor = r == c ? 0 : a[r * width + c] / a[c * width + c];
            for (size_t j = c; factor != 0 && j < width; j++) a[r * width + j] -= factor * a[c * width + j];
        }
    }
    for (size_t r = 0; r < n; r++)
        for (size_t j = n; j < width; j++) a[r * width + j] /= a[r * width + r];
    return true;
}

/* The two equations of one pair for h [9]: rows of the direct linear transform. */
static void equations(lk_point p, lk_point q, double rows[2][9])
{
    const double both[2][9] = {{p.x, p.y, 1, 0, 0, 0, -q.x * p.x, -q.x * p.y, -q.x},
                               {0, 0, 0, p.x, p.y, 1, -q.y * p.x, -q.y * p.y, -q.y}};
    memcpy(rows, both, sizeof both);
}

/* Four pairs: the last element is set to 1, eight equations remain. */
static bool homography_of_four(const lk_point p[4], const lk_point q[4], double h[9])
{
    double a[8 * 9], rows[2][9];
    for (size_t i = 0; i < 4; i++) {
        equations(p[i], q[i], rows);
        for (size_t r = 0; r < 2; r++) {
            memcpy(a + (2 * i + r) * 9, rows[r], 9 * sizeof(double));
            a[(2 * i + r) * 9 + 8] = -rows[r][8];
        }
    }
    if (!eliminate(a, 8, 1)) return false;
    for (size_t i = 0; i < 8; i++) h[i] = a[i * 9 + 8];
    h[8] = 1;
    return true;
}

/* More: the unit vector that the equations send nearest to zero, which is the eigenvector of the smallest eigenvalue.
 */
static bool homography_of_many(size_t n, const uint32_t *chosen, const lk_point *from, const lk_point *to,
                               const frame *f, const frame *t, double h[9])
{
    double normal[81] = {0}, rows[2][9], values[9];
    for (size_t i = 0; i < n; i++) {
        equations(into(f, pick(from, chosen, i)), into(t, pick(to, chosen, i)), rows);
        for (size_t r = 0; r < 2; r++)
            for (size_t a = 0; a < 9; a++)
                for (size_t b = 0; b <= a; b++) normal[a * 9 + b] += rows[r][a] * rows[r][b];
    }
    if (LAPACKE_dsyev(LAPACK_ROW_MAJOR, 'V', 'L', 9, normal, 9, values) != 0) return false;
    if (!(values[1] > 1e-9 * values[8])) return false; /* two directions fit: the points do not determine one */
    for (size_t i = 0; i < 9; i++) h[i] = normal[i * 9];
    return true;
}

static bool affine_of(size_t n, const uint32_t *chosen, const lk_point *from, const lk_point *to, const frame *f,
                      const frame *t, double h[9])
{
    double a[3 * 5] = {0};
    for (size_t i = 0; i < n; i++) {
        lk_point p = into(f, pick(from, chosen, i)), q = into(t, pick(to, chosen, i));
        const double x[3] = {p.x, p.y, 1}, y[2] = {q.x, q.y};
        for (size_t r = 0; r < 3; r++) {
            for (size_t c = 0; c < 3; c++) a[r * 5 + c] += x[r] * x[c];
            for (size_t c = 0; c < 2; c++) a[r * 5 + 3 + c] += x[r] * y[c];
        }
    }
    if (!eliminate(a, 3, 2)) return false;
    const double out[9] = {a[3], a[8], a[13], a[4], a[9], a[14], 0, 0, 1};
    memcpy(h, out, sizeof out);
    return true;
}

/* to^-1 * h * from, scaled so that the last element is 1. */
static bool leave_frames(const frame *f, const frame *t, const double h[9], double out[9])
{
    const double left[9] = {1 / t->scale, 0, t->centre.x, 0, 1 / t->scale, t->centre.y, 0, 0, 1};
    const double right[9] = {f->scale, 0, -f->centre.x * f->scale, 0, f->scale, -f->centre.y * f->scale, 0, 0, 1};
    double half[9] = {0};
    memset(out, 0, 9 * sizeof *out);
    for (int r = 0; r < 3; r++)
        for (int c = 0; c < 3; c++)
            for (int m = 0; m < 3; m++) half[3 * r + c] += h[3 * r + m] * right[3 * m + c];
    for (int r = 0; r < 3; r++)
        for (int c = 0; c < 3; c++)
            for (int m = 0; m < 3; m++) out[3 * r + c] += left[3 * r + m] * half[3 * m + c];
    double last = out[8], sum = 0;
    for (int i = 0; i < 9; i++) sum += fabs(out[i] /= last);
    return isfinite(sum);
}

bool lk_fit_chosen(lk_transform_kind kind, size_t n, const uint32_t *chosen, const lk_point *from, const lk_point *to,
                   double transform[9])
{
    frame f, t;
    double h[9];
    if (n < (kind == LK_AFFINE ? 3 : 4)) return false;
    if (!frame_of(n, chosen, from, &f) || !frame_of(n, chosen, to, &t)) return false;
    if (kind == LK_AFFINE) {
        if (!affine_of(n, chosen, from, to, &f, &t, h)) return false;
    } else if (n == 4) {
        lk_point p[4], q[4];
        for (size_t i = 0; i < 4; i++) {
            p[i] = into(&f, pick(from, chosen, i));
            q[i] = into(&t, pick(to, chosen, i));
        }
        if (!homography_of_four(p, q, h)) return false;
    } else if (!homography_of_many(n, chosen, from, to, &f, &t, h)) {
        return false;
    }
    return leave_frames(&f, &t, h, transform);
}

lk_status lk_fit_transform(lk_transform_kind kind, size_t n, const lk_point *from, const lk_point *to,
                           double transform[9])
{
    if (lk_fit_chosen(kind, n, NULL, from, to, transform)) return LK_OK;
    return lk_fail(LK_INVALID, "%zu pairs of points do not determine %s", n,
                   kind == LK_AFFINE ? "an affine map" : "a homography");
}
