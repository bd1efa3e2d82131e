/* Retrieval metrics from ranks, what can be said about their certainty, and the files of TREC. Takes ranked lists,
 * knows nothing of pictures or vectors. Every formula with its source, and every rule: docs/evaluation.md.
 *
 * One query contributes the 1-based ranks r_1 < r_2 < ... of its relevant items in its ranking and their number R
 * (those never ranked count as not found). Everything follows from them: mAP          AP = (1/R) sum_i i/r_i; mAP is
 * the mean over queries MAP@R        the same sum over r_i <= R (Musgrave et al. 2020, "A metric learning reality
 * check", section 3.2) R-precision  |r_i <= R| / R MRR          1/r_1, 0 when nothing was found precision@k  |r_i <= k|
 * / k, also when fewer than k items were ranked recall@k     |r_i <= k| / R: the share of the relevant that was found
 *   hit@k        1 if r_1 <= k: what metric-learning papers call Recall@K, re-identification papers CMC rank k, and
 *                recommender papers the hit rate
 *   mAP@k        (1/min(R,k)) sum over r_i <= k of i/r_i: 1 is reached whatever R is (Weyand et al. 2020, GLDv2, eq. 1)
 *   map_cut@k    the same sum divided by R, as trec_eval's measure of this name
 *   nDCG, nDCG@k sum g_i/log2(1+r_i) over r_i <= k, over the same of the best possible ranking; gain g = the grade
 *                (Jarvelin & Kekalainen 2002, with the discount log2(1+r))
 *   nDCG-exp     the same with the gain 2^grade - 1 (Burges et al. 2005)
 * Rules: a query without relevant items is counted apart and takes no part in any mean. */
#ifndef LIKENESS_EVAL_H
#define LIKENESS_EVAL_H

#include <likeness/context.h>
#include <likeness/status.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LK_EVAL_MAX_KS 16

/* The values of one query stand in a row of lk_eval_columns(n_ks) doubles: these first, */
enum {
    LK_EVAL_MAP,
    LK_EVAL_MAP_AT_R,
    LK_EVAL_R_PRECISION,
    LK_EVAL_MRR,
    LK_EVAL_NDCG,
    LK_EVAL_NDCG_EXP,
    LK_EVAL_SCALARS
};
/* then one run of n_ks values for each of these. */
enum {
    LK_EVAL_PRECISION,
    LK_EVAL_RECALL,
    LK_EVAL_HIT,
    LK_EVAL_MAP_AT,
    LK_EVAL_MAP_CUT,
    LK_EVAL_NDCG_AT,
    LK_EVAL_NDCG_EXP_AT,
    LK_EVAL_LISTS
};
#define LK_EVAL_MAX_COLUMNS (LK_EVAL_SCALARS + LK_EVAL_LISTS * LK_EVAL_MAX_KS)
LK_API size_t lk_eval_columns(size_t n_ks);
/* Place of a list's value at the c-th cut-off. */
LK_API size_t lk_eval_column(int list, size_t c, size_t n_ks);
/* Its name: "mAP", "nDCG@10". */
LK_API void lk_eval_column_name(size_t column, const uint32_t *ks, size_t n_ks, char name[32]);

/* Metrics of one query. ranks [found] ascending, 1-based, distinct; grades [found] > 0 of those items or NULL for all
 * 1; relevant = R >= found; ideal [relevant] the grades of all relevant items, descending, or NULL for all 1; ks [n_ks]
 * cut-offs >= 1. out [lk_eval_columns(n_ks)].
 * LK_INVALID when relevant is 0, found > relevant, n_ks > LK_EVAL_MAX_KS or ranks are not ascending from 1. */
LK_API lk_status lk_eval_query(const uint64_t *ranks, const double *grades, size_t found, size_t relevant,
                               const double *ideal, const uint32_t *ks, size_t n_ks, double *out);

