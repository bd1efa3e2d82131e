/* The last points of quality: query expansion, re-ranking, geometric verification. Arrays and an index's neighbours in,
 * scores out; knows nothing of pictures, files or collections. What each method is good for, its cost and its
 * parameters: docs/ranking.md.
 *
 * "Distance" below is the squared Euclidean distance; for vectors of unit length it is 2 - 2 * cosine. */
#ifndef LIKENESS_RANK_H
#define LIKENESS_RANK_H

#include <likeness/context.h>
#include <likeness/index.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- query expansion ---- */

typedef enum lk_expansion {
    LK_EXPAND_NONE = 0,
    LK_EXPAND_AVERAGE, /* every neighbour counts 1: AQE (Chum et al., 2007) */
    LK_EXPAND_RANK,    /* the i-th of n counts (n - i) / n, i from 0 */
    LK_EXPAND_ALPHA    /* max(similarity, 0)^alpha: alpha-QE (Radenovic et al., 2018, section 4.3) */
} lk_expansion;

/* The query joined by its n nearest: out = normalise(query + sum_i w_i * neighbour_i), the weights by kind.
 * query [dim], neighbours [n][dim] best first, both of unit length; similarities [n] their cosines with the query (read
 * for LK_EXPAND_ALPHA alone, else may be NULL); out [dim] may be query. A sum of length zero leaves the query as it
 * was. LK_INVALID for LK_EXPAND_NONE, an unknown kind or alpha < 0. */
LK_API lk_status lk_expand_query(lk_expansion kind, float alpha, size_t dim, const float *query, size_t n,
                                 const float *neighbours, const float *similarities, float *out);

/* Database-side augmentation (Arandjelovic & Zisserman, 2012): every vector expanded by its k nearest others, with the
 * weights above. vectors [n][dim] of unit length; out [n][dim], not the same memory. Exact neighbours are found inside.
 * LK_INVALID, LK_NO_MEMORY, LK_CANCELLED. */
LK_API lk_status lk_augment(lk_context *context, lk_expansion kind, float alpha, size_t k, size_t n, size_t dim,
                            const float *vectors, float *out);

/* One query out of several pictures of the same thing: the normalised mean of the normalised vectors [n][dim]. Its
 * cosine with a picture is proportional to the mean of the single cosines, so this is the fusion by mean score at the
 * price of one search. out [dim]. LK_INVALID when n is 0 or the mean is zero. */
LK_API lk_status lk_fuse_queries(size_t n, size_t dim, const float *vectors, float *out);

/* Relevance feedback (Rocchio, 1971): normalise(alpha * query + beta * mean(yes) - gamma * mean(no)); a mean of nothing
 * is zero. query [dim], yes [n_yes][dim], no [n_no][dim]; out [dim] may be query. LK_INVALID when the result is zero.
 */
typedef struct lk_rocchio {
    float alpha, beta, gamma;
} lk_rocchio;
LK_API lk_rocchio lk_rocchio_defaults(void); /* 1, 0.75, 0.15 */
LK_API lk_status lk_feedback(lk_rocchio weights, size_t dim, const float *query, size_t n_yes, const float *yes,
                             size_t n_no, const float *no, float *out);

/* ---- neighbours of the pictures themselves ---- */

/* Stands for the query where an id of the collection is expected. */
#define LK_RANK_QUERY UINT64_MAX

/* Where a re-ranker learns who is near whom. Both functions may be called from several threads at once.
 *
 * neighbours: the k nearest items to item `id` among all items, itself included, nearest first, equally near ones by
 * smaller id. out [k] with distances as scores; *count says how many. *farthest is the distance to the item farthest
 * from it, or 0 when that is not known. An approximate index may leave some out. LK_NOT_FOUND when it does not know the
 * item: the item then has no neighbours but itself.
 * distance: between two items, or an item and LK_RANK_QUERY. NULL is allowed: an item outside of a list is then taken
 * to be as far as the last of the list. */
typedef struct lk_neighbour_source {
    lk_status (*neighbours)(void *user, uint64_t id, size_t k, lk_hit *out, size_t *count, float *farthest);
    lk_status (*distance)(void *user, uint64_t a, uint64_t b, float *out);
    void *user;
} lk_neighbour_source;

