#include "metric/kinds.h"

#include "base/error.h"

#include <stdio.h>
#include <string.h>

#define DEGREES (M_PI / 180)

static const lk_loss_traits kinds[LK_LOSS_KINDS] = {
    [LK_LOSS_CONTRASTIVE] = {.name = "contrastive",
                             .run = lk_run_contrastive,
                             .weighted = true,
                             .memory = true,
                             .similarity = true,
                             .distance = true,
                             .defaults = {.distance.kind = LK_DISTANCE_L2, .negative_margin = 1}},
    [LK_LOSS_TRIPLET] = {.name = "triplet",
                         .run = lk_run_triplet,
                         .weighted = true,
                         .memory = true,
                         .similarity = true,
                         .distance = true,
                         .defaults = {.distance.kind = LK_DISTANCE_L2, .margin = 0.05}},
    [LK_LOSS_N_PAIRS] = {.name = "n-pairs",
                         .run = lk_run_n_pairs,
                         .similarity = true,
                         .distance = true,
                         .defaults = {.distance.kind = LK_DISTANCE_INNER_PRODUCT}},
    [LK_LOSS_N_TUPLE] = {.name = "n-tuple",
                         .run = lk_run_tuplet,
                         .weighted = true,
                         .memory = true,
                         .similarity = true,
                         .distance = true,
                         .defaults = {.distance.kind = LK_DISTANCE_COSINE, .scale = 16}},
    [LK_LOSS_TUPLET_MARGIN] = {.name = "tuplet-margin",
                               .run = lk_run_tuplet,
                               .weighted = true,
                               .memory = true,
                               .similarity = true,
                               .direct = true,
                               .defaults = {.distance.kind = LK_DISTANCE_COSINE,
                                            .margin = 5.73 * DEGREES,
                                            .scale = 64}},
    [LK_LOSS_NORMALISED_SOFTMAX] = {.name = "normalised-softmax",
                                    .run = lk_run_margin_softmax,
                                    .weights = true,
                                    .similarity = true,
                                    .direct = true,
                                    .defaults = {.distance.kind = LK_DISTANCE_COSINE, .temperature = 0.05}},
    [LK_LOSS_ARCFACE] = {.name = "arcface",
                         .run = lk_run_margin_softmax,
                         .weights = true,
                         .similarity = true,
                         .direct = true,
                         .defaults = {.distance.kind = LK_DISTANCE_COSINE, .margin = 28.6 * DEGREES, .scale = 64}},
    [LK_LOSS_COSFACE] = {.name = "cosface",
                         .run = lk_run_margin_softmax,
                         .weights = true,
                         .similarity = true,
                         .direct = true,
                         .defaults = {.distance.kind = LK_DISTANCE_COSINE, .margin = 0.35, .scale = 64}},
    [LK_LOSS_SPHEREFACE] = {.name = "sphereface",
                            .run = lk_run_margin_softmax,
                            .weights = true,
                            .similarity = true,
                            .direct = true,
                            .defaults = {.distance.kind = LK_DISTANCE_COSINE, .margin = 4, .scale = 1}},
    [LK_LOSS_SUBCENTER_ARCFACE] =
        {.name = "subcenter-arcface",
         .run = lk_run_margin_softmax,
         .weights = true,
         .similarity = true,
         .direct = true,
         .defaults = {.distance.kind = LK_DISTANCE_COSINE, .margin = 28.6 * DEGREES, .scale = 64, .subcenters = 3}},
    [LK_LOSS_CURRICULAR] = {.name = "curricular",
                            .run = lk_run_margin_softmax,
                            .weights = true,
                            .similarity = true,
                            .direct = true,
                            .defaults = {.distance.kind = LK_DISTANCE_COSINE, .margin = 0.5, .scale = 64}},
    [LK_LOSS_PROXY_NCA] = {.name = "proxy-nca",
                           .run = lk_run_proxy_nca,
                           .weights = true,
                           .similarity = true,
                           .distance = true,
                           .defaults = {.distance.kind = LK_DISTANCE_SQUARED_L2, .scale = 1}},
    [LK_LOSS_PROXY_ANCHOR] = {.name = "proxy-anchor",
                              .run = lk_run_proxy_anchor,
                              .weights = true,
                              .divisor = true,
                              .similarity = true,
                              .distance = true,
                              .defaults = {.distance.kind = LK_DISTANCE_COSINE, .margin = 0.1, .alpha = 32}},
    [LK_LOSS_MULTI_SIMILARITY] =
        {.name = "multi-similarity",
         .run = lk_run_multi_similarity,
         .weighted = true,
         .unique = true,
         .memory = true,
         .similarity = true,
         .distance = true,
         .defaults = {.distance.kind = LK_DISTANCE_COSINE, .alpha = 2, .beta = 50, .base = 0.5}},
    [LK_LOSS_CIRCLE] = {.name = "circle",
                        .run = lk_run_circle,
                        .weighted = true,
                        .unique = true,
                        .memory = true,
                        .similarity = true,
                        .direct = true,
                        .defaults = {.distance.kind = LK_DISTANCE_COSINE, .margin = 0.4, .scale = 80}},
    [LK_LOSS_LIFTED] = {.name = "lifted",
                        .run = lk_run_lifted,
                        .memory = true,
                        .similarity = true,
                        .distance = true,
                        .defaults = {.distance.kind = LK_DISTANCE_L2, .negative_margin = 1}},
    [LK_LOSS_GENERALISED_LIFTED] = {.name = "generalised-lifted",
                                    .run = lk_run_generalised_lifted,
                                    .weighted = true,
                                    .unique = true,
                                    .memory = true,
                                    .similarity = true,
                                    .distance = true,
                                    .defaults = {.distance.kind = LK_DISTANCE_L2, .negative_margin = 1}},
    [LK_LOSS_NT_XENT] = {.name = "nt-xent",
                         .run = lk_run_tuplet,
                         .weighted = true,
                         .memory = true,
                         .similarity = true,
                         .distance = true,
                         .defaults = {.distance.kind = LK_DISTANCE_COSINE, .temperature = 0.07}},
    [LK_LOSS_SUPCON] = {.name = "supcon",
                        .run = lk_run_supcon,
                        .weighted = true,
                        .unique = true,
                        .memory = true,
                        .similarity = true,
                        .distance = true,
                        .defaults = {.distance.kind = LK_DISTANCE_COSINE, .temperature = 0.1}},
    [LK_LOSS_FAST_AP] = {.name = "fast-ap",
                         .run = lk_run_fast_ap,
                         .all = true,
                         .distance = true,
                         .direct = true,
                         .defaults = {.distance.kind = LK_DISTANCE_SQUARED_L2, .bins = 10}},
    [LK_LOSS_SMOOTH_AP] = {.name = "smooth-ap",
                           .run = lk_run_smooth_ap,
                           .all = true,
                           .similarity = true,
                           .direct = true,
                           .defaults = {.distance.kind = LK_DISTANCE_COSINE, .temperature = 0.01}},
    [LK_LOSS_ANGULAR] = {.name = "angular",
                         .run = lk_run_angular,
                         .memory = true,
                         .similarity = true,
                         .direct = true,
                         .defaults = {.distance.kind = LK_DISTANCE_COSINE, .margin = 40 * DEGREES}},
    [LK_LOSS_MARGIN] = {.name = "margin",
                        .run = lk_run_margin,
                        .memory = true,
                        .divisor = true,
                        .similarity = true,
                        .distance = true,
                        .defaults = {.distance.kind = LK_DISTANCE_L2, .margin = 0.2, .beta = 1.2}},
};