/* Ranks of the relevant items of one query from the scores of the whole gallery, without sorting it: O(n * n_relevant)
 * with a small constant, O(n log n_relevant) for many. scores [n], ids [n]; higher_is_better as the metric says; a NaN
 * is worse than everything. Equal scores are ranked by ascending id. self: index of the query in the gallery, or
 * SIZE_MAX; skip [n], not NULL: items with a non-zero byte are not in the gallery of this query. relevant [n_relevant]
 * gallery indices (self and skipped items must not be among them). out ranks [n_relevant], ascending. order_out
 * [n_relevant], if not NULL, receives the gallery index that has each rank. LK_INVALID for a relevant item out of the
 * gallery. */
LK_API lk_status lk_eval_ranks(const float *scores, const uint64_t *ids, size_t n, int higher_is_better, size_t self,
                               const uint8_t *skip, const size_t *relevant, size_t n_relevant, uint64_t *ranks,
                               size_t *order_out);

/* Takes junk out of a ranking: ranks [n] ascending of relevant and junk items together, junk [n] says which are junk.
 * The relevant ones move up by the junk ahead of them and are written to ranks [returned]. What is junk for a query is
 * neither right nor wrong: it is as if it were not in the gallery. */
LK_API size_t lk_eval_drop_junk(uint64_t *ranks, const uint8_t *junk, size_t n);

/* Average precision and precision of the revisited Oxford and Paris protocol (Radenovic et al. 2018, "Revisiting Oxford
 * and Paris"), which differ from those above. ranks [found] without junk.
 *   AP            the area under the precision-recall curve by trapezoids: (1/R) sum_i ((i-1)/(r_i - 1) + i/r_i) / 2,
 *                 the first term 1 for r_i = 1
 *   precision@k   |r_i <= m| / m with m = min(k, r_found): never less than what ends at the last relevant item
 * LK_INVALID as lk_eval_query. */
LK_API lk_status lk_eval_revisited(const uint64_t *ranks, size_t found, size_t relevant, const uint32_t *ks,
                                   size_t n_ks, double *average_precision, double *precision);

/* ---- curves ---- */

#define LK_EVAL_LEVELS 101 /* recall 0, 0.01, ... 1 */
#define LK_EVAL_DEPTHS 28  /* k = 1 ... 1000, see lk_eval_depths */
extern LK_API const uint32_t lk_eval_depths[LK_EVAL_DEPTHS];
typedef struct lk_eval_curves {
    double precision[LK_EVAL_LEVELS]; /* the best precision at any recall >= the level (interpolated as TREC does) */
    double recall[LK_EVAL_DEPTHS];    /* recall@k */
    double hit[LK_EVAL_DEPTHS];       /* hit@k: the CMC curve */
} lk_eval_curves;
/* Those of one query; arguments as lk_eval_query. */
LK_API void lk_eval_curves_of(const uint64_t *ranks, size_t found, size_t relevant, lk_eval_curves *out);

/* ---- certainty ---- */

typedef struct lk_interval {
    double mean, low, high;
} lk_interval;

/* Above this many queries the normal distribution takes the place of resampling: the two agree there to less than the
 * last digit that is shown. */
#define LK_EVAL_RESAMPLE_LIMIT 10000

/* Means of the columns of values [rows][columns] with their percentile bootstrap interval (Efron & Tibshirani 1993,
 * chapter 13): queries are drawn with replacement `resamples` times. level in (0, 1), e.g. 0.95. The same seed gives
 * the same interval with any number of threads. Above LK_EVAL_RESAMPLE_LIMIT rows mean +- z * s / sqrt(n). One row: the
 * interval is the value. LK_INVALID when rows is 0. */
LK_API lk_status lk_eval_intervals(lk_context *context, const double *values, size_t rows, size_t columns, double level,
                                   uint32_t resamples, uint64_t seed, lk_interval *out);

typedef struct lk_comparison {
    lk_interval difference;      /* mean of b - a, with its paired bootstrap interval */
    double p_bootstrap;          /* two-sided: 2 min(P(mean* <= 0), P(mean* >= 0)) over resamples, at most 1 */
    double p_randomisation;      /* two-sided Fisher randomisation test (Smucker et al. 2007): the sign of each query's
                                    difference is flipped at random; all 2^n ways when they are no more than resamples,
                                    else (1 + as extreme) / (1 + resamples) */
    size_t better, worse, equal; /* queries for which b is ... than a */
} lk_comparison;