/* A table of neighbours, exact or given. 8 bytes a neighbour and 12 an item. Read by any number of threads. */
typedef struct lk_knn lk_knn;

/* The k nearest of each of n vectors [n][dim] among all of them (itself first unless it has doubles), exactly: screened
 * in f32 by matrix products, decided in f64. ids [n] distinct, NULL = 0, 1, ... Cost n^2 * dim. Fewer than k where
 * there are fewer vectors. LK_INVALID (n, dim or k 0, n above 2^32 - 1, not finite), LK_NO_MEMORY, LK_CANCELLED. */
LK_API lk_status lk_knn_new(lk_context *context, size_t n, size_t dim, const uint64_t *ids, const float *vectors,
                            size_t k, lk_knn **out);
/* The same from lists that an index found: neighbours [n][k] positions of items, nearest first, UINT32_MAX for none;
 * distances [n][k]; farthest [n] or NULL for unknown. Everything is copied. LK_INVALID (a position out of range). */
LK_API lk_status lk_knn_from_lists(size_t n, const uint64_t *ids, size_t k, const uint32_t *neighbours,
                                   const float *distances, const float *farthest, lk_knn **out);
LK_API void lk_knn_free(lk_knn *knn);
LK_API size_t lk_knn_count(const lk_knn *knn);
LK_API size_t lk_knn_width(const lk_knn *knn); /* k */
/* A checked file, replaced atomically. version is the caller's: what the table belongs to. LK_IO; LK_CORRUPT,
 * LK_NOT_FOUND, LK_UNSUPPORTED. */
LK_API lk_status lk_knn_save(const lk_knn *knn, const char *path, uint64_t version);
LK_API lk_status lk_knn_open(const char *path, lk_knn **out, uint64_t *version);
/* As the `neighbours` of a source; user is the lk_knn. */
LK_API lk_status lk_knn_neighbours(void *user, uint64_t id, size_t k, lk_hit *out, size_t *count, float *farthest);

/* A source made of a table and the vectors of an exact index; everything is borrowed. */
typedef struct lk_indexed_source {
    lk_knn *knn;
    const lk_flat *index;
    const float *query; /* [lk_flat_dim] */
} lk_indexed_source;
/* neighbours: lk_knn_neighbours; distance: of the vectors as they are stored. `indexed` must outlive the result. */
LK_API lk_neighbour_source lk_source_of_index(lk_indexed_source *indexed);

/* ---- re-ranking ---- */

/* k-reciprocal encoding with Jaccard distance and local query expansion (Zhong, Zheng, Cao & Li, CVPR 2017).
 *
 * Over a pool of items, with d the distance and max_i the largest d(i, .) in the pool:
 *   N(i, k)   the k + 1 nearest to i, itself one of them
 *   R(i, k)   those of N(i, k) that have i in their own N(., k)                                     (eq. 4)
 *   R*(i)     R(i, k1), joined by R(c, k1/2) for each c of R(i, k1) with |R(i, k1) & R(c, k1/2)| > 2/3 |R(c, k1/2)| (5)
 *   V_i[j]    exp(-d(i, j) / max_i) for j in R*(i), else 0; divided by the sum                      (eq. 7)
 *   W_i       the mean of V_j over the k2 nearest j of i, itself one of them                        (eq. 11)
 *   J(i, j)   1 - sum min(W_i, W_j) / (2 - sum min(W_i, W_j))                                       (eq. 10)
 *   result    (1 - lambda) * J(q, g) + lambda * d(q, g) / max_q                                     (eq. 12)
 * k1/2 is rounded half to even, sets are those of the published program, and equally near items go by position (queries
 * first). The published program divides row i by max_i although the paper does not say so; it is done here too. */
typedef struct lk_kreciprocal_options {
    uint32_t k1, k2;
    float lambda;
} lk_kreciprocal_options;
LK_API lk_kreciprocal_options lk_kreciprocal_defaults(void); /* 20, 6, 0.3 */

/* Receives the re-ranked distances of one query, lower is better; borrowed for the call. From several threads at once.
 */
