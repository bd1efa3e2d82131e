/* Retrieval metrics from ranks. Takes ranked lists, knows nothing of pictures or vectors.
 *
 * One query contributes the 1-based ranks of its relevant items in its ranking, the query itself left out of the
 * ranking, plus the number of relevant items R (those never ranked count as not found). Everything below follows from
 * the ranks: precision@k    |relevant in first k| / k recall@k       |relevant in first k| / R hit@k          1 if any
 * relevant in first k (metric-learning papers call this Recall@K) R-precision    |relevant in first R| / R AP (1/R) sum
 * over relevant of precision at its rank; mAP is the mean over queries nDCG@k         sum g/log2(1+rank) over ranks <=
 * k, divided by the ideal with the same gains (Jarvelin & Kekalainen 2002) MRR            1 / rank of the first
 * relevant Rules: a query without relevant items is counted apart and takes no part in any mean. Items with equal
 * scores are ranked by ascending id, so that results are reproducible. */
#ifndef LIKENESS_EVAL_H
#define LIKENESS_EVAL_H

#include <likeness/status.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LK_EVAL_MAX_KS 16

typedef struct lk_query_metrics {
    double average_precision, r_precision, reciprocal_rank;
    double precision[LK_EVAL_MAX_KS], recall[LK_EVAL_MAX_KS], hit[LK_EVAL_MAX_KS], ndcg[LK_EVAL_MAX_KS];
} lk_query_metrics;

/* Metrics of one query. ranks [found] ascending, 1-based, distinct; gains [found] of those items or NULL for all 1;
 * relevant = R >= found; ideal_gains [relevant] descending or NULL for all 1; ks [n_ks] cut-offs, n_ks <=
 * LK_EVAL_MAX_KS. LK_INVALID when relevant is 0, found > relevant or ranks are not ascending from 1. */
LK_API lk_status lk_eval_query(const uint64_t *ranks, const double *gains, size_t found, size_t relevant,
                               const double *ideal_gains, const uint32_t *ks, size_t n_ks, lk_query_metrics *out);

/* Means over queries, added one by one. Sums are kept in f64 in order of adding. */
typedef struct lk_eval_mean {
    lk_query_metrics sum;
    uint64_t queries;         /* with at least one relevant item */
    uint64_t queries_without; /* left out of the means */
} lk_eval_mean;
LK_API void lk_eval_mean_add(lk_eval_mean *mean, const lk_query_metrics *query, size_t n_ks);
/* Divides; all zero when no query was added. */
LK_API lk_query_metrics lk_eval_mean_result(const lk_eval_mean *mean, size_t n_ks);

/* Ranks of the relevant items of one query from the scores of the whole gallery, without sorting it.
 * scores [n], ids [n]; higher_is_better as the metric says; self: index of the query in the gallery, or SIZE_MAX;
 * relevant [n_relevant] gallery indices (self must not be among them). out ranks [n_relevant], ascending.
 * order_out [n_relevant], if not NULL, receives the gallery index that has each rank. */
LK_API lk_status lk_eval_ranks(const float *scores, const uint64_t *ids, size_t n, int higher_is_better, size_t self,
                               const size_t *relevant, size_t n_relevant, uint64_t *ranks, size_t *order_out);

#ifdef __cplusplus
}
#endif
#endif
