/* Transforms of the plane by points; shared by fit.c and verify.c. */
#ifndef LK_RANK_FIT_H
#define LK_RANK_FIT_H

#include <likeness/rank.h>
#include <stdbool.h>

static inline lk_point lk_transform_point(const double t[9], lk_point p)
{
    double w = t[6] * p.x + t[7] * p.y + t[8];
    return (lk_point){(t[0] * p.x + t[1] * p.y + t[2]) / w, (t[3] * p.x + t[4] * p.y + t[5]) / w};
}

/* The transform that n chosen pairs determine (3 or 4), or the least squares fit of more. false when nothing is
 * determined; no message. chosen NULL = all. */
bool lk_fit_chosen(lk_transform_kind kind, size_t n, const uint32_t *chosen, const lk_point *from, const lk_point *to,
                   double transform[9]);

#endif