const lk_loss_traits *lk_loss_traits_of(lk_loss_kind kind)
{
    return (unsigned)kind < LK_LOSS_KINDS ? &kinds[kind] : NULL;
}

lk_loss_options lk_loss_defaults(lk_loss_kind kind)
{
    const lk_loss_traits *traits = lk_loss_traits_of(kind);
    lk_loss_options options = traits ? traits->defaults : (lk_loss_options){0};
    options.kind = kind;
    return options;
}

const char *lk_loss_name(lk_loss_kind kind)
{
    const lk_loss_traits *traits = lk_loss_traits_of(kind);
    return traits ? traits->name : NULL;
}

lk_status lk_loss_kind_of(const char *name, lk_loss_kind *kind)
{
    char names[512] = "";
    for (int k = 0; k < LK_LOSS_KINDS; k++) {
        if (strcmp(name, kinds[k].name) == 0) {
            *kind = (lk_loss_kind)k;
            return LK_OK;
        }
        size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%s", k ? ", " : "", kinds[k].name);
    }
    return lk_fail(LK_NOT_FOUND, "no loss is named '%s'; there are %s", name, names);
}

static lk_status check_positive(const lk_loss_traits *traits, const char *option, double usual, double value)
{
    if (!isfinite(value)) return lk_fail(LK_INVALID, "%s: %s must be a number", traits->name, option);
    if (usual > 0 && !(value > 0)) return lk_fail(LK_INVALID, "%s: %s must be above 0", traits->name, option);
    return LK_OK;
}

