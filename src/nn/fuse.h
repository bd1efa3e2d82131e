/* Which nodes run together in inference: a convolution or product takes what follows it into one primitive. */
#ifndef LK_NN_FUSE_H
#define LK_NN_FUSE_H

#include "nn/graph.h"

enum { LK_MAX_CHAIN = 6 };

/* One per node. A node that starts a group (its anchor) has last >= itself; the group runs where `last` stands. */
typedef struct lk_fused {
    lk_node same_as; /* the node whose value this one passes on unchanged (dropout); LK_NO_NODE = its own */
    lk_node anchor;  /* of the group this node is in; LK_NO_NODE = alone */
    /* of anchors: */
    lk_node last;
    lk_node fold[2]; /* batch norm or layer scale folded into the weights, in order; LK_NO_NODE */
    int chain_count;
    lk_node chain[LK_MAX_CHAIN]; /* activations and sums that follow, in order */
    lk_node other[LK_MAX_CHAIN]; /* of a sum: the operand that is not of the chain */
} lk_fused;

/* fused [node_count] written. keep: nodes that must exist as values of their own (outputs need not be listed). */
void lk_fuse(const lk_graph *graph, const lk_node *keep, int keep_count, bool fuse, lk_fused *fused);

#endif
