/* Metrics of one query from the ranks of its relevant items. Equations in likeness/eval.h. */
#include "base/error.h"
#include <likeness/eval.h>

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

size_t lk_eval_columns(size_t n_ks)
{
    return LK_EVAL_SCALARS + LK_EVAL_LISTS * n_ks;
}

size_t lk_eval_column(int list, size_t c, size_t n_ks)
{
    return LK_EVAL_SCALARS + (size_t)list * n_ks + c;
}

void lk_eval_column_name(size_t column, const uint32_t *ks, size_t n_ks, char name[32])
{
    static const char *const scalars[] = {"mAP", "MAP@R", "R-precision", "MRR", "nDCG", "nDCG-exp"};
    static const char *const lists[] = {"precision", "recall", "hit", "mAP", "map_cut", "nDCG", "nDCG-exp"};
    if (column < LK_EVAL_SCALARS)
        snprintf(name, 32, "%s", scalars[column]);
    else
        snprintf(name, 32, "%s@%" PRIu32, lists[(column - LK_EVAL_SCALARS) / n_ks],
                 ks[(column - LK_EVAL_SCALARS) % n_ks]);
}

static lk_status check(const uint64_t *ranks, size_t found, size_t relevant, const uint32_t *ks, size_t n_ks)
{
    if (relevant == 0) return lk_fail(LK_INVALID, "a query without relevant items has no metrics");
    if (found > relevant) return lk_fail(LK_INVALID, "%zu relevant items were found of %zu", found, relevant);
    if (n_ks > LK_EVAL_MAX_KS)
        return lk_fail(LK_INVALID, "%zu cut-offs are more than the %d possible", n_ks, LK_EVAL_MAX_KS);
    for (size_t c = 0; c < n_ks; c++)
        if (ks[c] == 0) return lk_fail(LK_INVALID, "a cut-off of 0 makes no sense");
    for (size_t i = 0; i < found; i++)
        if (ranks[i] <= (i ? ranks[i - 1] : 0)) return lk_fail(LK_INVALID, "ranks must rise and start at 1 or above");
    return LK_OK;
}

/* Discounted gains: linear, exponential. */
typedef struct gains {
    double linear, exponential;
} gains;

static void add_gain(gains *sum, const double *grades, size_t i, uint64_t rank)
{
    double discount = log2((double)rank + 1), grade = grades ? grades[i] : 1;
    sum->linear += grade / discount;
    sum->exponential += (exp2(grade) - 1) / discount;
}

static double share(double part, double whole)
{
    return whole > 0 ? part / whole : 0;
}

lk_status lk_eval_query(const uint64_t *ranks, const double *grades, size_t found, size_t relevant, const double *ideal,
                        const uint32_t *ks, size_t n_ks, double *out)
{
    lk_status s = check(ranks, found, relevant, ks, n_ks);
    if (s != LK_OK) return s;
    memset(out, 0, lk_eval_columns(n_ks) * sizeof *out);

    gains best[LK_EVAL_MAX_KS] = {0}, best_all = {0}, got[LK_EVAL_MAX_KS] = {0}, got_all = {0};
    uint32_t deepest = 0;
    for (size_t c = 0; c < n_ks; c++) deepest = ks[c] > deepest ? ks[c] : deepest;
    for (size_t i = 0; i < relevant; i++) {
        gains one = {0};
        add_gain(&one, ideal, i, i + 1);
        best_all.linear += one.linear;
        best_all.exponential += one.exponential;
        for (size_t c = 0; i < deepest && c < n_ks; c++) {
            if (i >= ks[c]) continue;
            best[c].linear += one.linear;
            best[c].exponential += one.exponential;
        }
    }
    double precisions = 0, precisions_at_r = 0, precisions_at[LK_EVAL_MAX_KS] = {0}, hits[LK_EVAL_MAX_KS] = {0},
           first_r = 0;
    for (size_t i = 0; i < found; i++) {
        double precision = (double)(i + 1) / (double)ranks[i];
        precisions += precision;
        if (ranks[i] <= relevant) {
            first_r += 1;
            precisions_at_r += precision;
        }
        add_gain(&got_all, grades, i, ranks[i]);
        for (size_t c = 0; ranks[i] <= deepest && c < n_ks; c++) {
            if (ranks[i] > ks[c]) continue;
            hits[c] += 1;
            precisions_at[c] += precision;
            add_gain(&got[c], grades, i, ranks[i]);
        }
    }
    double r = (double)relevant;
    out[LK_EVAL_MAP] = precisions / r;
    out[LK_EVAL_MAP_AT_R] = precisions_at_r / r;
    out[LK_EVAL_R_PRECISION] = first_r / r;
    out[LK_EVAL_MRR] = found ? 1.0 / (double)ranks[0] : 0;
    out[LK_EVAL_NDCG] = share(got_all.linear, best_all.linear);
    out[LK_EVAL_NDCG_EXP] = share(got_all.exponential, best_all.exponential);
    for (size_t c = 0; c < n_ks; c++) {
        out[lk_eval_column(LK_EVAL_PRECISION, c, n_ks)] = hits[c] / ks[c];
        out[lk_eval_column(LK_EVAL_RECALL, c, n_ks)] = hits[c] / r;
        out[lk_eval_column(LK_EVAL_HIT, c, n_ks)] = hits[c] > 0;
        out[lk_eval_column(LK_EVAL_MAP_AT, c, n_ks)] = precisions_at[c] / (ks[c] < r ? ks[c] : r);
        out[lk_eval_column(LK_EVAL_MAP_CUT, c, n_ks)] = precisions_at[c] / r;
        out[lk_eval_column(LK_EVAL_NDCG_AT, c, n_ks)] = share(got[c].linear, best[c].linear);
        out[lk_eval_column(LK_EVAL_NDCG_EXP_AT, c, n_ks)] = share(got[c].exponential, best[c].exponential);
    }
    return LK_OK;
}