static lk_status check_parts(const lk_loss_traits *traits, const lk_loss_options *o)
{
    const char *name = traits->name;
    if (traits->weights && o->classes < 1) return lk_fail(LK_INVALID, "%s: needs the number of classes", name);
    if (o->kind == LK_LOSS_FAST_AP && o->bins < 1) return lk_fail(LK_INVALID, "%s: needs at least one bin", name);
    if (o->kind == LK_LOSS_SUBCENTER_ARCFACE && o->subcenters < 1)
        return lk_fail(LK_INVALID, "%s: needs at least one center per class", name);
    if (o->kind == LK_LOSS_SPHEREFACE && !(o->margin >= 1 && o->margin <= 8 && o->margin == floor(o->margin)))
        return lk_fail(LK_INVALID, "%s: the margin is a whole number from 1 to 8", name);
    if (o->kind == LK_LOSS_MARGIN && o->beta_per_class && (!o->learn_beta || o->classes < 1))
        return lk_fail(LK_INVALID, "%s: a boundary per class must be learnt and needs the number of classes", name);
    if (traits->divisor && o->reducer != LK_REDUCE_DEFAULT)
        return lk_fail(LK_INVALID, "%s: divides by counts of its own and takes no reducer", name);
    if ((unsigned)o->reducer > LK_REDUCE_SUM) return lk_fail(LK_INVALID, "%s: no such reducer", name);
    if (o->rule.soft && !traits->weighted)
        return lk_fail(LK_INVALID, "%s: does not understand soft pairs; give a threshold", name);
    if (o->memory && !traits->memory) return lk_fail(LK_INVALID, "%s: no pair loss, takes no cross-batch memory", name);
    if ((unsigned)o->memory_miner >= LK_MINER_KINDS || o->memory_miner == LK_MINER_ANGULAR ||
        (o->memory_miner != LK_MINER_ALL && !o->memory))
        return lk_fail(LK_INVALID, "%s: no such miner for a cross-batch memory, or no memory", name);
    if (o->memory && o->swap) return lk_fail(LK_INVALID, "%s: no swap with a cross-batch memory", name);
    return LK_OK;
}

lk_status lk_loss_options_check(const lk_loss_options *o, size_t dim)
{
    lk_status s = LK_OK;
    const lk_loss_traits *traits = lk_loss_traits_of(o->kind);
    if (!traits) return lk_fail(LK_INVALID, "no kind of loss has number %d", o->kind);
    if (dim < 1 || dim > 1 << 20) return lk_fail(LK_INVALID, "%s: %zu dimensions", traits->name, dim);
    const lk_loss_options *d = &traits->defaults;
    bool similar = lk_is_similarity(o->distance.kind), usual = o->distance.kind == LK_DISTANCE_DEFAULT;
    if ((unsigned)o->distance.kind > LK_DISTANCE_INNER_PRODUCT ||
        (!usual && !(similar ? traits->similarity : traits->distance)) || (traits->direct && o->distance.raw))
        return lk_fail(LK_INVALID, "%s: is not defined for this distance", traits->name);
    LK_TRY(check_positive(traits, "scale", d->scale, o->scale));
    LK_TRY(check_positive(traits, "temperature", d->temperature, o->temperature));
    LK_TRY(check_positive(traits, "alpha", d->alpha, o->alpha));
    LK_TRY(check_positive(traits, "beta", o->kind == LK_LOSS_MULTI_SIMILARITY, o->beta));
    LK_TRY(check_positive(traits, "margin", 0, o->margin));
    LK_TRY(check_positive(traits, "positive margin", 0, o->positive_margin));
    LK_TRY(check_positive(traits, "negative margin", 0, o->negative_margin));
    LK_TRY(check_positive(traits, "base", 0, o->base));
    LK_TRY(check_positive(traits, "nu", 0, o->nu));
    LK_TRY(check_parts(traits, o));
done:
    return s;
}
