/* Metric learning: what an embedding is taught with. Losses with their gradients, miners, samplers, labels of several
 * kinds. Everything works on plain arrays and knows nothing of networks, pictures or files.
 *
 * Equations, sources and advice on when to use what: docs/losses.md. */
#ifndef LIKENESS_METRIC_H
#define LIKENESS_METRIC_H

#include <likeness/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Labels ------------------------------------------------------------------------------------------------------ */

typedef enum lk_label_kind {
    LK_LABELS_SINGLE,   /* one class per picture */
    LK_LABELS_MULTI,    /* a set of classes per picture */
    LK_LABELS_HIERARCHY /* one class per level, the coarsest level first */
} lk_label_kind;

/* Labels of n embeddings; all arrays are borrowed. */
typedef struct lk_labels {
    lk_label_kind kind;
    const int32_t *classes; /* SINGLE [n]; HIERARCHY [n][levels]; NULL for MULTI */
    size_t levels;          /* HIERARCHY: at least 1 */
    const uint32_t *set_at; /* MULTI [n+1]: the labels of i are sets[set_at[i]] .. sets[set_at[i+1]-1] */
    const int32_t *sets;    /* MULTI: rising within each set, without repeats */
} lk_labels;

/* How alike two label sets are, in [0, 1]: 1 for equal classes else 0; Jaccard index |A and B| / |A or B| (two empty
 * sets: 0); share of levels from the coarsest on that agree. i and j must be below n. */
LK_API double lk_label_similarity(const lk_labels *a, size_t i, const lk_labels *b, size_t j);

/* Labels for pictures that have none: two augmented views of each of `pictures` pictures, first all first views, then
 * all second ones. classes [2*pictures] is written: view i and view i + pictures share a class. */
LK_API void lk_labels_of_views(size_t pictures, int32_t *classes);

/* Which pairs are positive and which negative, for labels whose similarity is neither 0 nor 1. Single labels need no
 * rule. Zeroes stand for the defaults. */
typedef struct lk_pair_rule {
    double positive; /* similarity from here on is positive; 0 = 0.5 */
    double negative; /* similarity up to here is negative; what lies between takes no part. Default 0. */
    bool soft; /* no thresholds: every pair is positive with weight s and negative with weight 1 - s. Understood by
                  the losses that docs/losses.md marks as weighted. */
} lk_pair_rule;

/* ---- Tuples: what a miner chooses and a loss looks at ---------------------------------------------------------------
 */

/* Pairs: (anchor_positive[i], positive[i]) for i < positives, (anchor_negative[i], negative[i]) for i < negatives.
 * Triplets: (anchor_positive[i], positive[i], negative[i]) for i < positives; negatives equals positives and
 * anchor_negative is NULL. Indices are rows of the batch; positives and negatives may be rows of a reference set. */
typedef struct lk_tuples {
    bool triplets;
    size_t positives, negatives;
    uint32_t *anchor_positive, *positive, *anchor_negative, *negative;
} lk_tuples;
/* Frees the arrays and zeroes the struct; NULL is allowed. */
LK_API void lk_tuples_free(lk_tuples *tuples);

/* ---- Distances ------------------------------------------------------------------------------------------------------
 */

typedef enum lk_distance_kind {
    LK_DISTANCE_DEFAULT,      /* the one that the loss or miner was published with */
    LK_DISTANCE_COSINE,       /* similarity: the inner product of normalised embeddings */
    LK_DISTANCE_L2,           /* |x - y|, gradient 0 at distance 0 */
    LK_DISTANCE_SQUARED_L2,   /* |x - y|^2 */
    LK_DISTANCE_INNER_PRODUCT /* similarity */
} lk_distance_kind;

typedef struct lk_distance {
    lk_distance_kind kind;
    bool raw; /* do not L2-normalise the embeddings first. Cosine is always normalised. The gradient goes through the
                 normalisation; of an embedding shorter than 1e-12 it is 0. */
} lk_distance;

/* ---- Losses ---------------------------------------------------------------------------------------------------------
 */