typedef lk_status (*lk_rank_row_fn)(void *user, size_t query, const float *distances);

/* The form for research sets: vectors [n][dim], of which the first `queries` are queries, as in the published program,
 * where queries are neighbours of one another too. A row has the n - queries others in order; with queries == n (each
 * picture asks for all) a row has all n, the query itself included. Never holds n x n numbers: memory is the vectors
 * once more, about 1 KB an item, and one block of rows a thread. options NULL = defaults. LK_INVALID, LK_NO_MEMORY,
 * LK_CANCELLED. */
LK_API lk_status lk_kreciprocal_full(lk_context *context, const lk_kreciprocal_options *options, size_t n,
                                     size_t queries, size_t dim, const float *vectors, lk_rank_row_fn row, void *user);

/* What a search found, to be ranked anew. */
typedef struct lk_shortlist {
    size_t count;
    const uint64_t *ids;    /* [count], distinct, best first */
    const float *distances; /* [count], to the query; finite, never falling */
    float farthest; /* distance of the item farthest from the query in the whole collection; 0 = not known: that of
                       the best result is taken, then the largest of `distances` */
    uint64_t self;  /* id of the query where it is an item of the collection (and not in `ids`), else LK_RANK_QUERY */
} lk_shortlist;

/* The local form: the same numbers for the shortlist alone, from the neighbours of its items and of theirs. Its cost
 * depends on the length of the shortlist, k1 and k2, not on the collection. With exact neighbours, distances and
 * `farthest` the result is that of the full form over {query} + collection. out [count], lower is better. A list of
 * neighbours shorter than k1 + 1 is used as it is. options NULL = defaults. One thread. LK_INVALID, LK_NO_MEMORY. */
LK_API lk_status lk_kreciprocal_rerank(const lk_kreciprocal_options *options, const lk_shortlist *list,
                                       const lk_neighbour_source *source, float *out);

/* Diffusion on the graph of mutual neighbours (Iscen, Tolias, Avrithis, Furon & Chum, CVPR 2017), truncated to the
 * shortlist: A_ij = max(s_ij, 0)^gamma if i and j are among each other's k nearest, else 0; A_ii = 0; s = 1 - d/2, the
 * cosine S = D^-1/2 A D^-1/2, D the row sums; a row without neighbours stays zero y_i = max(s_qi, 0)^gamma for the kq
 * nearest to the query, else 0 (I - alpha S) f = y, by conjugate gradients from zero Vectors must be of unit length. k
 * counts the item itself, as the published program does. */
typedef struct lk_diffusion_options {
    uint32_t k, kq;
    float gamma, alpha;
    uint32_t iterations; /* at most */
    float tolerance;     /* stops when |residual| <= tolerance * |y| */
} lk_diffusion_options;
LK_API lk_diffusion_options lk_diffusion_defaults(void); /* 50, 10, 3, 0.99, 20, 1e-6 */
/* out [count]: f, higher is better; items that no path joins to the query have 0. options NULL = defaults. LK_INVALID,
 * LK_NO_MEMORY. */
LK_API lk_status lk_diffusion_rerank(const lk_diffusion_options *options, const lk_shortlist *list,
                                     const lk_neighbour_source *source, float *out);

/* Refinement of the global descriptors of a shortlist (SuperGlobal: Shao, Chen, Karpur, Cui, Araujo & Cao, ICCV 2023,
 * section 3.3): each descriptor x_i becomes the mean of its k + 1 most similar of the shortlist, itself with weight 1
 * and the others with beta times their similarity; the query becomes the component-wise maximum of the k + 1 refined
 * descriptors most like it; the score is the mean of (query . refined_i) and (new query . refined_i).
 * Meant for descriptors whose components are activations (GeM without whitening, or nearly so). */
typedef struct lk_superglobal_options {
    uint32_t k;
    float beta;
} lk_superglobal_options;
LK_API lk_superglobal_options lk_superglobal_defaults(void); /* 9, 0.15 */
/* query [dim], vectors [count][dim] best first, of unit length; out [count], higher is better. Cost count^2 * dim. One
 * thread. LK_NO_MEMORY. */