/* Compares two runs on the same queries: a, b [n]. Above LK_EVAL_RESAMPLE_LIMIT queries both p are that of a z test. */
LK_API lk_status lk_eval_compare(lk_context *context, const double *a, const double *b, size_t n, double level,
                                 uint32_t resamples, uint64_t seed, lk_comparison *out);

/* ---- one system's ranking, judged ---- */

typedef struct lk_judged {
    char *name;
    uint32_t ks[LK_EVAL_MAX_KS];
    size_t n_ks, columns;
    size_t queries;        /* that have something to find */
    char **ids;            /* [queries] */
    double *values;        /* [queries][columns] */
    uint32_t *relevant;    /* [queries] R */
    lk_interval *means;    /* [columns] */
    lk_eval_curves curves; /* means over the queries */
    double *revisited; /* [queries][3][1 + n_ks] easy, medium, hard: AP, precision@k; NaN where nothing is to be found.
                          NULL unless the truth tells easy from hard */
    uint64_t without;  /* queries left out: nothing is relevant to them */
    uint64_t missing;  /* queries of the truth that the run does not answer: they count with 0 */
    uint64_t unknown;  /* queries of the run that the truth does not know: they do not count */
    uint64_t gallery,
        depth; /* pictures ranked; ranks beyond depth count as not found (0 = none do). 0 for a TREC run */
    double seconds;
} lk_judged;

/* Room for that many queries, all values 0. */
LK_API lk_status lk_judged_init(lk_judged *judged, const char *name, const uint32_t *ks, size_t n_ks, size_t queries);
LK_API void lk_judged_free(lk_judged *judged);
/* Fills means. */
LK_API lk_status lk_judged_finish(lk_context *context, lk_judged *judged, double level, uint32_t resamples,
                                  uint64_t seed);
/* Mean of the revisited protocol in set-up 0 easy, 1 medium, 2 hard, over the queries that have something to find
 * there; column 0 AP, 1 + c precision at the c-th cut-off. 0 when there are none. */
LK_API double lk_judged_revisited(const lk_judged *judged, size_t setup, size_t column);
/* Compares one column of two over the queries that both have. LK_INVALID when there are none. */
LK_API lk_status lk_judged_compare(lk_context *context, const lk_judged *a, const lk_judged *b, size_t column,
                                   double level, uint32_t resamples, uint64_t seed, lk_comparison *out);
/* One line a query: query, relevant, then every metric by name; of several runs (with the same cut-offs) after a column
 * `run`. */
LK_API lk_status lk_judged_write_csv(const lk_judged *runs, size_t n, const char *path);

/* ---- TREC ---- */

/* A line of a run (query Q0 item rank score tag) or of qrels (query 0 item grade). */
typedef struct lk_trec_row {
    const char *query, *item;
    float score;
    double grade;
} lk_trec_row;

/* Rows by query (byte order); those of a run by descending score, equal ones by descending item in byte order: as
 * trec_eval ranks, which reads the score as f32 and pays no heed to the rank column. Those of qrels by item. */
typedef struct lk_trec {
    lk_trec_row *rows;
    size_t count;
    char *tag; /* of a run: its last column; NULL for an empty file */
    char *bytes;
} lk_trec;
/* LK_CORRUPT with the line for a wrong number of columns, a score that is no number, or an item that stands twice under
 * one query (in qrels with the same grade it counts once). */
LK_API lk_status lk_trec_read_run(const char *path, lk_trec *out);
LK_API lk_status lk_trec_read_qrels(const char *path, lk_trec *out);
LK_API void lk_trec_free(lk_trec *trec);
/* The rows [*begin, *end) of a query; empty when it has none. */
LK_API void lk_trec_find(const lk_trec *trec, const char *query, size_t *begin, size_t *end);

/* Judges a run. Relevant is what has a grade > 0; an item without a judgement is not. The judged queries are those of
 * qrels with something relevant, also those that the run does not answer. */
LK_API lk_status lk_trec_judge(const lk_trec *qrels, const lk_trec *run, const char *name, const uint32_t *ks,
                               size_t n_ks, lk_judged *out);

#ifdef __cplusplus
}
#endif
#endif
