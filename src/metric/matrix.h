/* The matrix of distances between two sets of embeddings, and the way back from the slope of each entry. Every loss is
 * a function of this matrix, so the gradient with respect to embeddings is written once. */
#ifndef LK_METRIC_MATRIX_H
#define LK_METRIC_MATRIX_H

#include <likeness/metric.h>

/* In f64: losses multiply distances by up to 80 before they exponentiate, and the gradient of L2 divides by distances.
 */
typedef struct lk_matrix {
    lk_distance distance; /* kind is not LK_DISTANCE_DEFAULT */
    size_t n, m, dim;
    bool self;               /* the references are the embeddings */
    double *x, *r;           /* [n][dim], [m][dim]: normalised unless distance.raw; r == x for self */
    double *x_norm, *r_norm; /* lengths before; r_norm == x_norm for self */
    double *value;           /* [n][m] */
    /* lk_matrix_new_weights instead of x and r, NULL otherwise: */
    const float *x_given, *r_given; /* borrowed */
    float *x_unit, *r_unit;         /* normalised unless distance.raw */
} lk_matrix;

/* x [n][dim]; references [m][dim], NULL = x itself. LK_INVALID when a component is not finite. */
lk_status lk_matrix_new(lk_distance distance, const float *x, size_t n, const float *references, size_t m, size_t dim,
                        lk_matrix *out);
/* The same for class weights and proxies, whose matrix is wide: products are f32, summed in f64 piece by piece; pairs
 * that are close, where losses and distances magnify an error, are computed in f64. Entries are within 5e-7 of |x||r|.
 * Both arrays must outlive the matrix. */
lk_status lk_matrix_new_weights(lk_distance distance, const float *x, size_t n, const float *references, size_t m,
                                size_t dim, lk_matrix *out);
void lk_matrix_free(lk_matrix *matrix);
bool lk_is_similarity(lk_distance_kind kind);

/* slope [n][m] = d loss / d value, overwritten. norm_slope [n] = d loss / d x_norm, NULL = 0. grad_x [n][dim] and,
 * unless self, grad_r [m][dim] are written where not NULL. */
lk_status lk_matrix_backward(const lk_matrix *matrix, double *slope, const double *norm_slope, float *grad_x,
                             float *grad_r);

/* For matrix.c alone: lk_matrix_backward of a matrix by lk_matrix_new_weights, and the slope of a distance to the
 * factor of (x - r). */
lk_status lk_matrix_backward_weights(const lk_matrix *matrix, double *slope, const double *norm_slope, float *grad_x,
                                     float *grad_r);
/* Shorter embeddings have no direction: they are divided by this and get no gradient. */
#define LK_SHORTEST 1e-12

/* Inner product of two references as they stand in the matrix. */
double lk_matrix_reference_dot(const lk_matrix *matrix, size_t i, size_t j);

#endif