typedef enum lk_loss_kind {
    LK_LOSS_CONTRASTIVE,
    LK_LOSS_TRIPLET,
    LK_LOSS_N_PAIRS,
    LK_LOSS_N_TUPLE,
    LK_LOSS_TUPLET_MARGIN,
    LK_LOSS_NORMALISED_SOFTMAX,
    LK_LOSS_ARCFACE,
    LK_LOSS_COSFACE,
    LK_LOSS_SPHEREFACE,
    LK_LOSS_SUBCENTER_ARCFACE,
    LK_LOSS_CURRICULAR,
    LK_LOSS_PROXY_NCA,
    LK_LOSS_PROXY_ANCHOR,
    LK_LOSS_MULTI_SIMILARITY,
    LK_LOSS_CIRCLE,
    LK_LOSS_LIFTED,
    LK_LOSS_GENERALISED_LIFTED,
    LK_LOSS_NT_XENT, /* InfoNCE */
    LK_LOSS_SUPCON,
    LK_LOSS_FAST_AP,
    LK_LOSS_SMOOTH_AP,
    LK_LOSS_ANGULAR,
    LK_LOSS_MARGIN,
    LK_LOSS_KINDS /* how many there are */
} lk_loss_kind;

/* Ways of choosing tuples; section Miners below. */
typedef enum lk_miner_kind {
    LK_MINER_ALL,               /* every pair */
    LK_MINER_BATCH_HARD,        /* per anchor the hardest positive with the hardest negative: triplets */
    LK_MINER_BATCH_EASY_HARD,   /* per anchor one by `positive` and one by `negative`: pairs */
    LK_MINER_SEMI_HARD,         /* triplets with 0 < d_an - d_ap <= margin */
    LK_MINER_TRIPLET_MARGIN,    /* triplets with d_an - d_ap <= margin */
    LK_MINER_HARD_POSITIVE,     /* per anchor the hardest positive; every negative pair */
    LK_MINER_HARD_NEGATIVE,     /* per anchor the hardest negative; every positive pair */
    LK_MINER_MULTI_SIMILARITY,  /* pairs harder than the hardest of the other kind, within epsilon */
    LK_MINER_DISTANCE_WEIGHTED, /* triplets, negatives drawn so that every distance is equally likely */
    LK_MINER_PAIR_MARGIN,       /* positives farther than positive_margin, negatives nearer than negative_margin */
    LK_MINER_ANGULAR,           /* triplets whose angle at the negative exceeds `angle` */
    LK_MINER_KINDS
} lk_miner_kind;

/* How the elements of a loss (pairs, triplets, anchors: docs/losses.md says which) become one number. Losses that
 * divide by counts of their own (proxy-anchor, margin) take the default only. */
typedef enum lk_reducer {
    LK_REDUCE_DEFAULT,
    LK_REDUCE_MEAN,         /* over all elements */
    LK_REDUCE_MEAN_NONZERO, /* over the elements above zero */
    LK_REDUCE_SUM
} lk_reducer;

typedef enum lk_triplet_form {
    LK_TRIPLET_HINGE,      /* max(0, d_ap - d_an + margin) */
    LK_TRIPLET_SMOOTH,     /* log(1 + exp(d_ap - d_an + margin)) */
    LK_TRIPLET_SOFT_MARGIN /* log(1 + exp(d_ap - d_an)) */
} lk_triplet_form;

/* Every knob of every loss; lk_loss_defaults fills in the published values, and a loss reads its own only. */
typedef struct lk_loss_options {
    lk_loss_kind kind;
    lk_distance distance;
    lk_reducer reducer;
    lk_pair_rule rule;
    double margin;          /* triplet, margin, CosFace, proxy-anchor, circle: in units of the distance; ArcFace,
                               sub-center, curricular, tuplet margin, angular: radians; SphereFace: whole number 1 to 8 */
    double positive_margin; /* contrastive, lifted, generalised lifted */
    double negative_margin;
    double scale;       /* logits of the softmax family, tuplet margin, circle (gamma), Proxy-NCA */
    double temperature; /* normalised softmax, NT-Xent, SupCon, smooth-AP */
    double alpha, beta; /* multi-similarity: sharpness of positives and negatives; proxy-anchor: alpha; margin: beta is
                           the boundary, the starting value when it is learnt */
    double base;        /* multi-similarity */
    double nu;          /* margin: weight of the pull on beta */
    lk_triplet_form form;       /* triplet */
    bool swap;                  /* triplet: use the positive-negative distance where it is the harder one */
    uint32_t bins;              /* fast-AP */
    uint32_t subcenters;        /* sub-center ArcFace */
    bool learn_beta;            /* margin */
    bool beta_per_class;        /* margin: one boundary per class; needs `classes` */
    uint32_t classes;           /* losses with weights of their own: labels are 0 .. classes-1 */
    size_t memory;              /* cross-batch memory of so many embeddings around a pair loss; 0 = none */
    lk_miner_kind memory_miner; /* which pairs of the batch with the memory count: LK_MINER_ALL, or what this miner
                                   finds with its defaults (not the angular one) */
} lk_loss_options;