size_t lk_eval_drop_junk(uint64_t *ranks, const uint8_t *junk, size_t n)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (!junk[i]) {
            ranks[kept] = ranks[i] - (i - kept); /* i - kept junk items are ahead of it */
            kept++;
        }
    return kept;
}

lk_status lk_eval_revisited(const uint64_t *ranks, size_t found, size_t relevant, const uint32_t *ks, size_t n_ks,
                            double *average_precision, double *precision)
{
    lk_status s = check(ranks, found, relevant, ks, n_ks);
    if (s != LK_OK) return s;
    double sum = 0;
    for (size_t i = 0; i < found; i++) {
        double before = ranks[i] == 1 ? 1 : (double)i / (double)(ranks[i] - 1);
        sum += (before + (double)(i + 1) / (double)ranks[i]) / 2;
    }
    *average_precision = sum / (double)relevant;
    for (size_t c = 0; c < n_ks; c++) {
        size_t hits = 0;
        uint64_t depth = found && ranks[found - 1] < ks[c] ? ranks[found - 1] : ks[c];
        while (hits < found && ranks[hits] <= depth) hits++;
        precision[c] = (double)hits / (double)depth;
    }
    return LK_OK;
}

const uint32_t lk_eval_depths[LK_EVAL_DEPTHS] = {1,  2,  3,  4,  5,  6,  7,   8,   9,   10,  12,  15,  20,  25,
                                                 30, 40, 50, 60, 70, 80, 100, 120, 150, 200, 300, 500, 700, 1000};

void lk_eval_curves_of(const uint64_t *ranks, size_t found, size_t relevant, lk_eval_curves *out)
{
    *out = (lk_eval_curves){0};
    /* From the deepest relevant item upwards, so that each level takes the best precision at its recall or above. A
     * level l/100 is reached by item i (0-based) when 100 (i + 1) >= l R. */
    double best = 0;
    size_t i = found;
    for (size_t level = LK_EVAL_LEVELS; level-- > 0;) {
        while (i > 0 && (uint64_t)(LK_EVAL_LEVELS - 1) * i >= (uint64_t)level * relevant) {
            double precision = (double)i / (double)ranks[i - 1];
            best = precision > best ? precision : best;
            i--;
        }
        out->precision[level] = best;
    }
    for (size_t d = 0, hits = 0; d < LK_EVAL_DEPTHS; d++) {
        while (hits < found && ranks[hits] <= lk_eval_depths[d]) hits++;
        out->recall[d] = (double)hits / (double)relevant;
        out->hit[d] = hits > 0;
    }
}
