/* Which loss, miner and sampler suit a table of labels. The rules and what they rest on are in docs/losses.md. */
#include "base/error.h"
#include "metric/kinds.h"

#include <likeness/metric.h>
#include <stdio.h>

enum { ENOUGH_PER_CLASS = 10 };

static lk_status without_labels(const lk_label_summary *t, lk_advice *a)
{
    a->loss = lk_loss_defaults(LK_LOSS_NT_XENT);
    a->two_views = true;
    snprintf(
        a->reason, sizeof a->reason,
        "%s, so two augmented views of each of the %zu pictures are the positive pair and the rest of the batch are "
        "the "
        "negatives: NT-Xent, with batches as large as memory allows because every picture of a batch is a negative.",
        t->labelled ? "No class has two pictures" : "There are no labels", t->pictures);
    return LK_OK;
}

static void graded(const lk_label_summary *t, lk_advice *a)
{
    a->loss = lk_loss_defaults(LK_LOSS_MULTI_SIMILARITY);
    a->loss.rule.soft = true;
    bool multi = t->kind == LK_LABELS_MULTI;
    a->sampler = multi ? LK_SAMPLER_PLAIN : LK_SAMPLER_PK;
    if (multi)
        snprintf(a->reason, sizeof a->reason,
                 "Pictures carry %.1f labels on average, so a pair is not simply alike or unlike: multi-similarity "
                 "with each "
                 "pair weighted by the share of labels in common (Jaccard). Plain shuffling, because classes overlap.",
                 t->labels_per_picture);
    else
        snprintf(
            a->reason, sizeof a->reason,
            "The labels form a hierarchy of %zu levels, so a pair is alike by degrees: multi-similarity with each pair "
            "weighted by the share of levels in common; batches of several pictures per finest class.",
            t->levels);
}

bool lk_few_per_class(const lk_label_summary *t)
{
    return t->classes && (double)t->pictures / (double)t->classes < ENOUGH_PER_CLASS;
}

static void single(const lk_label_summary *t, size_t batch, lk_advice *a)
{
    double mean = (double)t->pictures / (double)t->classes, skew = (double)t->largest / (double)t->smallest;
    if (lk_few_per_class(t) || t->classes > 200000) {
        a->loss = lk_loss_defaults(LK_LOSS_MULTI_SIMILARITY);
        a->miner = LK_MINER_MULTI_SIMILARITY;
        a->sampler = LK_SAMPLER_PK;
        snprintf(a->reason, sizeof a->reason,
                 "%zu classes of %.1f pictures on average: %s, so pairs within the batch teach more. Multi-similarity "
                 "with its "
                 "miner, batches of %zu classes with %zu pictures each%s.",
                 t->classes, mean,
                 lk_few_per_class(t) ? "too few to learn a weight vector for each" : "too many for a softmax over all",
                 batch / a->per_class, a->per_class,
                 t->singletons ? "; classes of one picture serve as negatives" : "");
        return;
    }
    bool large = mean >= 100;
    a->loss = lk_loss_defaults(large ? LK_LOSS_SUBCENTER_ARCFACE : LK_LOSS_ARCFACE);
    a->loss.classes = (uint32_t)t->classes;
    a->sampler = skew > 10 ? LK_SAMPLER_BALANCED : LK_SAMPLER_PLAIN;
    snprintf(a->reason, sizeof a->reason,
             "%zu classes of %.0f pictures on average: enough to learn a weight vector for each, which compares every "
             "picture "
             "with all classes at each step. %s%s",
             t->classes, mean,
             large ? "Sub-center ArcFace, because large classes hold several appearances and wrong labels."
                   : "ArcFace.",
             skew > 10 ? " The largest class is more than ten times the smallest, so classes are drawn evenly." : "");
}

lk_status lk_advise(const lk_label_summary *t, size_t batch, lk_advice *out)
{
    *out = (lk_advice){.miner = LK_MINER_ALL, .sampler = LK_SAMPLER_PLAIN};
    if (t->pictures < 2) return lk_fail(LK_INVALID, "%zu pictures: nothing to compare", t->pictures);
    if (batch < 2) return lk_fail(LK_INVALID, "a batch of %zu holds no pair", batch);
    double mean = t->classes ? (double)t->pictures / (double)t->classes : 0;
    out->per_class = 4;
    while (out->per_class > 2 && ((double)out->per_class > mean || batch / out->per_class < 2)) out->per_class--;
    bool alone = t->kind == LK_LABELS_SINGLE && t->classes == t->singletons;
    if (!t->labelled || alone) return without_labels(t, out);
    if (t->classes < 2)
        return lk_fail(LK_INVALID,
                       "all pictures have the same label: there is nothing to tell apart. Give labels of several "
                       "classes, or none at all");
    if (t->kind != LK_LABELS_SINGLE)
        graded(t, out);
    else
        single(t, batch, out);
    return LK_OK;
}