/* The published defaults of a kind. classes stays 0. */
LK_API lk_loss_options lk_loss_defaults(lk_loss_kind kind);
/* "arcface", "multi-similarity", ...; NULL for no kind. Static. */
LK_API const char *lk_loss_name(lk_loss_kind kind);
/* The kind of that name. LK_NOT_FOUND lists the names. */
LK_API lk_status lk_loss_kind_of(const char *name, lk_loss_kind *kind);

typedef struct lk_loss lk_loss;

/* A loss over embeddings of `dim` components, with its parameters (class weights or proxies [classes][dim], sub-centers
 * [classes][subcenters][dim], boundaries [1] or [classes]) drawn from `seed` as the reference draws them: normal for
 * the softmax family and Proxy-NCA, Kaiming normal over the fan-out for proxy-anchor, `beta` for the margin loss.
 * LK_INVALID names the option that makes no sense. */
LK_API lk_status lk_loss_new(const lk_loss_options *options, size_t dim, uint64_t seed, lk_loss **out);
LK_API void lk_loss_free(lk_loss *loss);
LK_API const lk_loss_options *lk_loss_options_of(const lk_loss *loss);
/* The learnt parameters, for the optimiser to change; *count floats. NULL and 0 when there are none. */
LK_API float *lk_loss_parameters(lk_loss *loss, size_t *count);

/* Value and gradient of the loss at a batch.
 * embeddings      [n][dim], finite, need not be normalised
 * labels          of the n embeddings; NULL when tuples is given and the loss reads no labels
 * tuples          what to look at, from a miner; NULL = all pairs (triplets) that the labels make. To softmax and proxy
 *                 losses they are weights: an embedding counts as often as it occurs, the most frequent one counts 1.
 * value           written
 * grad_embeddings [n][dim] written; NULL = not wanted
 * grad_parameters [count of lk_loss_parameters] written; NULL = not wanted
 * Without any element (no pairs, one class only, ...) value and gradients are 0. Value and gradients are finite for
 * finite input that does not overflow. Changes the state of curricular margin and of a cross-batch memory. LK_INVALID
 * (labels out of range or of a kind the loss cannot use, tuple indices out of range, not finite), LK_UNSUPPORTED,
 * LK_NO_MEMORY; then the state did not change. */
LK_API lk_status lk_loss_forward_backward(lk_loss *loss, const float *embeddings, size_t n, size_t dim,
                                          const lk_labels *labels, const lk_tuples *tuples, double *value,
                                          float *grad_embeddings, float *grad_parameters);

/* Softmax cross-entropy of a classifier, with temperature and smoothed labels (Szegedy et al., 2016).
 * logits      [n][classes]
 * labels      [n], 0 .. classes-1
 * temperature > 0, divides the logits; smoothing in [0, 1): this share of the target is spread over all classes evenly
 * value       written: the mean over the rows
 * grad_logits [n][classes] written; NULL = not wanted. LK_INVALID. */
LK_API lk_status lk_cross_entropy(const float *logits, size_t n, size_t classes, const int32_t *labels,
                                  double temperature, double smoothing, double *value, float *grad_logits);

/* What a loss remembers between batches apart from its parameters (memory, curriculum): bytes to keep in a checkpoint
 * so that a resumed run goes on bit for bit. lk_loss_state_size is 0 when there is nothing. Restoring into a loss with
 * other options is LK_CONFLICT. */
LK_API size_t lk_loss_state_size(const lk_loss *loss);
LK_API void lk_loss_state_save(const lk_loss *loss, void *bytes);
LK_API lk_status lk_loss_state_restore(lk_loss *loss, const void *bytes, size_t size);

/* ---- Miners ---------------------------------------------------------------------------------------------------------
 */

typedef enum lk_strategy { LK_STRATEGY_HARD, LK_STRATEGY_SEMI_HARD, LK_STRATEGY_EASY, LK_STRATEGY_ALL } lk_strategy;

typedef struct lk_miner_options {
    lk_miner_kind kind;
    lk_distance distance;
    lk_pair_rule rule;                       /* soft is not understood by miners */
    double margin;                           /* semi-hard, triplet margin: 0.2 */
    lk_strategy positive, negative;          /* batch-easy-hard: easy and semi-hard */
    double epsilon;                          /* multi-similarity: 0.1 */
    double positive_margin, negative_margin; /* pair margin: 0.2 and 0.8 */
    double angle;                            /* angular: 20 degrees, in radians */
    double cutoff, nonzero_cutoff; /* distance-weighted: nearer is treated as 0.5, farther than 1.4 never drawn */
} lk_miner_options;