LK_API lk_status lk_superglobal_rerank(const lk_superglobal_options *options, size_t dim, const float *query,
                                       size_t count, const float *vectors, float *out);

/* ---- geometric verification ---- */

/* A pair of places that look alike: position in the first and in the second list. */
typedef struct lk_match {
    uint32_t a, b;
    float distance;
} lk_match;

/* Nearest neighbours among local descriptors: a's descriptor i matches its nearest j of b when d1 < ratio^2 * d2, d1
 * and d2 the distances of the nearest and the second (Lowe, 2004, section 7.1: ratio 0.8). With mutual != 0, i must be
 * the nearest of j as well. a [n_a][dim], b [n_b][dim]; out [n_a], in order of a; *count. A list b of one has no
 * second: nothing matches unless ratio >= 1. LK_NO_MEMORY. */
LK_API lk_status lk_match_descriptors(size_t dim, size_t n_a, const float *a, size_t n_b, const float *b, float ratio,
                                      int mutual, lk_match *out, size_t *count);

typedef struct lk_point {
    double x, y;
} lk_point;

typedef enum lk_transform_kind {
    LK_AFFINE,    /* 3 pairs; the last row is 0 0 1 */
    LK_HOMOGRAPHY /* 4 pairs */
} lk_transform_kind;

/* Least squares fit of n pairs, to = transform(from): the normalised direct linear transform (Hartley, 1997) for a
 * homography, normal equations for an affine map. transform [9] row by row, scaled so that the last is 1. LK_INVALID
 * when there are fewer pairs than needed or they lie so that nothing is determined. */
LK_API lk_status lk_fit_transform(lk_transform_kind kind, size_t n, const lk_point *from, const lk_point *to,
                                  double transform[9]);

typedef struct lk_verify_options {
    lk_transform_kind kind;
    double threshold; /* pixels in the second picture: farther from where the transform puts it, a pair is an outlier */
    double confidence;   /* stops when a better sample would have been seen with this probability */
    uint32_t iterations; /* at most */
    uint64_t seed;
} lk_verify_options;
LK_API lk_verify_options lk_verify_defaults(void); /* affine, 3, 0.999, 2000, 1 */

typedef struct lk_verified {
    double transform[9];
    size_t inliers;      /* 0: nothing was found, and then the transform is all zero */
    uint32_t iterations; /* samples that were tried */
} lk_verified;

/* RANSAC (Fischler & Bolles, 1981) with an adaptive number of samples and local optimisation (Chum, Matas & Kittler,
 * 2003): each new best sample is fitted again to its inliers until their number grows no more. Samples of which three
 * lie nearly on a line, and those of four whose triangles do not all keep or all turn their sense, are dropped early.
 * inlier [n] (may be NULL) receives 0 or 1. A transform that only its own sample agrees with counts as none. The same
 * input and seed give the same result. options NULL = defaults. LK_INVALID (threshold or confidence out of range),
 * LK_NO_MEMORY. */
LK_API lk_status lk_verify_matches(const lk_verify_options *options, size_t n, const lk_point *from, const lk_point *to,
                                   lk_verified *out, uint8_t *inlier);

/* A local feature: place and size in pixels, direction in radians. */
typedef struct lk_feature {
    float x, y, scale, angle;
} lk_feature;

/* The same for pairs of oriented features, each of which is a whole similarity (Philbin, Chum, Isard, Sivic &
 * Zisserman, CVPR 2007, section 4): every pair is tried as a hypothesis, so nothing is left to chance and the cost is
 * n^2; the best four are refined to affine maps by fitting to those who agree within threshold pixels of the second
 * picture. A pair agrees only if it also grows (to a factor of 2) and turns (to 0.6 radians) as the hypothesis does.
 * Maps that mirror, or stretch one direction five times more than the other, count as none, as do those of three pairs
 * or fewer. inlier [n] may be NULL. LK_INVALID (threshold), LK_NO_MEMORY. */
LK_API lk_status lk_verify_features(double threshold, size_t n, const lk_feature *from, const lk_feature *to,
                                    lk_verified *out, uint8_t *inlier);

#ifdef __cplusplus
}
#endif
#endif
