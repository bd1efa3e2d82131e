/* Work inside one operator is spread over the threads of OpenMP's runtime, the one that oneDNN uses: two sets of
 * threads would fight for the processors. Calls go to libgomp directly, so that every compiler builds the same program.
 */
#ifndef LK_NN_TEAM_H
#define LK_NN_TEAM_H

#include "nn/kernels.h"

#include <stddef.h>

typedef struct lk_team {
    int threads;
    const lk_nn_kernels *kernels;
} lk_team;

lk_team lk_team_of(int threads);

/* Calls fn(arg, begin, end) over [0, count) in one contiguous piece per thread; `cost` is the rough number of
 * arithmetic operations of one item, so that little work stays in the calling thread. Pieces must not depend on each
 * other, and an item's result must not depend on where the pieces are cut. */
typedef void (*lk_piece_fn)(void *arg, size_t begin, size_t end);
void lk_team_for(const lk_team *team, size_t count, size_t cost, lk_piece_fn fn, void *arg);

/* Calls fn(arg) in this thread while the others of the team stand by, awake, for each lk_team_for within it. For many
 * short pieces of work after each other: waking a thread takes longer than most operators of a network. fn must not
 * call anything that uses OpenMP's threads itself. */
void lk_team_gather(const lk_team *team, void (*fn)(void *), void *arg);

/* Sets how many threads oneDNN will use when called from this thread; returns the number before. */
int lk_team_enter(int threads);

#endif