LK_API lk_miner_options lk_miner_defaults(lk_miner_kind kind);
LK_API const char *lk_miner_name(lk_miner_kind kind);
LK_API lk_status lk_miner_kind_of(const char *name, lk_miner_kind *kind);

/* Chooses tuples of a batch, sorted by anchor, then positive, then negative; of equal distances the first row counts.
 * seed is read by the distance-weighted miner only. *out is freed by lk_tuples_free. LK_INVALID, LK_NO_MEMORY, LK_LIMIT
 * when there are more than 2^31 triplets. */
LK_API lk_status lk_mine(const lk_miner_options *options, const float *embeddings, size_t n, size_t dim,
                         const lk_labels *labels, uint64_t seed, lk_tuples *out);

/* ---- Samplers -------------------------------------------------------------------------------------------------------
 */

typedef enum lk_sampler_kind {
    LK_SAMPLER_PLAIN,     /* a shuffle of all pictures */
    LK_SAMPLER_PK,        /* P classes with K pictures each */
    LK_SAMPLER_BALANCED,  /* every draw takes a class first, then a picture of it: small classes come as often as large
                           */
    LK_SAMPLER_HARD_CLASS /* P x K, where the classes of a batch are confusable with one another */
} lk_sampler_kind;

typedef struct lk_sampler_options {
    lk_sampler_kind kind;
    size_t batch;               /* pictures per batch; for P x K a multiple of `per_class` */
    size_t per_class;           /* K */
    size_t batches;             /* per epoch; 0 = as many as it takes to see about every picture once, at least 1 */
    const uint32_t *confusable; /* HARD_CLASS [classes][confusable_count], from lk_confusable_classes; copied */
    size_t confusable_count;
    uint64_t seed;
} lk_sampler_options;

typedef struct lk_sampler lk_sampler;
/* classes [n]: class of each picture, any numbers from 0 on; copied. LK_INVALID: too few classes for a batch, a batch
 * larger than the data (plain), ... */
LK_API lk_status lk_sampler_new(const lk_sampler_options *options, const int32_t *classes, size_t n, lk_sampler **out);
LK_API void lk_sampler_free(lk_sampler *sampler);
LK_API size_t lk_sampler_batches(const lk_sampler *sampler);
/* The pictures of an epoch: rows [lk_sampler_batches][batch] written. They depend on the seed and the epoch's number
 * alone, so that a resumed run needs no state. P x K: each class of an epoch's pass comes once before any comes again;
 * within a class no picture is repeated unless it has fewer than K. LK_NO_MEMORY. */
LK_API lk_status lk_sampler_epoch(const lk_sampler *sampler, uint64_t epoch, uint32_t *rows);

/* For each class the `count` classes whose centroids are nearest (cosine), nearest first, found with our own flat
 * index: out [classes][count]. embeddings [n][dim]. A class without pictures or with count beyond what exists is filled
 * with UINT32_MAX. LK_INVALID, LK_NO_MEMORY. */
LK_API lk_status lk_confusable_classes(const float *embeddings, size_t n, size_t dim, const int32_t *labels,
                                       uint32_t classes, size_t count, uint32_t *out);

/* ---- Advice ---------------------------------------------------------------------------------------------------------
 */

/* What a table of labels looks like. */
typedef struct lk_label_summary {
    lk_label_kind kind;
    size_t pictures;           /* all of them */
    size_t labelled;           /* those with a label; 0 = no labels */
    size_t classes;            /* different classes (of the finest level) */
    size_t singletons;         /* classes of one picture */
    size_t smallest, largest;  /* pictures per class */
    double labels_per_picture; /* mean; 1 for single labels */
    size_t levels;
} lk_label_summary;

/* Summary of n labels; NULL labels = none. LK_NO_MEMORY. */
LK_API lk_status lk_labels_summary(const lk_labels *labels, size_t n, lk_label_summary *out);

typedef struct lk_advice {
    lk_loss_options loss; /* classes filled in where the loss needs them */
    lk_miner_kind miner;
    lk_sampler_kind sampler;
    size_t per_class;
    bool two_views;   /* train on two augmented views of each picture */
    char reason[640]; /* sentences for a person */
} lk_advice;
/* Loss, miner and sampler for these labels, and why. batch = pictures per batch. LK_INVALID when nothing can be learnt
 * (fewer than two pictures, ...); the message says so. */
LK_API lk_status lk_advise(const lk_label_summary *summary, size_t batch, lk_advice *out);

#ifdef __cplusplus
}
#endif
#endif
